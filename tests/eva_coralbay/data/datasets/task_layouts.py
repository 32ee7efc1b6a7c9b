"""Writes small scans in the layouts in which the public data sets are published."""

import pathlib
from collections.abc import Callable, Sequence

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel import nifti1

from eva_coralbay.data import datasets
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.tasks import splits as splits_lib

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


WRITERS: dict[str, Callable[..., None]] = {
    "btcv": write_btcv,
    "lits17": write_lits17,
    "flare22": write_flare22,
    "msd_task03_liver": write_msd_task03_liver,
    "msd_task06_lung": write_msd_task06_lung,
    "msd_task07_pancreas": write_msd_task07_pancreas,
    "msd_task08_hepatic_vessel": write_msd_task08_hepatic_vessel,
    "msd_task09_spleen": write_msd_task09_spleen,
    "msd_task10_colon": write_msd_task10_colon,
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
