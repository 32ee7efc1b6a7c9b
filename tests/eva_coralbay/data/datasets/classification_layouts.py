"""Writes small volumes in the layouts in which the classification data sets are published."""

import csv
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from eva_coralbay.tasks import splits as splits_lib

LUNA25_TABLE = "LUNA25_Public_Training_Development_Data.csv"

_MEDMNIST_SHAPE = (64, 64, 64)

_LUNA25_SHAPE = (64, 128, 128)


def all_cases(splits: splits_lib.Splits, scheme: str | None = None) -> list[str]:
    """Returns the ids of all cases of a scheme."""
    return sorted(sum(splits.schemes[scheme or splits.default].values(), []))


def write_organ_mnist_3d(root: pathlib.Path, cases: Sequence[str]) -> None:
    """Writes OrganMNIST3D as its record holds it."""
    _write_medmnist(root / "organmnist3d_64.npz", cases, num_classes=11)


def write_nodule_mnist_3d(root: pathlib.Path, cases: Sequence[str]) -> None:
    """Writes NoduleMNIST3D as its record holds it."""
    _write_medmnist(root / "nodulemnist3d_64.npz", cases, num_classes=2)


def write_luna25(root: pathlib.Path, cases: Sequence[str]) -> None:
    """Writes the table and the blocks of LUNA25; a nodule is a bright cube at the middle voxel."""
    blocks = root / "luna25_nodule_blocks"
    for kind in ("image", "metadata"):
        (blocks / kind).mkdir(parents=True, exist_ok=True)
    for index, case in enumerate(cases):
        np.save(blocks / "image" / f"{case}.npy", nodule_block(bright=100 + index))
        np.save(blocks / "metadata" / f"{case}.npy", np.array(metadata(), dtype=object))
    write_luna25_table(root, {case: index % 2 for index, case in enumerate(cases)})


def write_luna25_table(root: pathlib.Path, labels: dict[str, int]) -> None:
    """Writes the table of LUNA25 with the columns of the official one."""
    rows = []
    for case, label in labels.items():
        patient, lesion, date = case.split("_")
        rows.append(
            {
                "PatientID": patient,
                "SeriesInstanceUID": f"1.2.3.{patient}.{date}",
                "StudyDate": date,
                "CoordX": -72.91,
                "CoordY": -69.94,
                "CoordZ": -91.5,
                "LesionID": lesion,
                "AnnotationID": case,
                "NoduleID": f"{patient}_{lesion}",
                "label": label,
                "Age_at_StudyDate": 61,
                "Gender": "Male",
            }
        )
    with (root / LUNA25_TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def nodule_block(*, bright: int = 100) -> npt.NDArray[np.int16]:
    """Returns a block of lung with a bright cube whose middle is the middle voxel."""
    block = np.full(_LUNA25_SHAPE, -850, dtype=np.int16)
    depth, height, width = (length // 2 for length in _LUNA25_SHAPE)
    block[depth - 2 : depth + 3, height - 4 : height + 5, width - 4 : width + 5] = bright
    return block


def metadata(spacing: Sequence[float] = (1.25, 0.7, 0.7)) -> dict[str, Any]:
    """Returns the metadata of a block whose axes are those of the patient."""
    return {
        "origin": np.array([-100.0, -50.0, -60.0]),
        "spacing": np.array(spacing),
        "transform": np.eye(3),
    }


def write_cc_ccii(root: pathlib.Path, cases: Sequence[str]) -> None:
    """Writes CC-CCII as its archives hold it: a folder of slices a scan."""
    for index, case in enumerate(cases):
        label, patient, scan = case.split("-")
        folder = root / label / patient / scan
        folder.mkdir(parents=True)
        for number, image in enumerate(_slices(8 + index % 5, seed=index)):
            suffix = "png" if label == "NCP" else "jpg"
            Image.fromarray(image).save(folder / f"{number:04d}.{suffix}")


def write_cc_ccii_arrays(root: pathlib.Path, cases: Sequence[str]) -> None:
    """Writes CC-CCII as VoCo's archive holds it: an array a scan."""
    folder = root / "CC-CCII_public" / "data"
    folder.mkdir(parents=True)
    for index, case in enumerate(cases):
        _, patient, scan = case.split("-")
        np.save(folder / f"p{patient}-s{scan}.npy", _slices(8 + index % 5, seed=index))


def _write_medmnist(path: pathlib.Path, cases: Sequence[str], *, num_classes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for part in ("train", "val", "test"):
        count = sum(case.startswith(part) for case in cases)
        labels = np.arange(count, dtype=np.uint8)[:, None] % num_classes
        noise = np.random.default_rng(count).integers(0, 64, (count, 4, 4, 4), dtype=np.uint8)
        images = noise.repeat(16, axis=1).repeat(16, axis=2).repeat(16, axis=3)
        assert images.shape[1:] == _MEDMNIST_SHAPE
        arrays |= {
            f"{part}_images": images + labels[:, :, None, None] * 16,
            f"{part}_labels": labels,
        }
    np.savez_compressed(path, **arrays)


def _slices(count: int, *, seed: int) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    return noise.repeat(8, axis=1).repeat(8, axis=2)
