"""Makes the input of a classification from a volume: a fixed shape, float32, in [0, 1]."""

import abc
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from monai import transforms as monai_transforms
from torch.nn import functional
from typing_extensions import override

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import EvaCoralbayError


class VolumeTransform(abc.ABC):
    """Makes a tensor of shape [1, *size] of a volume of any shape."""

    def __init__(self, *, size: Sequence[int], window: Sequence[float]) -> None:
        """Initializes the transform.

        Args:
            size: The shape of the result in voxels, as (D, H, W).
            window: The lowest and the highest intensity, which become 0 and 1.

        Raises:
            EvaCoralbayError: If a length is not positive or the window is empty.
        """
        if len(size) != 3 or min(size) < 1:
            raise EvaCoralbayError(f"`size` must be three positive numbers of voxels, got {size}.")
        if len(window) != 2 or window[0] >= window[1]:
            raise EvaCoralbayError(f"The window must be (lowest, highest), got {window}.")

        self._size = tuple(size)
        self._lowest, self._highest = window

    @property
    def size(self) -> tuple[int, int, int]:
        """The shape of the result in voxels, as (D, H, W)."""
        depth, height, width = self._size
        return depth, height, width

    def __call__(self, volume: eva_tv_tensors.Volume) -> torch.Tensor:
        """Returns the input of the encoder.

        Args:
            volume: The volume of shape [1, D, H, W].

        Returns:
            The values in [0, 1], float32, of shape [1, *size].
        """
        above = volume.as_subclass(torch.Tensor).float() - self._lowest
        return (self._sample(above, volume) / (self._highest - self._lowest)).clamp_(0.0, 1.0)

    @abc.abstractmethod
    def _sample(self, values: torch.Tensor, volume: eva_tv_tensors.Volume) -> torch.Tensor:
        """Brings the values of a volume, of shape [1, D, H, W] and 0 at the least, to the size."""


class ResizeTransform(VolumeTransform):
    """Resizes whole volumes whose voxels have no known size.

    Along an axis that shrinks voxels are averaged, along one that grows they are interpolated
    linearly.
    """

    def __init__(
        self, *, size: Sequence[int] = (64, 64, 64), window: Sequence[float] = (0.0, 255.0)
    ) -> None:
        """Initializes the transform.

        Args:
            size: The shape of the result in voxels, as (D, H, W).
            window: The lowest and the highest intensity, which become 0 and 1.
        """
        super().__init__(size=size, window=window)

    @override
    def _sample(self, values: torch.Tensor, volume: eva_tv_tensors.Volume) -> torch.Tensor:
        depth, height, width = map(min, values.shape[1:], self._size)
        values = functional.adaptive_avg_pool3d(values, (depth, height, width))
        return functional.interpolate(
            values[None], size=self._size, mode="trilinear", align_corners=False
        )[0]


class CropTransform(VolumeTransform, monai_transforms.Randomizable):
    """Cuts a box of a stated physical size out of the center of a scan, by linear interpolation.

    The box lies along the axes of the patient, whatever those of the file are, unless it is
    rotated. Its center is the middle voxel (`length // 2` along each axis), where blocks around
    a nodule have the nodule, and it is what the box turns about. What lies outside of the scan
    is filled with the lowest HU.
    """

    def __init__(
        self,
        *,
        size: Sequence[int] = (64, 64, 64),
        size_mm: Sequence[float] = (50.0, 50.0, 50.0),
        hu_window: Sequence[float] = (-1000.0, 400.0),
        max_rotation: float = 0.0,
    ) -> None:
        """Initializes the transform.

        Args:
            size: The shape of the box in voxels, as (D, H, W).
            size_mm: The lengths of the box in mm, in the same order.
            hu_window: The lowest and the highest HU, which become 0 and 1.
            max_rotation: The largest angle, in degrees, that is drawn for each axis.

        Raises:
            EvaCoralbayError: If a length is not positive or the window is empty.
        """
        if len(size_mm) != 3 or min(size_mm) <= 0:
            raise EvaCoralbayError(
                f"`size_mm` must be three positive lengths in mm, got {size_mm}."
            )
        super().__init__(size=size, window=hu_window)

        self._step_mm = np.asarray(size_mm, dtype=np.float64) / np.asarray(size)
        self._max_rotation = max_rotation

    @override
    def _sample(self, values: torch.Tensor, volume: eva_tv_tensors.Volume) -> torch.Tensor:
        return sample_box(
            values,
            grid_lib.Grid.of(volume).affine,
            center=[length // 2 for length in values.shape[1:]],
            size=self._size,
            step_mm=self._step_mm,
            rotation=self._draw_rotation(),
        )

    def _draw_rotation(self) -> npt.NDArray[np.float64]:
        """Draws an angle for each axis and returns the rotation, the identity if there is none."""
        if self._max_rotation == 0:
            return np.eye(3)
        depth, height, width = np.deg2rad(
            self.R.uniform(-self._max_rotation, self._max_rotation, size=3)
        )
        return _turn(depth, (1, 2)) @ _turn(height, (0, 2)) @ _turn(width, (0, 1))


def sample_box(
    values: torch.Tensor,
    affine: npt.NDArray[np.float64],
    *,
    center: Sequence[float],
    size: Sequence[int],
    step_mm: npt.ArrayLike,
    rotation: npt.NDArray[np.float64] | None = None,
) -> torch.Tensor:
    """Samples a box along the axes of the patient out of a volume, by linear interpolation.

    Args:
        values: The values of shape [1, D, H, W]; what lies outside of them is 0.
        affine: The affine of shape [4, 4], from (d, h, w, 1) to RAS+ world positions in mm.
        center: The center of the box in voxels of the volume, as (D, H, W).
        size: The shape of the box in voxels, as (D, H, W): to superior, posterior and left.
        step_mm: The distance of its voxels in mm, in the same order.
        rotation: A rotation of the box about its center, of shape [3, 3], in the same order.

    Returns:
        The values, of shape [1, *size].
    """
    lengths = torch.tensor(values.shape[1:], dtype=torch.float64)
    patient = grid_lib.straight_affine((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))[:3, :3]
    to_world = patient @ (np.eye(3) if rotation is None else rotation) @ np.diag(step_mm)
    to_voxels = torch.from_numpy(np.linalg.inv(affine[:3, :3]) @ to_world)
    voxels = _offsets(size) @ to_voxels.T + torch.tensor(center, dtype=torch.float64)
    # from -1 at the first voxel to 1 at the last, the last axis first
    positions = (2.0 * voxels / (lengths - 1) - 1.0).flip(-1).to(values.dtype)
    return functional.grid_sample(
        values[None], positions[None], mode="bilinear", align_corners=True
    )[0]


def _offsets(size: Sequence[int]) -> torch.Tensor:
    """Returns the position of every voxel of a box from its center, of shape [D, H, W, 3]."""
    axes = [torch.arange(length, dtype=torch.float64) - (length - 1) / 2 for length in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def _turn(angle: float, plane: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Returns the rotation by an angle in the plane of two axes."""
    matrix = np.eye(3)
    matrix[np.ix_(plane, plane)] = [
        [np.cos(angle), -np.sin(angle)],
        [np.sin(angle), np.cos(angle)],
    ]
    return matrix
