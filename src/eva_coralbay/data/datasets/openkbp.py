"""The planning CT of the Open Knowledge-Based Planning challenge."""

import os
import pathlib
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from torchvision import tv_tensors
from typing_extensions import override

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import reorientation, store
from eva_coralbay.data.datasets import base
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import catalog

_FOLDER = "provided-data/train-pats"
"""The folder of the patients."""

_EDGE = 128
"""Every volume is a cube of this many voxels along each axis."""

_HU_OF_ZERO = -1000.0
"""The HU of the stored value 0, which is what a voxel has that is not stored."""

_AXES = ((0, -1, 0), (-1, 0, 0), (0, 0, -1))
"""The RAS+ direction of each axis of the stored cube, by column: posterior, left, inferior."""


class OpenKBP(task_lib.TaskDataset):
    """OpenKBP: planning CT of 99 patients with head-and-neck cancer and five organs at risk.

    It is read as it lies in the repository, where a volume is a list of voxels:

        provided-data/train-pats/pt_1/ct.csv                  index in 128^3 and value, HU + 1000
        provided-data/train-pats/pt_1/Brainstem.csv           the indices of the organ
        provided-data/train-pats/pt_1/voxel_dimensions.csv    mm along the three axes of the cube

    The layout is that of the authors' loader (provided_code/data_loader.py). Their axes have no
    stated direction: it is the one in which the brain stem lies above the spinal cord, the
    mandible before both, and the right parotid gland on the right. The origin is unknown and set
    to 0. Where organs overlap, the higher label value counts.
    """

    facts = catalog.TASKS["openkbp"]

    @override
    def _find_files(self) -> dict[str, base.CaseFiles]:
        folders = [folder.name for folder in pathlib.Path(self._root, _FOLDER).glob("pt_*")]
        return {
            case: base.CaseFiles(image=f"{_FOLDER}/{case}/ct.csv", label=f"{_FOLDER}/{case}")
            for case in folders
        }

    @override
    def _image_files(self, case: str) -> tuple[str, ...]:
        (image,) = super()._image_files(case)
        return image, str(pathlib.Path(image).with_name("voxel_dimensions.csv"))

    @override
    def _label_files(self, case: str) -> tuple[str, ...]:
        (folder,) = super()._label_files(case)
        return tuple(os.path.join(folder, f"{name}.csv") for name in self.facts.classes)

    @override
    def _source(self, case: str) -> store.Source:
        return super()._source(case)._replace(extent_mm=self._read_case_grid(case).extent_mm)

    @override
    def _warn_of_surplus(self, known: Collection[str]) -> None:
        """Says nothing of the patients that lack an organ or are large: they are in no split."""

    @override
    def _read_scan(self, case: str) -> eva_tv_tensors.Volume:
        path = self._path(self._files[case].image)
        indices, values = _read_voxels(path, case, with_values=True)
        cube = np.full(_EDGE**3, _HU_OF_ZERO, dtype=np.float32)
        cube[indices] = values + _HU_OF_ZERO
        return reorientation.reorient(cube.reshape((_EDGE,) * 3), self._read_affine(case))

    @override
    def _read_grid(self, relative: str, case: str) -> grid_lib.Grid:
        return self._read_case_grid(case)

    @override
    def _read_mask(self, case: str, grid: grid_lib.Grid) -> tv_tensors.Mask:
        cube = np.zeros(_EDGE**3, dtype=np.uint8)
        for value, path in enumerate(self._label_files(case), start=1):
            indices, _ = _read_voxels(path, case, with_values=False)
            cube[indices] = value
        reoriented = reorientation.reorient(cube.reshape((_EDGE,) * 3), self._read_affine(case))
        return tv_tensors.Mask(reoriented.as_subclass(torch.Tensor).to(torch.uint8))

    @override
    def _find_problems(self, case: str) -> list[str]:
        """Returns what is wrong with a case; its voxels are read when it is prepared."""
        folder = self._path(f"{_FOLDER}/{case}")
        if case not in self._files:
            return [f"Case '{case}': the folder '{folder}' does not exist. Restore it."]
        missing = [path for path in self._source_files(case) if not pathlib.Path(path).is_file()]
        if missing:
            names = [pathlib.Path(path).name for path in missing]
            return [f"Case '{case}': {names} are missing in '{folder}'. Restore them."]
        try:
            self._read_affine(case)
        except DatasetError as error:
            return [str(error)]
        return []

    def _read_case_grid(self, case: str) -> grid_lib.Grid:
        edges = np.empty((_EDGE,) * 3, dtype=np.uint8)
        return grid_lib.Grid.of(reorientation.reorient(edges, self._read_affine(case)))

    def _read_affine(self, case: str) -> npt.NDArray[np.float64]:
        """Returns the affine of the stored cube."""
        path = self._image_files(case)[1]
        try:
            spacing = np.atleast_1d(np.loadtxt(path, dtype=np.float64))
        except (OSError, ValueError) as error:
            raise _damage(path, case, f"it cannot be read ({error})") from error
        if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
            raise _damage(path, case, f"it holds {spacing.tolist()}, not three lengths in mm")
        affine = np.eye(4)
        affine[:3, :3] = np.array(_AXES, dtype=np.float64) * spacing
        return affine


def _read_voxels(
    path: str, case: str, *, with_values: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Reads a list of voxels.

    Returns:
        Their indices in the cube, and their values if there are any.
    """
    try:
        table = pd.read_csv(path, header=0, names=["index", "value"], dtype=np.float64)
    except (OSError, ValueError) as error:
        raise _damage(path, case, f"it cannot be read ({error})") from error
    index = table["index"].to_numpy()
    indices = index.astype(np.int64)
    if (indices != index).any() or (indices < 0).any() or (indices >= _EDGE**3).any():
        raise _damage(path, case, f"an index is not an integer below {_EDGE}^3")
    if len(np.unique(indices)) != len(indices):
        raise _damage(path, case, "a voxel is there twice")
    values = table["value"].to_numpy(dtype=np.float32)
    if with_values and not np.isfinite(values).all():
        raise _damage(path, case, "a value is missing or not finite")
    return indices, values


def _damage(path: str, case: str, problem: str) -> DatasetError:
    return DatasetError(f"Case '{case}', file '{path}': {problem}. Download it again.")
