"""Reading one scan, whatever format it has: `eva_coralbay.read_scan`."""

import os
import pathlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors

from eva_coralbay.data import dicom, nifti
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import DatasetError


class Scan(NamedTuple):
    """A CT scan with its place in the world.

    The axes (D, H, W) grow to superior, posterior and left ("SPL"), whatever order the file has.
    """

    array: npt.NDArray[np.float32]
    """The HU, of shape [D, H, W]."""

    spacing: tuple[float, float, float]
    """The distance of neighboring voxels along (D, H, W), in mm."""

    affine: npt.NDArray[np.float64]
    """The matrix of shape [4, 4] from (d, h, w, 1) to RAS+ world positions in mm."""


def read_scan(path: str | os.PathLike[str]) -> Scan:
    """Reads a CT scan.

    Args:
        path: A NIfTI file (`.nii` or `.nii.gz`), or a folder that holds one CT series of DICOM
            files. `~` stands for the home folder.

    Returns:
        The scan: `array` in HU, float32, of shape [D, H, W]; `spacing` in mm along (D, H, W); and
        `affine`, from voxels to RAS+ world positions in mm.

    Raises:
        DatasetError: If the scan cannot be read as a whole, its header contradicts itself, or the
            folder holds no series or several. The message says what to do.
    """
    place = os.path.expanduser(os.fspath(path))
    is_folder = place != "" and pathlib.Path(place).is_dir()
    volume = _read_folder(place) if is_folder else nifti.read_scan(place, case=place)
    grid = grid_lib.Grid.of(volume)
    array = volume.as_subclass(torch.Tensor)[0].numpy()
    return Scan(array, grid_lib.spacing(grid.affine), grid.affine)


def _read_folder(folder: str) -> eva_tv_tensors.Volume:
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    series = dicom.find_series(folder, names)
    if len(series) != 1:
        found = f"{len(series)} DICOM series" if series else "no DICOM series"
        raise DatasetError(
            f"Folder '{folder}' holds {found}, but one is needed. Name a NIfTI file, or a folder "
            "with the files of one series."
        )
    (paths,) = series.values()
    return dicom.read_series(paths, case=pathlib.Path(folder).name)
