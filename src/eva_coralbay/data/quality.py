"""Whether a volume is a CT scan in HU: the one check of evaluation and of pre-training."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pydantic
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors

from eva_coralbay.data import grid as grid_lib

MIN_VOXELS = 10
"""The least number of voxels along each axis."""

MIN_EXTENT_MM = 25.0
"""The least extent along each axis, in mm."""

MAX_EXTENT_MM = 3000.0
"""The largest extent along each axis, in mm: no patient is longer."""

MAX_VOXELS = 2**29
"""The largest number of voxels after resampling: 2 GiB, of which several are needed at a time.

It holds a whole body at 1 mm.
"""

_SOFT_TISSUE = (-150.0, 150.0)
"""The HU of fat, water and soft tissue."""

_MIN_SOFT_TISSUE = 0.005
"""The part of a scan that must be soft tissue."""

_MIN_RANGE = 200.0
"""The least difference of the darkest and the brightest HU, but for one percent at each end."""

_MAX_BRIGHT = 4096.0
"""The HU that no more than one percent exceeds: not even metal does."""

_MAX_MAGNITUDE = 2.0**16
"""The largest magnitude of a HU: padding may be far below air, but 16 bits hold it."""

_MIN_CONTENT_RANGE = 100.0
"""As `_MIN_RANGE`, but without the padding, however far away from the other values it is."""

_FAT = -50.0
"""The HU below which fat, lung and air are."""

_MIN_DARK = 0.003
"""The part of the values, without the padding, that must be as dark as fat.

The intercept of -1024 may be left out, or the scan be MR or PET, though noise or a padding value
are below 0.
"""

_DENSE_BONE = 700.0
"""The HU above which there is little but dense bone, teeth and metal."""

_GAS = -200.0
"""The HU below which there is little but lung and air."""

_MAX_DENSE = 0.15
"""The part of the values, without the padding, above which as dense values have another cause:
the scan is inverted, or its intercept of -1024 was left out."""

_MIN_GAS = -4096.0
"""The HU that no more than one percent is below, but for the padding: half of them are scaled."""

_GAS_PEAK = (-1150.0, -550.0)
"""Between which HU the most frequent one of gas lies: from air to the lung of somebody who breathes
out. It is between -1010 and -650 in 247 real scans (benchmarks/RESULTS.md)."""

_MIN_PART = 0.02
"""From which part of a scan on the HU of gas, or of soft tissue, say something."""

_SOFT = (-250.0, 300.0)
_FATTY = (-150.0, -50.0)
_WATERY = (-20.0, 120.0)
"""The HU of soft tissue, of fat, and of muscles, organs and blood."""

_MIN_WATERY = 0.15
"""The part of the soft tissue that is watery at least. It is 0.32 in the same scans."""

_MIN_FATTY = 0.03
"""The part of the soft tissue that is fat at least where its median is above `_MAX_SOFT`."""

_MAX_SOFT = 90.0
"""The highest median of the soft tissue of a scan without fat. It is 65 in the same scans."""

_COMPARE = (
    "are the HU multiplied or shifted? Compare slope and intercept with those of the original"
)

_MANY_VOXELS = 2**20
"""From how many voxels on one in eight is looked at."""

_MAX_LABELS = 256
"""How many values a label map has at most."""

_FEW_LABELS = 16
"""How many whole values no scan has less than."""

_MAX_EDGES = 0.2
"""How many voxels of a label map that are not 0 differ from their neighbor at most."""


class Statistics(pydantic.BaseModel, extra="forbid", frozen=True):
    """The HU of a scan, before it is resampled."""

    minimum: float
    percentile_1: float
    mean: float
    percentile_99: float
    maximum: float


def measure(volume: eva_tv_tensors.Volume) -> Statistics:
    """Measures the HU of a scan.

    Args:
        volume: The scan, of shape [1, D, H, W].
    """
    values = volume.numpy()
    low, high = np.percentile(values[:, ::2, ::2, ::2], (1, 99))
    return Statistics(
        minimum=round(float(values.min()), 3),
        percentile_1=round(float(low), 3),
        mean=round(float(values.mean(dtype=np.float64)), 3),
        percentile_99=round(float(high), 3),
        maximum=round(float(values.max()), 3),
    )


def find_problem(
    volume: eva_tv_tensors.Volume, statistics: Statistics, *, spacing: Sequence[float]
) -> str | None:
    """Returns why a volume is not a CT scan in HU, or too large to be resampled; None if it is one.

    Args:
        volume: The volume, of shape [1, D, H, W], with its affine.
        statistics: What `measure` says of it.
        spacing: The voxel spacing (D, H, W) that it would be resampled to, in mm.
    """
    values = volume.as_subclass(torch.Tensor).numpy()[0]
    return _find_problem_of_values(values, statistics) or _find_excess(
        grid_lib.Grid.of(volume), spacing
    )


def find_doubt(volume: eva_tv_tensors.Volume) -> str | None:
    """Returns why the HU of a CT scan seem to be scaled or shifted; None if they do not.

    Air or lung, and fat and muscles, are where they should be in every scan that shows enough of
    them. A scan may be odd for other reasons, so that this is no more than a reason to look at it.

    Args:
        volume: The volume, of shape [1, D, H, W], of which `find_problem` finds none.
    """
    content = _find_content(volume.as_subclass(torch.Tensor).numpy()[0])
    gas = content[content < -400.0]
    if gas.size > _MIN_PART * content.size:
        peak = _find_peak(gas)
        if not _GAS_PEAK[0] <= peak <= _GAS_PEAK[1]:
            return (
                f"most of its gas has about {peak:.0f} HU, but air has -1000 and lung -850 "
                f"({_COMPARE})"
            )
    soft = content[(content > _SOFT[0]) & (content < _SOFT[1])]
    if soft.size <= _MIN_PART * content.size:
        return None
    fatty, watery = (
        float(np.mean((soft > low) & (soft < high))) for low, high in (_FATTY, _WATERY)
    )
    median = float(np.median(soft))
    if watery < _MIN_WATERY or (fatty < _MIN_FATTY and median > _MAX_SOFT):
        return (
            f"its soft tissue has about {median:.0f} HU, {watery:.0%} of it those of muscles and "
            f"organs and {fatty:.0%} those of fat ({_COMPARE})"
        )
    return None


def _find_peak(values: npt.NDArray[np.float32]) -> float:
    """Returns the most frequent of values below -400, to 20 HU."""
    counts, edges = np.histogram(values, bins=np.arange(_MIN_GAS, -380.0, 20.0))
    return float(edges[counts.argmax()] + 10.0)


def find_lack(grid: grid_lib.Grid) -> str | None:
    """Returns why a scan is too small to learn anything from; None if it is large enough.

    Args:
        grid: The grid of the scan.
    """
    if min(grid.shape) < MIN_VOXELS or min(grid.extent_mm) < MIN_EXTENT_MM:
        return (
            f"too small: {_describe(grid)}; at least {MIN_VOXELS} voxels and {MIN_EXTENT_MM:g} mm "
            "are needed"
        )
    return None


def _find_excess(grid: grid_lib.Grid, spacing: Sequence[float]) -> str | None:
    """Returns why a scan is too large."""
    if max(grid.extent_mm) > MAX_EXTENT_MM:
        return (
            f"too large: {_describe(grid)}; at most {MAX_EXTENT_MM:g} mm are possible (is the "
            "spacing not in mm?)"
        )
    resampled = math.prod(grid.extent_mm) / math.prod(spacing)
    if resampled > MAX_VOXELS:
        distances = "x".join(f"{distance:g}" for distance in spacing)
        return (
            f"too large: {_describe(grid)}, would be {resampled:,.0f} voxels at {distances} mm; at "
            f"most {MAX_VOXELS:,} are possible (is the spacing not in mm? If it is, choose a "
            "larger one to resample to)"
        )
    return None


def _describe(grid: grid_lib.Grid) -> str:
    voxels = "x".join(str(length) for length in grid.shape)
    lengths = "x".join(f"{length:.0f}" for length in grid.extent_mm)
    return f"{voxels} voxels, {lengths} mm (D, H, W)"


def _find_problem_of_values(values: npt.NDArray[np.float32], statistics: Statistics) -> str | None:
    low, high = statistics.minimum, statistics.maximum
    found = f"values from {low:g} to {high:g}"
    if max(-low, high) > _MAX_MAGNITUDE:
        return f"not HU: {found}, more than 16 bits hold"
    if low == high:
        return f"constant: all voxels are {low:g}"
    if low >= 0:
        return _describe_positive(values, high, found)
    if statistics.percentile_99 > _MAX_BRIGHT:
        return f"not HU: {found}, more than one percent of them above {_MAX_BRIGHT:g}"
    soft_tissue = np.mean((values >= _SOFT_TISSUE[0]) & (values <= _SOFT_TISSUE[1]))
    if soft_tissue < _MIN_SOFT_TISSUE:
        return f"empty, or not HU: {soft_tissue:.1%} of the voxels are soft tissue ({found})"
    if statistics.percentile_99 - statistics.percentile_1 < _MIN_RANGE and high - low < 1000:
        return f"not HU: {found}, a range as of normalized values"
    if low >= -128 and high <= 127:
        return f"not HU: {found}, an image of 8 bits with a sign"
    return _find_problem_of_content(values)


def _describe_positive(values: npt.NDArray[np.float32], high: float, found: str) -> str:
    """Returns what values of which none is below 0 may be instead of HU."""
    if _is_label_map(values):
        return f"looks like a label map ({found}, whole and few)"
    if high <= 1:
        return f"not HU: {found}, scaled to [0, 1]"
    if high <= 255:
        return f"not HU: {found}, an image of 8 bits"
    return f"not HU: {found}, none below 0 (was the intercept of -1024 left out, or is it MR?)"


def _find_problem_of_content(values: npt.NDArray[np.float32]) -> str | None:
    """Returns why what is not padding is not in HU."""
    content = _find_content(values)
    if not content.size:
        return "constant, but for a few voxels"
    low, high = (float(value) for value in np.percentile(content, (1, 99)))
    found = f"values without padding from {low:g} to {high:g} (but for one percent at each end)"
    if high - low < _MIN_CONTENT_RANGE:
        return f"not HU: {found}, a range as of normalized values"
    if low < _MIN_GAS or high > _MAX_BRIGHT:
        return f"not HU: {found}, a range as of values that are multiplied"
    dark, gas, dense = (
        float(part.mean()) for part in (content < _FAT, content < _GAS, content > _DENSE_BONE)
    )
    if dark < _MIN_DARK:
        return f"not HU: {found}, hardly any below 0 (was the intercept left out, or is it MR?)"
    if dense > _MAX_DENSE and dense > gas:
        return (
            f"not HU: {found}, {dense:.0%} of them as dense as bone and {gas:.0%} as lung and air "
            "(is it inverted, or was the intercept left out?)"
        )
    return None


def _find_content(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns the values that are not padding, which is the lowest one; of many one in eight."""
    sample = values[::2, ::2, ::2] if values.size > _MANY_VOXELS else values
    return sample[sample > sample.min()]


def _is_label_map(values: npt.NDArray[np.float32]) -> bool:
    """Returns whether values are whole, and few or in pieces."""
    few = np.unique(values[::2, ::2, ::2])
    if len(few) > _MAX_LABELS or not np.array_equal(few, np.rint(few)):
        return False
    if len(few) <= _FEW_LABELS:
        return True
    labeled = values[:, :, 1:] > 0
    edges = (values[:, :, 1:] != values[:, :, :-1]) & labeled
    return bool(edges.sum() <= _MAX_EDGES * max(labeled.sum(), 1))
