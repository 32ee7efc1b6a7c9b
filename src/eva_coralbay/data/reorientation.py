"""Reorients scans whose axes are in any order."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from nibabel import orientations

from eva_coralbay.data import grid as grid_lib


def reorient(array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> eva_tv_tensors.Volume:
    """Reorients a scan to the directions of `ORIENTATION`.

    Args:
        array: The HU, with the axes in any order.
        affine: The matrix of shape [4, 4] from indices of the array to RAS+ world positions in mm.

    Returns:
        The scan in HU, float32, of shape [1, D, H, W], with a float64 affine.
    """
    transform = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(grid_lib.ORIENTATION)
    )
    reoriented = orientations.apply_orientation(array, transform)
    return eva_tv_tensors.Volume(
        torch.from_numpy(np.array(reoriented, dtype=np.float32, order="C"))[None],
        affine=torch.from_numpy(affine @ orientations.inv_ornt_aff(transform, array.shape)),
    )
