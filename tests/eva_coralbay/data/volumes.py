"""Volumes whose values say where they lie, and their files."""

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from eva.vision.data import tv_tensors as eva_tv_tensors
from nibabel import nifti1

DIRECTIONS = {
    "R": (1, 0, 0),
    "L": (-1, 0, 0),
    "A": (0, 1, 0),
    "P": (0, -1, 0),
    "S": (0, 0, 1),
    "I": (0, 0, -1),
}
"""The RAS+ direction of each axis code."""

AXIS_CODES = [
    "".join(codes)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for codes in itertools.product(*axes)
]
"""The 48 orders and directions in which a file may store its axes."""


def stored_affine(codes: str, *, spacing_mm: Sequence[float]) -> npt.NDArray[np.float64]:
    """Returns the affine of a file whose axes have the given codes."""
    affine = np.eye(4)
    for axis, (code, step) in enumerate(zip(codes, spacing_mm, strict=True)):
        affine[:3, axis] = np.multiply(DIRECTIONS[code], step)
    affine[:3, 3] = (11.0, -22.0, 33.0)
    return affine


def rotation(angles: Sequence[float]) -> npt.NDArray[np.float64]:
    """Returns the matrix that turns around the three axes of the world in turn."""
    matrix = np.eye(4)
    for axis, angle in enumerate(angles):
        first, second = (i for i in range(3) if i != axis)
        turn = np.eye(4)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def world_content(
    shape: tuple[int, int, int], affine: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Returns a volume whose values say where in the world each voxel lies."""
    indices = np.stack([*np.indices(shape), np.ones(shape)])
    x, y, z, _ = np.einsum("ij,j...->i...", affine, indices)
    return (x + 3 * y + 10 * z).astype(np.float32)


def assert_holds_world_content(volume: eva_tv_tensors.Volume, *, atol: float = 1e-4) -> None:
    """Checks that the affine puts the values of a volume where they belong."""
    depth, height, width = volume.shape[1:]
    expected = world_content((depth, height, width), np.asarray(volume.affine))
    np.testing.assert_allclose(volume[0], expected, atol=atol)


def save(path: pathlib.Path, array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> str:
    """Writes an array as it is to a NIfTI file."""
    if array.dtype == np.int64:
        nib.save(nifti1.Nifti1Image(array, affine, dtype=np.int64), path)
    else:
        nib.save(nifti1.Nifti1Image(array, affine), path)
    return str(path)


def patch(path: pathlib.Path, position: int, content: bytes) -> None:
    """Overwrites a part of a file."""
    with path.open("r+b") as file:
        file.seek(position)
        file.write(content)
