"""Resampling to another spacing, equal to MONAI's `Spacing` and so to eva's protocol."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from monai import transforms as monai_transforms
from monai.data import meta_tensor
from monai.data import utils as monai_data_utils
from monai.networks import utils as monai_networks_utils
from torchvision import tv_tensors

from eva_coralbay.data.grid import Box, Grid, check_spacing, spacing

_SPACING_TOLERANCE = 1e-3
"""Below this difference a spacing (in mm) or a scale counts as unchanged, as in MONAI."""

_SHEAR_TOLERANCE = 1e-3
"""How far, in voxels, shear may move a voxel and still be ignored in resampling."""


def resample(
    volume: eva_tv_tensors.Volume, spacing_mm: Sequence[float], *, near: Box | None = None
) -> eva_tv_tensors.Volume:
    """Resamples a scan linearly to another spacing.

    Equal to MONAI's `Spacing` in its bilinear mode, and so to eva's, within 1e-3 HU. The affine
    of the result is the true one, while eva's becomes a relative scale.

    Args:
        volume: The scan of shape [1, D, H, W], with its affine.
        spacing_mm: The new spacing along (D, H, W) in mm.
        near: A region of the scan, if only the voxels are needed that it has a part in; there may
            be others around them.

    Returns:
        The scan of shape [1, D', H', W'], float32, with its affine.
    """
    plan = _plan(Grid.of(volume), spacing_mm, near)
    tensor = volume.as_subclass(torch.Tensor).float()
    if plan.is_sheared:
        tensor = _resample_jointly(tensor, volume, spacing_mm, plan.window, mode="bilinear")
    else:
        for axis in _cheapest_order(plan):
            tensor = _interpolate(tensor, plan.positions[axis], dim=axis + 1)
    return eva_tv_tensors.Volume(
        tensor, affine=torch.from_numpy(plan.target.affine), metadata=volume.metadata
    )


def resample_mask(
    mask: tv_tensors.Mask,
    like: eva_tv_tensors.Volume,
    spacing_mm: Sequence[float],
    *,
    near: Box | None = None,
) -> tv_tensors.Mask:
    """Resamples a label map to another spacing by taking the nearest voxels.

    Equal to the voxel to MONAI's `Spacing` in its nearest mode, and so to eva's.

    Args:
        mask: The label map of shape [1, D, H, W].
        like: The scan on the same grid, before it is resampled.
        spacing_mm: The new spacing along (D, H, W) in mm.
        near: As in `resample`.

    Returns:
        The label map of shape [1, D', H', W'], of the same type as before.
    """
    plan = _plan(Grid.of(like), spacing_mm, near)
    tensor = mask.as_subclass(torch.Tensor)
    if plan.is_sheared or plan.has_ties:
        nearest = _resample_jointly(tensor, like, spacing_mm, plan.window, mode="nearest")
        return tv_tensors.Mask(nearest.to(tensor.dtype))
    for axis in _cheapest_order(plan):
        tensor = _take(tensor, plan.positions[axis].round().long(), dim=axis + 1)
    return tv_tensors.Mask(tensor)


class _Plan(NamedTuple):
    """How a volume is resampled, axis by axis."""

    source: Grid
    target: Grid
    window: Box
    """The part of all voxels of the new spacing that the target is."""
    positions: Sequence[torch.Tensor]
    """For each axis where each new voxel lies, in voxels of the source, inside its bounds."""
    skew: float
    """How far the other axes move a position along an axis at most, in voxels."""

    @property
    def is_sheared(self) -> bool:
        """Whether the axes are so oblique to each other that they cannot be treated apart."""
        return self.skew > _SHEAR_TOLERANCE

    @property
    def has_ties(self) -> bool:
        """Whether the skew decides which voxel is the nearest to some position."""
        distances = (((axis % 1) - 0.5).abs().min() for axis in self.positions)
        return self.skew > 0 and bool(min(distances) < 2 * self.skew + 1e-9)

    def near(self, box: Box) -> "_Plan":
        """Returns the plan of the voxels that a region of the source has a part in."""
        depth, height, width = map(_extent_near, self.positions, box)
        window = depth, height, width
        positions = [axis[extent] for axis, extent in zip(self.positions, window, strict=True)]
        return self._replace(target=self.target.cut(window), window=window, positions=positions)


def _extent_near(positions: torch.Tensor, extent: slice) -> slice:
    """Returns which positions lie less than a voxel from an extent, at least one."""
    first = int(np.searchsorted(positions.numpy(), extent.start - 1, side="right"))
    last = int(np.searchsorted(positions.numpy(), extent.stop, side="left"))
    first = min(first, len(positions) - 1)
    return slice(first, max(last, first + 1))


def _plan(source: Grid, spacing_mm: Sequence[float], near: Box | None) -> _Plan:
    """Plans the target, or the part of it near a region of the source."""
    plan = _plan_whole(source, spacing_mm)
    return plan if near is None or plan.is_sheared else plan.near(near)


def _plan_whole(source: Grid, spacing_mm: Sequence[float]) -> _Plan:
    """Computes the target grid and the positions of its voxels as MONAI's `Spacing` does."""
    target = _target_grid(source, check_spacing(spacing_mm))
    to_source = np.linalg.solve(source.affine, target.affine)
    if target.shape == source.shape and np.allclose(to_source, np.eye(4), atol=_SPACING_TOLERANCE):
        identity = [torch.arange(length, dtype=torch.float64) for length in source.shape]
        return _Plan(source, source, _whole(source), identity, skew=0.0)
    off_diagonal = np.abs(to_source[:3] * (1 - np.eye(4)[:3])) @ (*target.shape, 1)
    return _Plan(
        source,
        target,
        _whole(target),
        _positions(source, target, to_source),
        skew=float(off_diagonal.max()),
    )


def _whole(grid: Grid) -> Box:
    depth, height, width = (slice(0, length) for length in grid.shape)
    return depth, height, width


def _target_grid(source: Grid, spacing_mm: Sequence[float]) -> Grid:
    """Returns the grid of another spacing with the same first voxel."""
    pixdim = np.array(
        [
            old if abs(old - new) <= _SPACING_TOLERANCE else new
            for old, new in zip(spacing(source.affine), spacing_mm, strict=True)
        ]
    )
    affine = monai_data_utils.zoom_affine(source.affine, pixdim, diagonal=False)
    shape, origin = monai_data_utils.compute_shape_offset(source.shape, source.affine, affine)
    affine[:3, 3] = origin[:3]
    depth, height, width = (int(length) for length in shape)
    return Grid((depth, height, width), affine)


def _positions(
    source: Grid, target: Grid, to_source: npt.NDArray[np.floating]
) -> list[torch.Tensor]:
    """Returns for each axis the positions of the target's voxels in voxels of the source.

    The way through normalized coordinates is that of `torch.nn.functional.affine_grid` and
    `grid_sample`, whose rounding decides between two voxels that are equally near.
    """
    theta = monai_networks_utils.to_norm_affine(
        torch.from_numpy(to_source)[None], source.shape, target.shape
    )[0]
    positions = []
    for axis, (old, new) in enumerate(zip(source.shape, target.shape, strict=True)):
        steps = torch.linspace(-1, 1, new, dtype=torch.float64) if new > 1 else torch.zeros(1)
        normalized = steps * (new - 1) / new * theta[axis, axis] + theta[axis, 3]
        positions.append((((normalized + 1) * old - 1) / 2).clamp(0, old - 1))
    return positions


def _cheapest_order(plan: _Plan) -> list[int]:
    """Returns the axes that change, those that shrink the most first."""
    old, new = spacing(plan.source.affine), spacing(plan.target.affine)
    ratios = [before / after for before, after in zip(old, new, strict=True)]
    changing = (axis for axis in range(3) if not _is_identity(plan, axis))
    return sorted(changing, key=ratios.__getitem__)


def _is_identity(plan: _Plan, axis: int) -> bool:
    length = plan.source.shape[axis]
    return plan.target.shape[axis] == length and torch.allclose(
        plan.positions[axis], torch.arange(length, dtype=torch.float64), rtol=0, atol=1e-9
    )


def _interpolate(tensor: torch.Tensor, positions: torch.Tensor, *, dim: int) -> torch.Tensor:
    """Interpolates linearly along one axis.

    It gathers and blends instead of multiplying with a matrix, which on some CPUs is done in
    bfloat16 once `torch.set_float32_matmul_precision` is lowered.
    """
    lower = positions.long()
    upper = (lower + 1).clamp(max=tensor.shape[dim] - 1)
    weights = (positions - lower).to(tensor.dtype).view([-1 if i == dim else 1 for i in range(4)])
    return _take(tensor, lower, dim=dim).lerp_(_take(tensor, upper, dim=dim), weights)


def _take(tensor: torch.Tensor, indices: torch.Tensor, *, dim: int) -> torch.Tensor:
    """Selects along one axis as `index_select` does, which is ten times slower on the last one."""
    # "clip" leaves out the check of each index; none is out of bounds
    taken = np.take(tensor.numpy(), indices.numpy(), axis=dim, mode="clip")
    return torch.from_numpy(taken)


def _resample_jointly(
    tensor: torch.Tensor,
    like: eva_tv_tensors.Volume,
    spacing_mm: Sequence[float],
    window: Box,
    *,
    mode: str,
) -> torch.Tensor:
    """Resamples a volume whose axes depend on each other (gantry tilt), slowly, with MONAI."""
    spacing_transform = monai_transforms.Spacing(pixdim=spacing_mm)
    resampled = spacing_transform(
        meta_tensor.MetaTensor(tensor, affine=torch.from_numpy(Grid.of(like).affine)), mode=mode
    )
    return torch.as_tensor(resampled).as_subclass(torch.Tensor)[(slice(None), *window)]
