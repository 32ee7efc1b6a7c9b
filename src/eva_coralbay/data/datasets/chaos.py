"""The CT scans of the CHAOS challenge."""

import os
import pathlib
import re

import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from PIL import Image, UnidentifiedImageError
from torchvision import tv_tensors
from typing_extensions import override

from eva_coralbay.data import dicom
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data.datasets import base
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import catalog

_PLACES = ("", "Train_Sets", "CHAOS_Train_Sets/Train_Sets")
"""Where the folder `CT` may lie below the root."""


class CHAOS(task_lib.TaskDataset):
    """Combined (CT-MR) Healthy Abdominal Organ Segmentation: 20 CT scans with the liver.

    Each scan is a DICOM series with a picture a slice, which is not black where the liver is:

        CHAOS_Train_Sets/Train_Sets/CT/1/DICOM_anon/*.dcm
        CHAOS_Train_Sets/Train_Sets/CT/1/Ground/liver_GT_000.png

    The pictures follow each other as the names of the DICOM files do, whatever the direction of
    the scan. The MRI scans of the archive are left out, as are its test scans, whose labels are
    not published.
    """

    facts = catalog.TASKS["chaos"]

    @override
    def _find_files(self) -> dict[str, base.CaseFiles]:
        folders = (os.path.join(place, "CT") for place in _PLACES)
        folder = next((one for one in folders if pathlib.Path(self._path(one)).is_dir()), None)
        entries = () if folder is None else pathlib.Path(self._path(folder)).iterdir()
        numbers = [entry.name for entry in entries]
        return {
            f"CT_{number}": base.CaseFiles(
                image=f"{folder}/{number}/DICOM_anon", label=f"{folder}/{number}/Ground"
            )
            for number in sorted(numbers)
            if number.isdecimal()
        }

    @override
    def _image_files(self, case: str) -> tuple[str, ...]:
        return self._list_slices(self._files[case].image, "*.dcm")

    @override
    def _label_files(self, case: str) -> tuple[str, ...]:
        return self._list_slices(self._files[case].label, "*.png")

    @override
    def _find_problems(self, case: str) -> list[str]:
        if case not in self._files:
            return super()._find_problems(case)
        slices, pictures = self._image_files(case), self._label_files(case)
        for paths in (slices, pictures):
            if not pathlib.Path(paths[0]).is_file():
                return [f"Case '{case}': there are no files in '{paths[0]}'. Restore them."]
        if len(slices) != len(pictures):
            return [
                f"Case '{case}': {len(slices)} slices in '{pathlib.Path(slices[0]).parent}', but "
                f"{len(pictures)} pictures in '{pathlib.Path(pictures[0]).parent}'. Restore them."
            ]
        return []

    @override
    def _read_scan(self, case: str) -> eva_tv_tensors.Volume:
        return dicom.read_series(self._image_files(case), case=case)

    @override
    def _read_grid(self, relative: str, case: str) -> grid_lib.Grid:
        return grid_lib.Grid.of(self._read_scan(case))

    @override
    def _read_mask(self, case: str, grid: grid_lib.Grid) -> tv_tensors.Mask:
        pictures = np.stack([_read_picture(path, case) for path in self._label_files(case)])
        mask = dicom.place_slices(pictures, self._image_files(case), case=case)
        if not grid_lib.Grid.of(mask).equals(grid):
            raise DatasetError(
                f"Case '{case}', '{self._path(self._files[case].label)}': the pictures are not of "
                "the slices of the scan. Unpack both again."
            )
        return tv_tensors.Mask(mask.as_subclass(torch.Tensor).to(torch.uint8))

    def _list_slices(self, folder: str, pattern: str) -> tuple[str, ...]:
        """Returns the paths of the files of the slices, in the order of their names.

        If there are none, the path of the folder, which is then reported as missing.
        """
        found = pathlib.Path(self._path(folder)).glob(pattern)
        paths = [str(path) for path in found if not path.name.startswith(".")]
        return tuple(sorted(paths, key=_numbers)) or (self._path(folder),)


def _numbers(path: str) -> list[int]:
    """Returns the numbers in the name of a file, by which the files are ordered."""
    return [int(digits) for digits in re.findall(r"\d+", pathlib.Path(path).name)]


def _read_picture(path: str, case: str) -> npt.NDArray[np.float32]:
    """Reads the picture of a slice: 1 where the liver is, of shape [rows, columns]."""
    try:
        with Image.open(path) as image:
            return (np.asarray(image.convert("L")) > 0).astype(np.float32)
    except (OSError, UnidentifiedImageError) as error:
        raise DatasetError(
            f"Case '{case}', file '{path}': unreadable ({error}). Unpack it again."
        ) from error
