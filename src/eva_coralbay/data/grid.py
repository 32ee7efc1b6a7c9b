"""Grids: where the voxels of a volume lie. The axis order and units of the whole package are here.

NIfTI and DICOM files store a volume in any order of axes. Behind the readers every volume has the
axes (D, H, W) in the directions of `ORIENTATION` and an affine whose columns are in that order, so
that `affine @ (d, h, w, 1)` is the RAS+ world position of a voxel in mm.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from nibabel import orientations

from eva_coralbay.errors import EvaCoralbayError

if TYPE_CHECKING:
    import torch
    from eva.vision.data import tv_tensors as eva_tv_tensors

ORIENTATION = "SPL"
"""The direction in which each axis of (D, H, W) grows: superior, posterior, left.

It is the orientation of eva's loader, which reorients to "PLS" and puts the last axis first.
"""

_GRID_TOLERANCE = 0.1
"""How far, in voxels, the corners of two equal grids may lie apart."""

_SPACINGS_MM = (0.1, 100.0)
"""The least and the largest spacing that scans are resampled to."""

MAX_POSITION_MM = 1e6
"""How far from the origin a scan may lie: the float32 of a NIfTI header resolve 0.1 mm there."""

Box = tuple[slice, slice, slice]
"""The extent of a region along the axes (D, H, W), with start and stop inside the volume."""


class Grid(NamedTuple):
    """Where the voxels of a volume lie."""

    shape: tuple[int, int, int]
    """The number of voxels along (D, H, W)."""

    affine: npt.NDArray[np.float64]
    """The matrix of shape [4, 4] from (d, h, w, 1) to RAS+ world positions in mm."""

    @classmethod
    def of(cls, volume: "eva_tv_tensors.Volume") -> "Grid":
        """Returns the grid of a volume of shape [1, D, H, W]."""
        depth, height, width = volume.shape[1:]
        if volume.affine is None:
            raise EvaCoralbayError("The volume has no affine, so its spacing is unknown.")
        return cls((depth, height, width), np.asarray(volume.affine, dtype=np.float64))

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """How long it is along (D, H, W)."""
        depth, height, width = spacing(self.affine)
        return self.shape[0] * depth, self.shape[1] * height, self.shape[2] * width

    def cut(self, box: Box) -> "Grid":
        """Returns the grid of a region."""
        affine = self.affine.copy()
        affine[:3, 3] = (self.affine @ [*(extent.start for extent in box), 1.0])[:3]
        depth, height, width = (extent.stop - extent.start for extent in box)
        return Grid((depth, height, width), affine)

    def equals(self, other: "Grid") -> bool:
        """Whether two grids have one shape and no corner lies more than a tenth of a voxel off."""
        return self.shape == other.shape and _largest_distance(self, other) <= _GRID_TOLERANCE

    def describe(self) -> str:
        """Returns shape, spacing and origin as text."""
        lengths = "x".join(str(length) for length in self.shape)
        distances = "x".join(f"{distance:.4g}" for distance in spacing(self.affine))
        origin = ", ".join(f"{position:.4g}" for position in self.affine[:3, 3])
        return f"{lengths} voxels (D, H, W) of {distances} mm from ({origin}) mm"


def spacing(affine: "npt.NDArray[np.floating] | torch.Tensor") -> tuple[float, float, float]:
    """Returns the distance of neighboring voxels along (D, H, W) in mm.

    Args:
        affine: The affine of shape [4, 4], with the columns in the order (D, H, W).
    """
    depth, height, width = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return float(depth), float(height), float(width)


def check_window(size: Sequence[int] | int) -> tuple[int, int, int]:
    """Returns the size of crops or windows, after checking it.

    Args:
        size: The number of voxels along (D, H, W).

    Raises:
        EvaCoralbayError: If it is not three numbers above 0, such as a single one.
    """
    lengths = () if isinstance(size, int) else tuple(size)
    if len(lengths) != 3 or min(lengths) < 1:
        raise EvaCoralbayError(
            "`roi_size` (ROI_SIZE) must be three numbers of voxels (D, H, W), such as "
            f"[96, 96, 96]; got {size if isinstance(size, int) else list(lengths)}."
        )
    return lengths


def check_spacing(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    """Returns a spacing to resample to, as three floats.

    Args:
        spacing_mm: The distance of voxels along (D, H, W) in mm.

    Raises:
        EvaCoralbayError: If it is not three numbers from 0.1 to 100.
    """
    low, high = _SPACINGS_MM
    # NaN is in no range
    if len(spacing_mm) != 3 or not all(low <= length <= high for length in spacing_mm):
        raise EvaCoralbayError(
            f"`spacing` must be three positive numbers in mm, as (D, H, W), from {low:g} to "
            f"{high:g}, got {tuple(spacing_mm)}."
        )
    depth, height, width = (float(length) for length in spacing_mm)
    return depth, height, width


def straight_affine(
    spacing_mm: Sequence[float], origin_mm: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Returns the affine of a volume whose axes are those of the patient.

    Args:
        spacing_mm: The spacing along (D, H, W) in mm.
        origin_mm: The RAS+ world position of the first voxel in mm.

    Returns:
        The affine of shape [4, 4], with the columns in the order (D, H, W).
    """
    directions = orientations.inv_ornt_aff(orientations.axcodes2ornt(ORIENTATION), (1, 1, 1)).T
    affine = directions @ np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = origin_mm
    return affine


def _largest_distance(grid: Grid, like: Grid) -> float:
    """Returns how far the corners of two grids of one shape lie apart, in voxels of `like`."""
    corners = np.array([[*index, 1] for index in np.ndindex(2, 2, 2)], dtype=np.float64).T
    corners[:3] *= np.array(like.shape)[:, None] - 1
    return float(np.abs(np.linalg.solve(like.affine, grid.affine @ corners) - corners).max())
