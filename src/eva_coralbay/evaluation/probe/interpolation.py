"""Feature maps of any resolution, interpolated to the voxels of their window.

The features of a voxel are all maps, interpolated to it and concatenated. They are the values of
`torch.nn.functional.interpolate(mode="trilinear", align_corners=False)`, but only those that are
asked for are computed: those of single voxels, or the logits of a linear classifier, which are
interpolated in place of the features, as both are linear.
"""

import math
from collections.abc import Sequence

import torch


def sample(maps: Sequence[torch.Tensor], voxels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Interpolates feature maps to single voxels.

    Args:
        maps: The maps of a window, each of shape [C, d, h, w].
        voxels: The positions of the voxels in the window, of shape [N, 3] as (D, H, W).
        size: The size of the window in voxels, as (D, H, W).

    Returns:
        The features, of shape [N, C of all maps] and float32.
    """
    return torch.cat([_sample_map(feature_map.float(), voxels, size) for feature_map in maps], 1)


def project(
    maps: Sequence[torch.Tensor],
    weights: torch.Tensor,
    bias: torch.Tensor,
    *,
    size: Sequence[int],
    box: Sequence[slice],
) -> torch.Tensor:
    """Computes the logits of linear classifiers on the voxels of a part of a window.

    Each map is projected to logits at its own resolution, which is a convolution with a kernel of
    one voxel; the logits are then interpolated, axis by axis, and summed.

    Args:
        maps: The maps of the window, each of shape [C, d, h, w].
        weights: The weights on the concatenated features, of shape [K, C of all maps].
        bias: The bias, of shape [K].
        size: The size of the window in voxels, as (D, H, W).
        box: The part of the window, in voxels of the window, as (D, H, W).

    Returns:
        The logits, of shape [K, *extent of the box] and float32.
    """
    extents = [extent.stop - extent.start for extent in box]
    logits = bias.float()[:, None].repeat(1, math.prod(extents))
    coarse, last_axis = [], []
    parts = weights.float().split([len(feature_map) for feature_map in maps], dim=1)
    for feature_map, part in zip(maps, parts, strict=True):
        if tuple(feature_map.shape[1:]) == tuple(size):
            logits.addmm_(part, feature_map[(slice(None), *box)].float().flatten(1))
            continue
        projected = _project(feature_map.float(), part)
        depth, height, width = (
            _matrix(length, whole, projected.device)[extent]
            for length, whole, extent in zip(projected.shape[1:], size, box, strict=True)
        )
        projected = torch.einsum("ed,kdhw->kehw", depth, projected)
        coarse.append(height @ projected)
        last_axis.append(width)
    if coarse:
        # one product for all maps, as the last axis is where the time goes
        rows = torch.cat(coarse, dim=-1).flatten(0, 2)
        logits.view(-1, extents[2]).addmm_(rows, torch.cat(last_axis, dim=1).T)
    return logits.unflatten(1, extents)


def _project(feature_map: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (weights @ feature_map.flatten(1)).unflatten(1, feature_map.shape[1:])


def _sample_map(
    feature_map: torch.Tensor, voxels: torch.Tensor, size: Sequence[int]
) -> torch.Tensor:
    axes = []
    for axis, (length, whole) in enumerate(zip(feature_map.shape[1:], size, strict=True)):
        lower, upper, share = (part.to(feature_map.device) for part in _neighbors(length, whole))
        at = voxels[:, axis].to(feature_map.device)
        axes.append(((lower[at], 1.0 - share[at]), (upper[at], share[at])))
    values = feature_map.new_zeros(len(voxels), len(feature_map))
    for d, d_share in axes[0]:
        for h, h_share in axes[1]:
            for w, w_share in axes[2]:
                values += (d_share * h_share * w_share)[:, None] * feature_map[:, d, h, w].T
    return values


def _neighbors(length: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns, for each of `size` voxels, its two neighbors among `length`, and the second's share.

    Voxel i of a window lies at (i + 0.5) * length / size - 0.5 of a map that covers the window.
    """
    position = (torch.arange(size, dtype=torch.float64) + 0.5) * (length / size) - 0.5
    position.clamp_(0.0, length - 1.0)
    lower = position.floor().long()
    return lower, (lower + 1).clamp_max(length - 1), (position - lower).float()


def _matrix(length: int, size: int, device: torch.device) -> torch.Tensor:
    """Returns the interpolation from `length` to `size` voxels as a matrix [size, length]."""
    lower, upper, share = _neighbors(length, size)
    rows = torch.arange(size)
    matrix = torch.zeros(size, length)
    matrix[rows, lower] += 1.0 - share
    matrix[rows, upper] += share
    return matrix.to(device)
