"""Scans on the grid of a task, cropped to the body: what is the same each time a scan is used.

`prepare` does the work in memory; `eva_coralbay.data.store` keeps its result on disk. Transforms
take either as a `PreparedScan` and read of it what they need.
"""

import abc
from typing import NamedTuple, Tuple

import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from torchvision import tv_tensors
from typing_extensions import override

from eva_coralbay.data import geometry

Box = Tuple[slice, slice, slice]
"""The extent of a region along the axes (D, H, W), with start and stop inside the scan."""


class Preparation(NamedTuple):
    """What is done once to every scan."""

    spacing: Tuple[float, float, float] = (1.5, 1.5, 1.5)
    """The voxel spacing to resample to, in mm, as (D, H, W)."""

    body_above: float = -175.0
    """The scan is cropped to the voxels of more than this HU, and to all labelled voxels."""


class PreparedScan(abc.ABC):
    """A scan on the grid of a task, cropped to the body, with its label map if it has one."""

    @property
    @abc.abstractmethod
    def grid(self) -> geometry.Grid:
        """Where its voxels lie."""

    @property
    @abc.abstractmethod
    def label_counts(self) -> npt.NDArray[np.int64]:
        """The number of voxels of each label value, the background first; empty without labels."""

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
            The labels, of an integer type, of shape [1, D, H, W].
        """

    @abc.abstractmethod
    def locate(self, label: int, index: int) -> Tuple[int, int, int]:
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
        self._grid = geometry.Grid((depth, height, width), affine)
        self._voxels: dict[int, npt.NDArray[np.intp]] = {}
        self._counts = (
            np.zeros(0, dtype=np.int64) if mask is None else torch.bincount(mask.flatten()).numpy()
        )

    @property
    @override
    def grid(self) -> geometry.Grid:
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
    def locate(self, label: int, index: int) -> Tuple[int, int, int]:
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
    image = geometry.resample(volume, preparation.spacing)
    affine = np.asarray(image.affine, dtype=np.float64)
    hounsfield = image.as_subclass(torch.Tensor)
    foreground = hounsfield > preparation.body_above
    labels = None
    if mask is not None:
        labels = geometry.resample_mask(mask, volume, preparation.spacing).as_subclass(torch.Tensor)
        foreground |= labels > 0
    box = _bounding_box(foreground)
    return LoadedScan(
        cut(hounsfield, box).contiguous(),
        None if labels is None else cut(labels, box).contiguous(),
        _moved(affine, box),
    )


def cut(tensor: torch.Tensor, box: Box) -> torch.Tensor:
    """Returns the view of a region of a volume of shape [1, D, H, W]."""
    return tensor[(slice(None), *box)]


def _moved(affine: npt.NDArray[np.float64], box: Box) -> npt.NDArray[np.float64]:
    """Returns the affine of a region."""
    moved = affine.copy()
    moved[:3, 3] = (affine @ [*(extent.start for extent in box), 1.0])[:3]
    return moved


def _bounding_box(foreground: torch.Tensor) -> Box:
    """Returns the smallest box that holds the foreground, the whole volume if there is none.

    Args:
        foreground: The boolean mask of shape [1, D, H, W].
    """
    occupied = foreground[0].numpy()
    plane = np.asarray(occupied.any(axis=0))
    return (
        _extent(occupied.any(axis=(1, 2))),
        _extent(plane.any(axis=-1)),
        _extent(plane.any(axis=0)),
    )


def _extent(occupied: npt.ArrayLike) -> slice:
    indices = np.flatnonzero(occupied)
    if len(indices) == 0:
        return slice(0, np.size(occupied))
    return slice(int(indices[0]), int(indices[-1]) + 1)
