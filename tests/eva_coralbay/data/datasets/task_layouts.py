"""Writes small scans in the layouts in which the public data sets are published."""

import gzip
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel import nifti1
from PIL import Image

from eva_coralbay.data import datasets
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.pretraining import scans

SHAPE = (24, 24, 24)

_AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])
"""Axes that point to the left, to the back and up, as those of most CT scans on disk."""

_APPLE_DOUBLE = b"\x00\x05\x16\x07" + bytes(60)
"""The begin of the files that macOS adds to archives."""


def write_btcv(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes BTCV as `RawData.zip` holds it."""
    folder = root / "RawData" / "Training"
    write_cases(
        {
            case: (
                folder / "img" / f"{case}.nii.gz",
                folder / "label" / f"{case.replace('img', 'label')}.nii.gz",
            )
            for case in cases or all_cases(datasets.BTCV)
        },
        num_labels=14,
        shape=shape,
    )


def write_lits17(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes LiTS17 as its two archives hold it: volume-0 to volume-27 are in the first."""
    files = {}
    for case in cases or all_cases(datasets.LiTS17):
        batch = 1 if int(case.removeprefix("volume-")) < 28 else 2
        folder = root / "media" / "nas" / "01_Datasets" / "CT" / "LITS" / f"Training Batch {batch}"
        label = case.replace("volume", "segmentation")
        files[case] = (folder / f"{case}.nii", folder / f"{label}.nii")
    write_cases(files, num_labels=3, shape=shape)


def write_flare22(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes FLARE22 as `FLARE22Train.zip` holds it."""
    folder = root / "FLARE22Train"
    write_cases(
        {
            case: (folder / "images" / f"{case}_0000.nii.gz", folder / "labels" / f"{case}.nii.gz")
            for case in cases or all_cases(datasets.FLARE22)
        },
        num_labels=14,
        shape=shape,
    )


def write_msd(
    root: pathlib.Path,
    dataset: type[datasets.MSDTask],
    cases: Sequence[str] | None = None,
    shape: tuple[int, ...] = SHAPE,
) -> None:
    """Writes a task of the Decathlon as its archive holds it, with the files of macOS."""
    folder = root / dataset.folder
    files = {
        case: (folder / "imagesTr" / f"{case}.nii.gz", folder / "labelsTr" / f"{case}.nii.gz")
        for case in cases or all_cases(dataset)
    }
    write_cases(files, num_labels=len(dataset.facts.labels), shape=shape)
    for path in sum(files.values(), ()):
        path.with_name(f"._{path.name}").write_bytes(_APPLE_DOUBLE)


def write_msd_task03_liver(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes Task03 of the Decathlon."""
    write_msd(root, datasets.MSDLiver, cases, shape)


def write_msd_task06_lung(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes Task06 of the Decathlon."""
    write_msd(root, datasets.MSDLung, cases, shape)


def write_msd_task07_pancreas(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes Task07 of the Decathlon."""
    write_msd(root, datasets.MSDPancreas, cases, shape)


def write_msd_task08_hepatic_vessel(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes Task08 of the Decathlon."""
    write_msd(root, datasets.MSDHepaticVessel, cases, shape)


def write_msd_task09_spleen(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes Task09 of the Decathlon."""
    write_msd(root, datasets.MSDSpleen, cases, shape)


def write_msd_task10_colon(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes Task10 of the Decathlon."""
    write_msd(root, datasets.MSDColon, cases, shape)


def write_kits23(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes KiTS23 as the script of the challenge downloads it."""
    write_cases(
        {
            case: (root / case / "imaging.nii.gz", root / case / "segmentation.nii.gz")
            for case in cases or all_cases(datasets.KiTS23)
        },
        num_labels=4,
        shape=shape,
    )


def write_word(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes WORD as its two archives hold it, that of the test labels included."""
    lists = splits_lib.read_splits("word").schemes["voco"]
    folders = {"train": "Tr", "val": "Val", "test": "Ts"}
    suffixes = {case: folders[split] for split, listed in lists.items() for case in listed}
    _write_folders(root / "WORD-V0.1.0", cases or list(suffixes), suffixes, 17, shape)


def write_amos22(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes the labeled CT scans of AMOS22 as its archive holds them."""
    lists = splits_lib.read_splits("amos22").schemes["v1"]
    cases = cases or all_cases(datasets.AMOS22)
    suffixes = {case: "Va" if case in lists["test"] else "Tr" for case in cases}
    _write_folders(root / "amos22", cases, suffixes, 16, shape)


def write_totalsegmentator(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes TotalSegmentator as its archive holds it."""
    lists = splits_lib.read_splits("totalsegmentator").schemes["official"]
    splits = {case: split for split, listed in lists.items() for case in listed}
    cases = cases or sorted(splits)
    image, label = make_scan(shape, len(datasets.TotalSegmentator.facts.labels))
    files = {"ct.nii.gz": _encode(image)} | {
        f"segmentations/{name}.nii.gz": _encode((label == value).astype(np.uint8))
        for value, name in enumerate(datasets.TotalSegmentator.facts.labels)
        if value > 0
    }
    for case in cases:
        (root / case / "segmentations").mkdir(parents=True)
        for name, content in files.items():
            (root / case / name).write_bytes(content)
    rows = ["image_id;age;gender;split", *(f"{case};60;f;{splits[case]}" for case in cases)]
    (root / "meta.csv").write_text("\n".join(rows) + "\n", encoding="utf-8-sig")


def write_chaos(
    root: pathlib.Path, cases: Sequence[str] | None = None, *, downwards: bool = False
) -> None:
    """Writes the CT scans of CHAOS as its archive holds them: a DICOM and a PNG file a slice.

    Args:
        root: The folder of the data set.
        cases: The ids of the cases, all if None.
        downwards: Whether the first file is that of the uppermost slice.
    """
    for seed, case in enumerate(cases or all_cases(datasets.CHAOS)):
        folder = root / "CHAOS_Train_Sets/Train_Sets/CT" / case.removeprefix("CT_")
        array, liver = make_chaos(seed)
        directions = ((0.0, 0.0, -1.0), *scans.AXIAL[1:]) if downwards else scans.AXIAL
        scans.write_series(
            folder / "DICOM_anon", array, directions=directions, name="i{:04d},0000b.dcm"
        )
        (folder / "Ground").mkdir()
        for index, picture in enumerate(liver):
            Image.fromarray(picture).save(folder / f"Ground/liver_GT_{index:03d}.png")
    (root / "CHAOS_Train_Sets/Train_Sets/MR/1/T2SPIR/DICOM_anon").mkdir(parents=True)


def make_chaos(seed: int = 0) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Returns HU and pictures as (slice, row, column): the liver is what has 150 HU."""
    array = scans.hounsfield(seed=seed)
    array[array == 150] = 151
    liver = np.zeros(array.shape, dtype=np.uint8)
    liver[4:7, 6:12, 3:9] = 255
    array[liver > 0] = 150
    return array, liver


def write_openkbp(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes OpenKBP as its repository holds it."""
    _, labels = make_scan(shape, 6)
    cube = np.zeros((2, 128, 128, 128), dtype=np.int64)
    # a scan of soft tissue and fat that is a part of the cube as large as that of a head
    cube[0, 40:80, 40:80, 40:80] = 1030
    cube[0, 60:64, 40:80, 40:80] = 900
    cube[(1, *(slice(40, 40 + length) for length in shape))] = labels
    for case in cases or all_cases(datasets.OpenKBP):
        folder = root / "provided-data" / "train-pats" / case
        write_openkbp_case(folder, cube[0], cube[1], (3.0, 3.0, 3.0))


def write_openkbp_case(
    folder: pathlib.Path,
    values: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    spacing: Sequence[float],
) -> None:
    """Writes a cube of stored values and its labels as the repository of OpenKBP has them."""
    folder.mkdir(parents=True)
    index = np.flatnonzero(values)
    stored = zip(index, values.flat[index], strict=True)
    lines = [f"{place},{float(value)}" for place, value in stored]
    (folder / "ct.csv").write_text("\n".join([",data", *lines]) + "\n")
    for label, organ in enumerate(datasets.OpenKBP.facts.classes, start=1):
        lines = [f"{place}," for place in np.flatnonzero(labels == label)]
        (folder / f"{organ}.csv").write_text("\n".join([",data", *lines]) + "\n")
    (folder / "voxel_dimensions.csv").write_text("\n".join(f"{edge:.18e}" for edge in spacing))


WRITERS: dict[str, Callable[..., None]] = {
    "amos22": write_amos22,
    "btcv": write_btcv,
    "chaos": write_chaos,
    "flare22": write_flare22,
    "kits23": write_kits23,
    "lits17": write_lits17,
    "msd_task03_liver": write_msd_task03_liver,
    "msd_task06_lung": write_msd_task06_lung,
    "msd_task07_pancreas": write_msd_task07_pancreas,
    "msd_task08_hepatic_vessel": write_msd_task08_hepatic_vessel,
    "msd_task09_spleen": write_msd_task09_spleen,
    "msd_task10_colon": write_msd_task10_colon,
    "openkbp": write_openkbp,
    "totalsegmentator": write_totalsegmentator,
    "word": write_word,
}
"""What writes the data set of a task."""


def all_cases(dataset: type[task_lib.TaskDataset]) -> Sequence[str]:
    """Returns the ids of all cases in the splits of a task."""
    splits = splits_lib.read_splits(dataset.facts.id)
    return sorted(sum(splits.schemes[splits.default].values(), []))


def write_cases(
    files: dict[str, tuple[pathlib.Path, pathlib.Path]],
    *,
    num_labels: int,
    shape: tuple[int, ...] = SHAPE,
) -> None:
    """Writes the same scan and label map for each case, under the paths of the case."""
    for kind, array in enumerate(make_scan(shape, num_labels)):
        content: dict[str, bytes] = {}
        for path in (paths[kind] for paths in files.values()):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix not in content:
                nib.save(nifti1.Nifti1Image(array, _AFFINE), path)
                content[path.suffix] = path.read_bytes()
            path.write_bytes(content[path.suffix])


def make_scan(
    shape: tuple[int, ...], num_labels: int
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Makes a body of 40 HU in air, with a block of its own HU for each label but the first."""
    margins = [max(1, size // 8) for size in shape]
    body = tuple(slice(margin, size - margin) for margin, size in zip(margins, shape, strict=True))
    image = np.full(shape, -1000, np.int16)
    image[body] = 40
    label = np.zeros(shape, np.uint8)
    per_axis = int(np.ceil((num_labels - 1) ** (1 / 3)))
    edges = [
        np.linspace(inside.start + 1, inside.stop - 1, per_axis + 1).astype(int) for inside in body
    ]
    for value in range(1, num_labels):
        cell = np.unravel_index(value - 1, (per_axis,) * 3)
        block = tuple(
            slice(edge[index], edge[index + 1]) for edge, index in zip(edges, cell, strict=True)
        )
        label[block] = value
        image[block] = 60 + 10 * value
    noise = np.random.default_rng(0).normal(0, 8, shape)
    return (image + noise).astype(np.int16), label


def _write_folders(
    root: pathlib.Path,
    cases: Sequence[str],
    suffixes: dict[str, str],
    num_labels: int,
    shape: tuple[int, ...],
) -> None:
    """Writes scans into the folders of images and labels that each case's suffix names."""
    files = {
        case: (
            root / f"images{suffixes[case]}" / f"{case}.nii.gz",
            root / f"labels{suffixes[case]}" / f"{case}.nii.gz",
        )
        for case in cases
    }
    write_cases(files, num_labels=num_labels, shape=shape)


def _encode(array: npt.NDArray[Any]) -> bytes:
    """Returns the content of the file of a volume."""
    return gzip.compress(nifti1.Nifti1Image(array, _AFFINE).to_bytes(), 1)
