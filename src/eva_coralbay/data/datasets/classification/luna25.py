"""LUNA25."""

import pathlib
import pickle  # nosec B403  # only what admits nothing but arrays
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from typing_extensions import override

from eva_coralbay.data import arrays, foreign_files
from eva_coralbay.data.datasets.classification import base
from eva_coralbay.tasks import catalog

_TABLE = "LUNA25_Public_Training_Development_Data.csv"
"""The official table of the nodules."""

_BLOCKS = "luna25_nodule_blocks"
"""The official folder of the blocks."""

_WORLD = np.diag([-1.0, -1.0, 1.0])[:, ::-1]
"""The matrix from the blocks' world (z, y, x), which is LPS reversed, to RAS+."""


class LUNA25(base.ClassificationDataset):
    """LUNA25: whether a nodule in a screening CT of the chest was malignant.

    A volume is the official block of a nodule, 64 x 128 x 128 voxels in HU at the spacing of the
    scan, in which the nodule is at the middle voxel. The id of a case is its AnnotationID:
    patient, lesion and date of the scan.
    """

    facts = catalog.TASKS["luna25"]

    @override
    def _find_cases(self) -> dict[str, base.Case]:
        path = self._path(_TABLE)
        if not pathlib.Path(path).is_file():
            return {}
        with foreign_files.reading(path, fix=self.facts.how_to_get):
            table = pd.read_csv(path, dtype={"AnnotationID": str, "PatientID": str})
            rows = zip(table["AnnotationID"], table["label"], table["PatientID"], strict=True)
            return {
                case: base.Case(f"{_BLOCKS}/image/{case}.npy", int(label), patient)
                for case, label, patient in rows
            }

    @override
    def _files(self, case: str) -> list[str]:
        return [self._path(f"{_BLOCKS}/{kind}/{case}.npy") for kind in ("image", "metadata")]

    @override
    def _read(self, case: str) -> eva_tv_tensors.Volume:
        image, metadata = self._files(case)
        with foreign_files.reading(metadata, case=case, fix="Unpack it again."):
            affine = _to_affine(**_read_dictionary(metadata))
        block = arrays.read_npy(image, case=case)
        if block.ndim != 3 or min(block.shape) < 2:
            raise foreign_files.problem(
                f"the file is unreadable: the shape {block.shape} is not that of a block",
                image,
                case=case,
                fix="Unpack it again.",
            )
        return eva_tv_tensors.Volume(
            torch.from_numpy(block[None].astype(np.float32)), affine=torch.from_numpy(affine)
        )


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and what Python has built in, and runs nothing else."""

    _NAMES = ("_frombuffer", "_reconstruct", "dtype", "ndarray", "scalar")

    @override
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name.split(".")[0] != "numpy" or global_name not in self._NAMES:
            raise pickle.UnpicklingError(f"it holds '{module_name}.{global_name}', not only arrays")
        return super().find_class(module_name, global_name)


def _read_dictionary(path: str) -> dict[str, Any]:
    """Reads a dictionary of arrays that was written by `numpy.save`."""
    with pathlib.Path(path).open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        return _ArrayUnpickler(file).load().item()


def _to_affine(
    *, origin: npt.NDArray[Any], spacing: npt.NDArray[Any], transform: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Returns the affine of a block from its metadata, which the challenge's scripts wrote.

    Args:
        origin: The world position (z, y, x) of the first voxel in mm.
        spacing: The voxel spacing along (D, H, W) in mm.
        transform: The step (z, y, x) to the next voxel along each axis, one a row, with its
            components divided by the spacing.
    """
    affine = np.eye(4)
    affine[:3, :3] = _WORLD @ (np.asarray(transform) * np.asarray(spacing)).T
    affine[:3, 3] = _WORLD @ np.asarray(origin)
    if not np.isfinite(affine).all() or np.linalg.det(affine) == 0:
        raise ValueError(f"the place of the block is {affine[:3].tolist()}")
    return affine
