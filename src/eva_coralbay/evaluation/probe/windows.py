"""Windows that cover a scan, each of which is responsible for a part of it.

A voxel belongs to the window in whose inside it lies deepest, so that it has one feature vector,
whether it is drawn for training or labeled. Nothing is averaged over windows.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple


class Window(NamedTuple):
    """A window, in voxels of a scan."""

    start: tuple[int, int, int]
    """Its first voxel, as (D, H, W)."""

    core: tuple[slice, slice, slice]
    """The voxels that belong to it. The cores of all windows partition the scan."""

    @property
    def core_within(self) -> tuple[slice, slice, slice]:
        """The core in voxels of the window."""
        depth, height, width = (
            slice(extent.start - start, extent.stop - start)
            for extent, start in zip(self.core, self.start, strict=True)
        )
        return depth, height, width


def place(shape: Sequence[int], size: Sequence[int], overlap: float) -> list[Window]:
    """Places windows evenly over a scan.

    Args:
        shape: The shape of the scan in voxels, as (D, H, W).
        size: The size of a window in voxels, as (D, H, W).
        overlap: The smallest overlap of two neighbors, as a share of the window.

    Returns:
        The windows. They end at the end of the scan, or later where it is smaller than a window.
    """
    axes = [_place_along(*lengths, overlap) for lengths in zip(shape, size, strict=True)]
    return [
        Window(
            (depth[0], height[0], width[0]),
            (depth[1], height[1], width[1]),
        )
        for depth, height, width in itertools.product(*axes)
    ]


def _place_along(length: int, size: int, overlap: float) -> list[tuple[int, slice]]:
    """Returns the start and the core of each window along an axis."""
    last = max(length - size, 0)
    steps = math.ceil(last / max(size * (1.0 - overlap), 1.0))
    starts = [round(last * step / steps) for step in range(steps + 1)] if steps else [0]
    # where two windows overlap, each has its half
    cuts = [(first + second + size) // 2 for first, second in itertools.pairwise(starts)]
    bounds = itertools.pairwise([0, *cuts, length])
    return [(start, slice(*bound)) for start, bound in zip(starts, bounds, strict=True)]
