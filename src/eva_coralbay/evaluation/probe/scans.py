"""Both passes of the dense probe: features of training scans, labels of the scored ones.

The windows of a scan go through the encoder in batches whose size follows from that of a window, so
that the batch size of a loader and the number of its workers change nothing.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation.probe import classifier as classifiers
from eva_coralbay.evaluation.probe import interpolation, sums, windows
from eva_coralbay.tasks import facts

Encoder = Callable[[torch.Tensor], Sequence[torch.Tensor]]
"""Maps windows [B, 1, D, H, W] to feature maps [B, C, d, h, w], of any number and resolution."""

_BATCH_VOXELS = 2**20
"""How many voxels a batch of windows may have: four windows of 64^3, and one of 96^3."""

_LOGITS = 2**22
"""How many logits are computed at once: more do not stay in the caches of a processor."""

_LOWEST_LOGIT = -1e6
"""The logit of a class that no training case holds: infinite ones cannot be interpolated."""


class Sliding(NamedTuple):
    """How windows cover a scan."""

    size: tuple[int, int, int] = facts.CROP
    """The size of a window in voxels, as (D, H, W)."""

    overlap: float = 0.25
    """The smallest overlap of two neighbors, as a share of the window."""


@torch.no_grad()
def sample_case(
    encoder: Encoder, image: torch.Tensor, draw: sums.Draw, *, sliding: Sliding
) -> sums.Samples:
    """Computes the features of the drawn voxels of a scan.

    Args:
        encoder: The encoder, in eval mode.
        image: The scan as the encoder takes it, of shape [1, D, H, W], on the encoder's device.
        draw: The voxels.
        sliding: How windows cover the scan.

    Returns:
        The features, on the device of the scan; the voxels are in the order of the draw.
    """
    features: torch.Tensor | None = None
    channels: tuple[int, ...] = ()
    placed = windows.place(image.shape[1:], sliding.size, sliding.overlap)
    used = [window for window in placed if _inside(draw.voxels, window.core).any()]
    for window, maps in _encode(encoder, image, used, sliding.size):
        inside = _inside(draw.voxels, window.core)
        channels = tuple(len(feature_map) for feature_map in maps)
        start = torch.tensor(window.start)
        values = interpolation.sample(maps, draw.voxels[inside] - start, sliding.size)
        if features is None:
            features = values.new_zeros(len(draw.voxels), values.shape[1])
        features[inside.to(features.device)] = values
    if features is None:
        raise EvaCoralbayError("No voxel is drawn from the scan: its label map is empty.")
    return sums.Samples(
        features, draw.labels.to(features.device), draw.totals.to(features.device), channels
    )


class Segmentation(NamedTuple):
    """A scan that was segmented by several classifiers."""

    labels: torch.Tensor
    """The labels by each classifier, of shape [classifiers, D, H, W], uint8."""

    logits: torch.Tensor
    """The logits of the last classifier, of shape [classes, D, H, W], float32 and finite."""


def label_scan(
    encoder: Encoder,
    image: torch.Tensor,
    fitted: Sequence[classifiers.Classifier],
    *,
    sliding: Sliding,
) -> torch.Tensor:
    """Labels the voxels of a scan; see :func:`segment_scan`, whose labels it returns."""
    return segment_scan(encoder, image, fitted, sliding=sliding).labels


@torch.no_grad()
def segment_scan(
    encoder: Encoder,
    image: torch.Tensor,
    fitted: Sequence[classifiers.Classifier],
    *,
    sliding: Sliding,
) -> Segmentation:
    """Segments a scan by some classifiers, in one pass of the encoder.

    Args:
        encoder: The encoder, in eval mode.
        image: The scan as the encoder takes it, of shape [1, D, H, W], on the encoder's device.
        fitted: The classifiers, all of the same classes and maps.
        sliding: How windows cover the scan.

    Returns:
        The segmentation, on the device of the scan.
    """
    shape = image.shape[1:]
    last = torch.zeros((len(fitted[-1].bias), *shape), device=image.device)
    labels = torch.zeros((len(fitted), *shape), dtype=torch.uint8, device=image.device)
    placed = windows.place(shape, sliding.size, sliding.overlap)
    for window, maps in _encode(encoder, image, placed, sliding.size):
        for first, group in _groups(fitted, window):
            logits = _logits(maps, group, window, sliding.size)
            target = (slice(first, first + len(group)), *window.core)
            labels[target] = _argmax(logits)
            if first + len(group) == len(fitted):
                last[(slice(None), *window.core)] = logits[-1].clamp_min(_LOWEST_LOGIT)
    return Segmentation(labels, last)


def _encode(
    encoder: Encoder, image: torch.Tensor, placed: Iterable[windows.Window], size: Sequence[int]
) -> Iterator[tuple[windows.Window, list[torch.Tensor]]]:
    """Yields each window with its feature maps, of shape [C, d, h, w]."""
    waiting = iter(placed)
    at_once = max(1, _BATCH_VOXELS // math.prod(size))
    while batch := list(itertools.islice(waiting, at_once)):
        maps = encoder(torch.stack([_cut(image, window, size) for window in batch]))
        for number, window in enumerate(batch):
            yield window, [feature_map[number] for feature_map in maps]


def _cut(image: torch.Tensor, window: windows.Window, size: Sequence[int]) -> torch.Tensor:
    """Returns what a window shows, filled up with zeros where the scan ends."""
    box = (slice(start, start + length) for start, length in zip(window.start, size, strict=True))
    content = image[(slice(None), *box)]
    missing = [whole - length for whole, length in zip(size, content.shape[1:], strict=True)]
    padding = [side for total in reversed(missing) for side in (0, total)]
    return functional.pad(content, padding)


def _inside(voxels: torch.Tensor, box: Sequence[slice]) -> torch.Tensor:
    """Returns which voxels lie in a box."""
    inside = [
        (voxels[:, axis] >= extent.start) & (voxels[:, axis] < extent.stop)
        for axis, extent in enumerate(box)
    ]
    return torch.stack(inside).all(dim=0)


def _groups(
    fitted: Sequence[classifiers.Classifier], window: windows.Window
) -> Iterator[tuple[int, Sequence[classifiers.Classifier]]]:
    """Yields the classifiers, with the number of the first, as many as memory suffices for."""
    voxels = 1
    for extent in window.core:
        voxels *= extent.stop - extent.start
    step = max(1, _LOGITS // (voxels * max(len(one.bias) for one in fitted)))
    for first in range(0, len(fitted), step):
        yield first, fitted[first : first + step]


def _logits(
    maps: Sequence[torch.Tensor],
    group: Sequence[classifiers.Classifier],
    window: windows.Window,
    size: Sequence[int],
) -> torch.Tensor:
    """Returns the logits of some classifiers, of shape [classifiers, classes, D, H, W]."""
    used = group[0].maps
    logits = interpolation.project(
        [maps[index] for index in used],
        torch.cat([one.weights for one in group]).to(maps[0].device),
        torch.cat([one.bias for one in group]).to(maps[0].device),
        size=size,
        box=window.core_within,
    )
    return logits.unflatten(0, (len(group), -1))


def _argmax(logits: torch.Tensor) -> torch.Tensor:
    """Returns the label of the largest logit along axis 1; of equal ones, the lowest label."""
    best = logits[:, 0].clone()
    labels = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for label in range(1, logits.shape[1]):
        scores = logits[:, label]
        labels.masked_fill_(scores > best, label)
        torch.maximum(best, scores, out=best)
    return labels
