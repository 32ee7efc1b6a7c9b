"""Writes small scans in the layouts of KiTS23, WORD, AMOS22, CHAOS, TotalSegmentator, OpenKBP."""

import gzip
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel import nifti1
from PIL import Image

from eva_coralbay.data import datasets
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import task_layouts
from tests.eva_coralbay.pretraining import scans

SHAPE = (24, 24, 24)

_AFFINE = np.diag([-1.5, -1.5, 1.5, 1.0])


def write_kits23(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes KiTS23 as the script of the challenge downloads it."""
    task_layouts.write_cases(
        {
            case: (root / case / "imaging.nii.gz", root / case / "segmentation.nii.gz")
            for case in cases or task_layouts.all_cases(datasets.KiTS23)
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
    cases = cases or task_layouts.all_cases(datasets.AMOS22)
    suffixes = {case: "Va" if case in lists["test"] else "Tr" for case in cases}
    _write_folders(root / "amos22", cases, suffixes, 16, shape)


def write_totalsegmentator(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes TotalSegmentator as its archive holds it."""
    lists = splits_lib.read_splits("totalsegmentator").schemes["official"]
    splits = {case: split for split, listed in lists.items() for case in listed}
    cases = cases or sorted(splits)
    image, label = task_layouts.make_scan(shape, len(datasets.TotalSegmentator.facts.labels))
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
    for seed, case in enumerate(cases or task_layouts.all_cases(datasets.CHAOS)):
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


WRITERS: dict[str, Callable[..., None]] = {
    "kits23": write_kits23,
    "word": write_word,
    "amos22": write_amos22,
    "chaos": write_chaos,
    "totalsegmentator": write_totalsegmentator,
}
"""What writes the data set of a task."""


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
    task_layouts.write_cases(files, num_labels=num_labels, shape=shape)


def _encode(array: npt.NDArray[Any]) -> bytes:
    """Returns the content of the file of a volume."""
    return gzip.compress(nifti1.Nifti1Image(array, _AFFINE).to_bytes(), 1)


def write_openkbp(
    root: pathlib.Path, cases: Sequence[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> None:
    """Writes OpenKBP as its repository holds it."""
    _, labels = task_layouts.make_scan(shape, 6)
    cube = np.zeros((2, 128, 128, 128), dtype=np.int64)
    # a scan of soft tissue that is a part of the cube as large as that of a head
    cube[0, 40:80, 40:80, 40:80] = 1030
    cube[(1, *(slice(40, 40 + length) for length in shape))] = labels
    for case in cases or task_layouts.all_cases(datasets.OpenKBP):
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
