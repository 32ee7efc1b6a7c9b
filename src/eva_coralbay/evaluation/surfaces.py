"""Distances between the surfaces of two segmentations, in mm.

The definitions are those of Nikolov et al. (2018, https://arxiv.org/abs/1809.04430) and of their
`surface-distance`: a surface runs between voxels, each of its elements has an area that depends on
the spacing, and the shares and percentiles are of areas, not of counts. So they hold for thick
slices as well. Distances are looked up in a tree of the surface's elements, which takes memory and
time by the size of the surfaces, not by that of the scan.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from monai.metrics import utils as monai_metrics_utils
from scipy import spatial

from eva_coralbay.errors import EvaCoralbayError

_ROUNDING_MM = 1e-4
"""What a distance may exceed a tolerance by: headers store spacings in 32 bits, and 3 voxels of
0.1 mm are a little more or less than 0.3 mm, depending on where they lie."""

_INSIDE = 255
"""The code of eight neighbors that are all part of a segmentation."""

_Array = npt.NDArray[np.floating]


class _Side(NamedTuple):
    """The elements of one surface, sorted by their distance."""

    distances: _Array
    """How far each element lies from the other surface, in mm."""

    areas: _Array
    """The area of each element, in mm^2."""


class SurfaceDistances(NamedTuple):
    """How far two surfaces lie apart, seen from each of them."""

    truth: _Side
    prediction: _Side

    def nsd(self, tolerance_mm: float) -> float:
        """Returns the normalized surface Dice: the share of both surfaces within a tolerance.

        Args:
            tolerance_mm: The distance up to which surfaces count as equal, in mm.
        """
        limit = tolerance_mm + _ROUNDING_MM
        within = sum(float(side.areas[side.distances <= limit].sum()) for side in self)
        return within / sum(float(s.areas.sum()) for s in self)

    def hausdorff(self, percentile: float = 95.0) -> float:
        """Returns the larger one of the percentiles of both sides, in mm.

        Args:
            percentile: The percentage of the area of a surface that is at most as far away.
        """
        return max(_percentile(side, percentile) for side in self)


def measure(
    truth: npt.NDArray[np.bool_], prediction: npt.NDArray[np.bool_], spacing_mm: Sequence[float]
) -> SurfaceDistances:
    """Measures the distances between the surfaces of two segmentations.

    Args:
        truth: The true voxels, of shape [D, H, W]; the smallest box around both is enough.
        prediction: The predicted voxels, of the same shape. Neither is empty.
        spacing_mm: The spacing along (D, H, W) in mm.

    Returns:
        The distances.

    Raises:
        EvaCoralbayError: If one of the two is empty, so that there is no distance.
    """
    if not truth.any() or not prediction.any():
        raise EvaCoralbayError("An empty segmentation has no surface.")
    areas_by_code = _areas_by_code(tuple(float(length) for length in spacing_mm))
    surfaces = []
    for mask in (truth, prediction):
        codes = _neighbor_codes(mask)
        elements = np.nonzero((codes != 0) & (codes != _INSIDE))
        points = np.stack(elements, axis=1) * np.asarray(spacing_mm, dtype=np.float64)
        surfaces.append((points, areas_by_code[codes[elements]]))
    (true_points, true_areas), (predicted_points, predicted_areas) = surfaces
    return SurfaceDistances(
        _sort(_nearest(true_points, predicted_points), true_areas),
        _sort(_nearest(predicted_points, true_points), predicted_areas),
    )


@functools.lru_cache(maxsize=64)
def _areas_by_code(spacing_mm: tuple[float, ...]) -> _Array:
    """Returns the area in mm^2 of the surface between eight neighbors, by their code."""
    areas, _ = monai_metrics_utils.create_table_neighbour_code_to_surface_area(spacing_mm)
    return np.asarray(areas, dtype=np.float64)


def _neighbor_codes(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Returns for each corner of a voxel which of its eight neighbors are part of the mask.

    The most significant bit is that of the neighbor before the corner along all axes, the next
    ones are those behind it along W, along H, along H and W, along D, and so on.
    """
    codes = np.pad(mask.astype(np.uint8), 1)
    for axis, bits in ((2, 1), (1, 2), (0, 4)):
        before = codes[(*[slice(None)] * axis, slice(None, -1))]
        behind = codes[(*[slice(None)] * axis, slice(1, None))]
        codes = before << np.uint8(bits) | behind
    return codes


def _nearest(points: _Array, others: _Array) -> _Array:
    """Returns the distance of each point from the nearest one of others."""
    tree = spatial.KDTree(others, balanced_tree=False, compact_nodes=False)
    return tree.query(points)[0]


def _sort(distances: _Array, areas: _Array) -> _Side:
    order = np.argsort(distances)
    return _Side(distances[order], areas[order])


def _percentile(side: _Side, percentile: float) -> float:
    shares = np.cumsum(side.areas) / side.areas.sum()
    index = int(np.searchsorted(shares, percentile / 100.0))
    return float(side.distances[min(index, len(side.distances) - 1)])
