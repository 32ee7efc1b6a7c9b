"""Predictions on the grid of the scanner, where they are scored and used."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import transforms
from eva_coralbay.evaluation import label_maps

CHUNK_VALUES = 2**25
"""How many interpolated logits are held at once."""

PROBABILITY_STEPS = 255
"""How many steps there are from a probability of 0 to 1."""

_REACH = 1.0
"""How far outside of the prepared scan, in its voxels, a voxel is still given a label: the nearest
one. What lies farther away was cropped as air, and is background."""


class NativeCase(NamedTuple):
    """A case on its own grid."""

    prediction: torch.Tensor
    """The predicted labels, of shape [D, H, W]."""

    truth: torch.Tensor
    """The true labels, of shape [D, H, W]."""

    spacing_mm: tuple[float, float, float]
    """The spacing along (D, H, W) in mm."""


def restore_cases(
    logits: torch.Tensor, metadata: Mapping[str, Any], dataset: Any
) -> list[NativeCase]:
    """Brings the logits of a batch to the grids of its scans, and reads the truth there.

    Args:
        logits: The logits on the prepared grids, of shape [B, classes, D, H, W].
        metadata: `case`, the id of each case; `affine`, of each prepared scan, of shape [B, 4, 4];
            and, where a scan was flipped, `flipped_axis`, 0 to 2 of (D, H, W), else -1.
        dataset: The data set of the cases.
    """
    restored = []
    for index, case in enumerate(metadata["case"]):
        axis = int(metadata["flipped_axis"][index]) if "flipped_axis" in metadata else -1
        own = logits[index]
        if axis >= 0:
            own = transforms.unflip(own, axis, dataset.transforms.mirror_pairs or ())
        depth, height, width = own.shape[1:]
        affine = metadata["affine"][index].cpu().numpy()
        truth, native = dataset.read_truth(case)
        prediction = restore_labels(own, grid_lib.Grid((depth, height, width), affine), native)
        restored.append(
            NativeCase(
                prediction, truth.as_subclass(torch.Tensor)[0], grid_lib.spacing(native.affine)
            )
        )
    return restored


@torch.no_grad()
def restore_labels(
    logits: torch.Tensor, prepared: grid_lib.Grid, native: grid_lib.Grid
) -> torch.Tensor:
    """Brings the logits of a prepared scan to the grid of the scan itself, as labels.

    The logits are interpolated linearly, and then the class with the highest one is taken, as
    nnU-Net does; labels that are brought back by the nearest voxel have steps.

    Args:
        logits: The logits on the prepared grid, of shape [classes, D, H, W].
        prepared: The grid of the prepared scan, after resampling and cropping.
        native: The grid of the scan as it was read.

    Returns:
        The labels of shape [D', H', W'], on the CPU; 0 where the scan was cropped.
    """
    labels = torch.zeros(native.shape, dtype=torch.uint8 if len(logits) <= 255 else torch.int16)
    for part, interpolated, is_covered in _restored_parts(logits, prepared, native):
        labels[part] = (label_maps.argmax_labels(interpolated[None])[0] * is_covered).cpu()
    return labels


@torch.no_grad()
def restore_probabilities(
    logits: torch.Tensor, prepared: grid_lib.Grid, native: grid_lib.Grid
) -> torch.Tensor:
    """Brings the logits of a prepared scan to the grid of the scan itself, as probabilities.

    The label that `restore_labels` gives to a voxel is the one with the highest probability.

    Args:
        logits: The logits on the prepared grid, of shape [classes, D, H, W].
        prepared: The grid of the prepared scan, after resampling and cropping.
        native: The grid of the scan as it was read.

    Returns:
        The probabilities of shape [classes, D', H', W'], uint8 on the CPU, where
        `PROBABILITY_STEPS` stands for 1; the background's is 1 where the scan was cropped.
    """
    probabilities = torch.zeros((len(logits), *native.shape), dtype=torch.uint8)
    probabilities[0] = PROBABILITY_STEPS
    for part, interpolated, is_covered in _restored_parts(logits, prepared, native):
        shares = interpolated.softmax(dim=0) * is_covered
        shares[0] += ~is_covered
        probabilities[(slice(None), *part)] = (
            (shares * PROBABILITY_STEPS).round().to(torch.uint8).cpu()
        )
    return probabilities


def _restored_parts(
    logits: torch.Tensor, prepared: grid_lib.Grid, native: grid_lib.Grid
) -> Iterator[tuple[grid_lib.Box, torch.Tensor, torch.Tensor]]:
    """Yields parts of the native grid with their logits, and whether a voxel has any."""
    to_prepared = np.linalg.inv(prepared.affine) @ native.affine
    depth, height, width = _covered_box(to_prepared, prepared.shape, native.shape)
    area = (height.stop - height.start) * (width.stop - width.start)
    step = max(1, CHUNK_VALUES // max(1, len(logits) * area))
    for start in range(depth.start, depth.stop, step):
        part = slice(start, min(start + step, depth.stop)), height, width
        yield part, *_restore_part(logits, to_prepared, part)


def _restore_part(
    logits: torch.Tensor, to_prepared: npt.NDArray[np.float64], part: grid_lib.Box
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the logits [classes, D, H, W] of a part of the native grid, and where they count."""
    positions = _positions(to_prepared, part, logits.device)
    lengths = positions.new_tensor(logits.shape[1:])
    # from -1 at the first voxel to 1 at the last, the last axis first
    normalized = 2.0 * positions / (lengths - 1).clamp(min=1) - 1.0
    interpolated = functional.grid_sample(
        logits[None].float(),
        normalized.flip(-1)[None].float(),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    is_covered = ((positions >= -_REACH) & (positions <= lengths - 1 + _REACH)).all(dim=-1)
    return interpolated[0], is_covered


def _positions(
    to_prepared: npt.NDArray[np.float64], part: grid_lib.Box, device: torch.device
) -> torch.Tensor:
    """Returns where the voxels of a region lie, in voxels of the prepared scan, [D, H, W, 3]."""
    axes = [torch.arange(extent.start, extent.stop, dtype=torch.float32) for extent in part]
    matrix = torch.from_numpy(to_prepared).float().to(device)
    indices = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).to(device)
    return indices @ matrix[:3, :3].T + matrix[:3, 3]


def _covered_box(
    to_prepared: npt.NDArray[np.float64], prepared: tuple[int, ...], native: tuple[int, ...]
) -> grid_lib.Box:
    """Returns the part of the native grid that the prepared scan reaches."""
    corners = np.array([[*index, 1.0] for index in np.ndindex(2, 2, 2)]).T
    ends = np.asarray(prepared)[:, None] - 1 + 2 * _REACH
    corners[:3] = corners[:3] * ends - _REACH
    reached = (np.linalg.inv(to_prepared) @ corners)[:3]
    low = np.clip(np.floor(reached.min(axis=1)), 0, native).astype(int).tolist()
    high = np.clip(np.ceil(reached.max(axis=1)) + 1, 0, native).astype(int).tolist()
    depth, height, width = (slice(a, max(a, b)) for a, b in zip(low, high, strict=True))
    return depth, height, width
