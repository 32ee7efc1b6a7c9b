"""What an encoder takes of a scan: the grid, the orientation and the intensities it was trained on.

The steps are those of the evaluation, so that the same HU and settings give the same embedding:

- a whole scan is resampled linearly and cropped to the box of all that is denser than the lower end
  of the HU window, as :class:`eva_coralbay.data.transforms.EvalTransform` wants it;
- around a point a window is sampled along the axes of the patient, as
  :class:`eva_coralbay.data.volume_transforms.CropTransform` does it for nodules.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from torch.nn import functional
from torchvision import tv_tensors

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import preparation, resampling, volume_transforms
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.inference import regions
from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.tasks import facts

DEFAULT = Preprocessing.of_window(
    *facts.SOFT_TISSUE_HU, spacing=facts.SPACING_MM, orientation="SPL", window=facts.CROP
)
"""The input where an encoder states none: that of the segmentation tasks."""

_AIR = -1024.0
"""The HU of what lies outside of a scan, where intensities are not clipped."""

_FINEST_MM = 0.75
"""The least spacing where an encoder takes any isotropic one, as VoxelFM has it."""


class ModelInput(NamedTuple):
    """A scan, or a part of it, as an encoder takes it."""

    image: npt.NDArray[np.float32]
    """The normalized intensities, float32, of shape [1, D, H, W]: at least a window."""

    affine: npt.NDArray[np.float64]
    """The matrix of shape [4, 4] from voxels of the image to RAS+ world positions in mm."""

    inside: npt.NDArray[np.bool_] | None = None
    """The voxels that count, of shape [D, H, W]; None for all of them."""


def choose(
    stated: Preprocessing | None,
    *,
    spacing: Sequence[float] | None = None,
    hu_window: Sequence[float] | None = None,
    window: Sequence[int] | None = None,
) -> Preprocessing:
    """Returns the input of an encoder: what it states, unless it is said otherwise.

    Args:
        stated: What the encoder was trained on, as far as it is known; else `DEFAULT`.
        spacing: Another voxel spacing in mm, along the axes of the tensor.
        hu_window: Another window: the HU that become 0 and 1, between which others are clipped.
        window: Another size of the windows in voxels, along the axes of the tensor.

    Raises:
        EvaCoralbayError: If a value is impossible.
    """
    chosen = stated or DEFAULT
    if spacing is not None:
        chosen = dataclasses.replace(chosen, spacing=grid_lib.check_spacing(spacing))
    if hu_window is not None:
        low, high = (float(value) for value in hu_window)
        chosen = dataclasses.replace(
            chosen, hu_clip=(low, high), hu_offset=low, hu_scale=high - low
        )
    size = tuple(int(length) for length in window or chosen.window or DEFAULT.window or ())
    if len(size) != 3 or any(n < 1 or n % m for n, m in zip(size, chosen.multiple_of, strict=True)):
        raise EvaCoralbayError(
            f"The window must be three numbers of voxels, multiples of {chosen.multiple_of}, got "
            f"{size}."
        )
    return dataclasses.replace(chosen, window=(size[0], size[1], size[2]))


def spacing_of(volume: eva_tv_tensors.Volume, preprocessing: Preprocessing) -> tuple[float, ...]:
    """Returns the spacing that a scan is resampled to, in mm along (D, H, W) of the scan.

    Args:
        volume: The scan, of shape [1, D, H, W], with its affine.
        preprocessing: The input of the encoder. If it states no spacing, that is the finest of the
            scan along all axes, but at least 0.75 mm.
    """
    if preprocessing.spacing is None:
        finest = min(grid_lib.spacing(grid_lib.Grid.of(volume).affine))
        return (max(_FINEST_MM, finest),) * 3
    return preprocessing.to_scan_order(preprocessing.spacing)


def of_scan(volume: eva_tv_tensors.Volume, preprocessing: Preprocessing) -> ModelInput:
    """Makes the input of a whole scan.

    Args:
        volume: The scan in HU, of shape [1, D, H, W] ("SPL"), with its affine.
        preprocessing: The input of the encoder, with a window.
    """
    depth, height, width = spacing_of(volume, preprocessing)
    prepared = preparation.prepare(
        volume,
        None,
        preparation.Preparation((depth, height, width), _lowest(preprocessing)),
    )
    image = preprocessing.normalize(prepared.read_image(prepared.whole))
    return _finish(image, prepared.grid.affine, preprocessing)


class Parts:
    """The inputs of parts of one scan, which is resampled once, when a part needs it."""

    def __init__(self, volume: eva_tv_tensors.Volume, preprocessing: Preprocessing) -> None:
        """Initializes the parts.

        Args:
            volume: The scan in HU, of shape [1, D, H, W] ("SPL"), with its affine.
            preprocessing: The input of the encoder, with a window.
        """
        self._volume = volume
        self._preprocessing = preprocessing

    def make(self, region: regions.Region) -> ModelInput:
        """Makes the input of a part of the scan.

        Args:
            region: The part.

        Returns:
            Of a point the window around it; of others a cutout that holds the region and at least
            a window.

        Raises:
            EvaCoralbayError: If the region is not in the scan.
        """
        if isinstance(region, regions.Point):
            return _around(self._volume, region, self._preprocessing)
        return _cutout(self._volume, self._resampled, region, self._preprocessing)

    @functools.cached_property
    def _resampled(self) -> eva_tv_tensors.Volume:
        return resampling.resample(self._volume, spacing_of(self._volume, self._preprocessing))


def _cutout(
    volume: eva_tv_tensors.Volume,
    resampled: eva_tv_tensors.Volume,
    region: regions.Box | regions.Masked,
    preprocessing: Preprocessing,
) -> ModelInput:
    """Cuts the surroundings of a region out of a resampled scan."""
    grid = grid_lib.Grid.of(resampled)
    if isinstance(region, regions.Box):
        inside = region.inside(grid)
    else:
        mask = tv_tensors.Mask(region.mask.to(torch.uint8)[None])
        spacing = spacing_of(volume, preprocessing)
        labels = resampling.resample_mask(mask, volume, spacing).as_subclass(torch.Tensor)
        inside = labels[0] > 0
    if not inside.any():
        raise EvaCoralbayError(
            f"Region '{region.name}' holds no voxel of the scan at {_describe(grid)} mm. Check "
            "that its positions are in the world of the scan (--roi-space), or enlarge it."
        )
    box = _box_around(inside, preprocessing.to_scan_order(_window(preprocessing)))
    image = preparation.cut(resampled.as_subclass(torch.Tensor), box)
    affine = grid.cut(box).affine
    return _finish(preprocessing.normalize(image), affine, preprocessing, inside=inside[box])


def _around(
    volume: eva_tv_tensors.Volume, point: regions.Point, preprocessing: Preprocessing
) -> ModelInput:
    """Samples a window around a point."""
    affine = grid_lib.Grid.of(volume).affine
    center = np.linalg.solve(affine, [*point.position_mm, 1.0])[:3]
    if ((center < -0.5) | (center > np.array(volume.shape[1:]) - 0.5)).any():
        place = ", ".join(f"{value:g}" for value in point.position_mm)
        raise EvaCoralbayError(
            f"Point '{point.name}' at ({place}) mm, RAS+, lies outside of the scan. Check that its "
            "position is in the world of the scan (--roi-space)."
        )
    size = [int(length) for length in preprocessing.to_scan_order(_window(preprocessing))]
    step = spacing_of(volume, preprocessing)
    lowest = _lowest(preprocessing)
    sampled = volume_transforms.sample_box(
        volume.as_subclass(torch.Tensor).float() - lowest,
        affine,
        center=center.tolist(),
        size=size,
        step_mm=step,
    )
    straight = grid_lib.straight_affine(step, point.position_mm)
    straight[:3, 3] -= straight[:3, :3] @ [(length - 1) / 2 for length in size]
    if preprocessing.hu_clip is not None:
        sampled = sampled.clamp(0.0, preprocessing.hu_clip[1] - lowest)
    # not by way of HU, whose rounding would make another image of it than `CropTransform` does
    image = (sampled + (lowest - preprocessing.hu_offset)) / preprocessing.hu_scale
    return _finish(image, straight, preprocessing)


def _finish(
    image: torch.Tensor,
    affine: npt.NDArray[np.float64],
    preprocessing: Preprocessing,
    *,
    inside: torch.Tensor | None = None,
) -> ModelInput:
    """Turns a normalized image, and pads it to a window with air."""
    window = _window(preprocessing)
    oriented = preprocessing.orient(image)
    affine = preprocessing.orient_affine(affine, image.shape[1:])
    missing = [max(w - n, 0) for w, n in zip(window, oriented.shape[1:], strict=True)]
    before = [length // 2 for length in missing]
    affine[:3, 3] -= affine[:3, :3] @ before
    # the last axis first, as PyTorch wants it
    padding = [
        side
        for first, both in reversed(list(zip(before, missing, strict=True)))
        for side in (first, both - first)
    ]
    air = (_lowest(preprocessing) - preprocessing.hu_offset) / preprocessing.hu_scale
    padded = functional.pad(oriented, padding, value=air).contiguous().numpy()
    if inside is None:
        return ModelInput(padded, affine)
    held = functional.pad(preprocessing.orient(inside.to(torch.uint8)), padding)
    return ModelInput(padded, affine, held.numpy() > 0)


def _box_around(inside: torch.Tensor, window: Sequence[float]) -> grid_lib.Box:
    """Returns the box of a region, grown to a window at least and moved inside of the scan."""
    extents = []
    for axis, (length, least) in enumerate(zip(inside.shape, window, strict=True)):
        others = tuple(other for other in range(3) if other != axis)
        found = torch.nonzero(inside.amax(dim=others))[:, 0]
        start, stop = int(found[0]), int(found[-1]) + 1
        wanted = min(max(stop - start, int(least)), length)
        start = min(max(start - (wanted - (stop - start)) // 2, 0), length - wanted)
        extents.append(slice(start, start + wanted))
    return extents[0], extents[1], extents[2]


def _window(preprocessing: Preprocessing) -> tuple[int, int, int]:
    if preprocessing.window is None:
        raise ValueError("The preprocessing has no window: `choose` gives it one.")
    return preprocessing.window


def _lowest(preprocessing: Preprocessing) -> float:
    return preprocessing.hu_clip[0] if preprocessing.hu_clip is not None else _AIR


def _describe(grid: grid_lib.Grid) -> str:
    return " x ".join(f"{length:g}" for length in grid_lib.spacing(grid.affine))
