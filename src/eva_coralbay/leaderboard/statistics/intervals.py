"""The mean of a model on a task with its interval."""

import dataclasses
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from eva_coralbay.leaderboard.statistics import resampling, variation
from eva_coralbay.results import case_values

_Array = npt.NDArray[np.float64]

CONFIDENCE: Final = 0.95
"""The confidence of every interval."""

LEVELS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
"""The levels of the ends of an interval."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value and its interval of 95 %."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean of a model on a task, over its cases and seeds."""

    mean: Estimate
    n_cases: int
    n_seeds: int

    n_excluded: int
    """The number of cases without a value."""

    components: case_values.Components
    """What makes one value vary."""


def mean(values: case_values.CaseValues, *, resamples: int = 10_000, random_seed: int = 0) -> Mean:
    """Estimates the mean over cases and seeds.

    With several seeds, cases and seeds are resampled independently. As a few seeds resampled vary
    too little, and their means carry the residual too, their deviations are first scaled to the
    estimated variance between seeds (Carpenter, Goldstein and Rasbash 2003, Appl. Statist. 52:431);
    the degrees of freedom are Satterthwaite's (1946, Biometrics Bull. 2:110). With one seed the
    interval is about that run: it holds no variation between seeds.

    Args:
        values: The values of a model on a task.
        resamples: The number of bootstrap samples.
        random_seed: The seed of the resampling.

    Returns:
        The mean with its interval, the numbers behind it and the components of the variance.
    """
    deviations = resampling.resample_means([values], resamples, np.random.default_rng(random_seed))
    spread = variation.of_cases(values.by_case[None]) + variation.of_seeds(values)
    return Mean(
        mean=estimate(values.by_case[None].mean(axis=1), deviations, spread)[0],
        n_cases=len(values.cases),
        n_seeds=values.n_seeds,
        n_excluded=len(values.excluded),
        components=values.components,
    )


def estimate(values: _Array, deviations: _Array, spread: _Array) -> list[Estimate]:
    """Computes expanded bootstrap intervals.

    Args:
        values: The estimates, of shape [estimates].
        deviations: Of the resampled estimates from these, of shape [estimates, resamples].
        spread: The spread of the estimates (see :func:`variation.of_cases`).

    Returns:
        The estimates with their intervals.
    """
    variance, _, resampled_variance, _ = spread
    with np.errstate(invalid="ignore"):
        # 0 / 0 where nothing varies, and then of no consequence
        expansion = np.nan_to_num(np.sqrt(variance / resampled_variance))
    quantile = expansion * stats.t.ppf(LEVELS[1], variation.degrees_of_freedom(spread))
    scores = _correct_skewness(np.stack([-quantile, quantile]), deviations, spread)
    bounds = values + _quantiles(np.sort(deviations, axis=1), stats.norm.cdf(scores))
    return [
        Estimate(float(value), float(low), float(high))
        for value, low, high in zip(values, *bounds, strict=True)
    ]


def _correct_skewness(scores: _Array, deviations: _Array, spread: _Array) -> _Array:
    """Corrects the normal scores of the ends of intervals for bias and skewness, as BCa does."""
    _, _, resampled_variance, third_cumulant = spread
    with np.errstate(divide="ignore", invalid="ignore"):
        # 0 / 0 where nothing varies, and then of no consequence
        acceleration = np.nan_to_num(third_cumulant / (6 * resampled_variance**1.5))
    n_resamples = deviations.shape[1]
    zero = np.abs(deviations).max(axis=1, keepdims=True) * 10.0**-resampling.DIGITS
    below = ((deviations < -zero).mean(axis=1) + (deviations <= zero).mean(axis=1)) / 2
    bias = stats.norm.ppf(np.clip(below, 0.5 / n_resamples, 1 - 0.5 / n_resamples))
    shifted = bias + scores
    return bias + shifted / (1 - acceleration * shifted)


def _quantiles(ordered: _Array, levels: _Array) -> _Array:
    """Interpolates the quantiles of ordered rows, each at its own levels [quantiles, rows]."""
    position = levels * (ordered.shape[1] - 1)
    index = np.minimum(position.astype(int), ordered.shape[1] - 2)
    rows = np.arange(len(ordered))
    low, high = ordered[rows, index], ordered[rows, index + 1]
    return low + (position - index) * (high - low)
