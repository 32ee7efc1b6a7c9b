"""NIfTI images of volumes on the grid of `eva_coralbay.data.grid`, to be written to files."""

import gzip
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel import nifti1, orientations

from eva_coralbay import _atomic_files


def as_nifti(
    array: npt.NDArray[Any], affine: npt.NDArray[np.float64], *, orientation: str = "LPS"
) -> nifti1.Nifti1Image:
    """Returns a volume as a NIfTI image.

    Args:
        array: The volume of shape [D, H, W].
        affine: Its affine of shape [4, 4], with the columns in the order (D, H, W).
        orientation: The axis codes in which the image stores the volume.

    Returns:
        The image, with sform and qform set.
    """
    transform = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(orientation)
    )
    stored = nifti1.Nifti1Image(
        orientations.apply_orientation(array, transform),
        affine @ orientations.inv_ornt_aff(transform, array.shape),
    )
    stored.set_sform(stored.affine, code="scanner")
    stored.set_qform(stored.affine, code="scanner")
    stored.header.set_xyzt_units("mm")
    return stored


def write(
    path: str | os.PathLike[str],
    array: npt.NDArray[Any],
    affine: npt.NDArray[np.float64],
    *,
    orientation: str = "LPS",
    compression: int = 6,
) -> None:
    """Writes a volume as .nii.gz, with the same bytes for the same content.

    Args:
        path: The file.
        array: The volume of shape [D, H, W].
        affine: Its affine of shape [4, 4], with the columns in the order (D, H, W).
        orientation: The axis codes in which the file stores the volume.
        compression: The level of gzip.
    """
    image = as_nifti(array, affine, orientation=orientation)
    content = gzip.compress(image.to_bytes(), compresslevel=compression, mtime=0)
    _atomic_files.write_atomically(path, content)
