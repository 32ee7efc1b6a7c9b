"""Scans on the grid of a task, cropped to the body: what is the same each time a scan is used.

`prepare` does the work in memory; `eva_coralbay.data.store` keeps its result on disk. Transforms
take either as a `PreparedScan` and read of it what they need.
"""

import abc
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from torchvision import tv_tensors
from typing_extensions import override

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import resampling
from eva_coralbay.data.label_values import IGNORE_LABEL
from eva_coralbay.tasks import facts

Box = grid_lib.Box


class Preparation(NamedTuple):
    """What is done once to every scan."""

    spacing: tuple[float, float, float] = facts.SPACING_MM
    """The voxel spacing to resample to, in mm, as (D, H, W)."""

    body_above: float = facts.SOFT_TISSUE_HU[0]
    """The scan is cropped to the voxels of more than this HU, and to all labeled voxels."""


class PreparedScan(abc.ABC):
    """A scan on the grid of a task, cropped to the body, with its label map if it has one."""

    @property
    @abc.abstractmethod
    def grid(self) -> grid_lib.Grid:
        """Where its voxels lie."""

    @property
    @abc.abstractmethod
    def label_counts(self) -> npt.NDArray[np.int64]:
        """The number of voxels of each label value, the background first; empty without labels.

        Voxels with `IGNORE_LABEL` are not counted.
        """

    @abc.abstractmethod
    def read_image(self, box: Box) -> torch.Tensor:
        """Reads a region of the scan.

        Args:
            box: The region.

        Returns:
            The HU, float32, of shape [1, D, H, W].
        """

    @abc.abstractmethod
    def read_mask(self, box: Box) -> torch.Tensor:
        """Reads a region of the label map.

        Args:
            box: The region.

        Returns:
            The labels, of an integer type, of shape [1, D, H, W]; `IGNORE_LABEL` where a voxel is
            to be left out.
        """

    @abc.abstractmethod
    def locate(self, label: int, index: int) -> tuple[int, int, int]:
        """Finds a voxel of a label.

        Args:
            label: The label value.
            index: Which of its voxels, in the order of the array: 0 to `label_counts[label]` - 1.

        Returns:
            The position (d, h, w) of the voxel.
        """

    @property
    def whole(self) -> Box:
        """The region that is all of it."""
        depth, height, width = (slice(0, length) for length in self.grid.shape)
        return depth, height, width


class LoadedScan(PreparedScan):
    """A prepared scan in memory."""

    def __init__(
        self, image: torch.Tensor, mask: torch.Tensor | None, affine: npt.NDArray[np.float64]
    ) -> None:
        """Initializes the scan.

        Args:
            image: The HU of shape [1, D, H, W].
            mask: The label map of shape [1, D, H, W], if there is one.
            affine: The affine of shape [4, 4].
        """
        self._image = image
        self._mask = mask
        depth, height, width = image.shape[1:]
        self._grid = grid_lib.Grid((depth, height, width), affine)
        self._voxels: dict[int, npt.NDArray[np.intp]] = {}
        self._counts = np.zeros(0, dtype=np.int64) if mask is None else _count(mask)

    @property
    @override
    def grid(self) -> grid_lib.Grid:
        return self._grid

    @property
    @override
    def label_counts(self) -> npt.NDArray[np.int64]:
        return self._counts

    @override
    def read_image(self, box: Box) -> torch.Tensor:
        return cut(self._image, box)

    @override
    def read_mask(self, box: Box) -> torch.Tensor:
        return cut(self._labels, box)

    @override
    def locate(self, label: int, index: int) -> tuple[int, int, int]:
        if label not in self._voxels:
            self._voxels[label] = np.flatnonzero(self._labels.numpy() == label)
        position = np.unravel_index(self._voxels[label][index], self._grid.shape)
        depth, height, width = (int(value) for value in position)
        return depth, height, width

    @property
    def _labels(self) -> torch.Tensor:
        if self._mask is None:
            raise ValueError("The scan has no label map.")
        return self._mask


def prepare(
    volume: eva_tv_tensors.Volume, mask: tv_tensors.Mask | None, preparation: Preparation
) -> LoadedScan:
    """Resamples a scan and its label map and crops both to the body.

    Args:
        volume: The scan in HU, of shape [1, D, H, W], with its affine.
        mask: The label map on the same grid, of shape [1, D, H, W], if there is one.
        preparation: What to do.

    Returns:
        The prepared scan, its HU in float32. A scan without any body is kept whole.
    """
    # a voxel is part of the body only if it lies near one that is so before resampling
    body = _find_body(volume, mask, preparation.body_above)
    image = resampling.resample(volume, preparation.spacing, near=body)
    labels = None
    if mask is not None:
        labels = resampling.resample_mask(mask, volume, preparation.spacing, near=body)
    box = _find_body(image, labels, preparation.body_above)
    return LoadedScan(
        cut(image.as_subclass(torch.Tensor), box).contiguous(),
        None if labels is None else cut(labels.as_subclass(torch.Tensor), box).contiguous(),
        grid_lib.Grid.of(image).cut(box).affine,
    )


def cut(tensor: torch.Tensor, box: Box) -> torch.Tensor:
    """Returns the view of a region of a volume of shape [1, D, H, W]."""
    return tensor[(slice(None), *box)]


def _count(mask: torch.Tensor) -> npt.NDArray[np.int64]:
    """Returns the number of voxels of each label value, at least of the background."""
    labels = mask.flatten()
    known = labels if labels.dtype == torch.uint8 else labels[labels != IGNORE_LABEL]
    return torch.bincount(known, minlength=1).numpy()


def _find_body(
    volume: eva_tv_tensors.Volume, mask: tv_tensors.Mask | None, body_above: float
) -> Box:
    """Returns the smallest box that holds the body and all labels, the whole scan if there is none.

    It goes by slices, which stay in the cache of the processor.
    """
    sections = volume.numpy()[0]
    labels = None if mask is None else mask.numpy()[0]
    occupied = np.zeros(sections.shape[0], dtype=bool)
    plane = np.zeros(sections.shape[1:], dtype=bool)
    for index, section in enumerate(sections):
        foreground = section > body_above
        if labels is not None:
            foreground |= labels[index] > 0
        occupied[index] = foreground.any()
        plane |= foreground
    return _extent(occupied), _extent(plane.any(axis=1)), _extent(plane.any(axis=0))


def _extent(occupied: npt.ArrayLike) -> slice:
    indices = np.flatnonzero(occupied)
    if len(indices) == 0:
        return slice(0, np.size(occupied))
    return slice(int(indices[0]), int(indices[-1]) + 1)
