"""The bootstrap: means over resampled cases and seeds."""

import math

import numpy as np
import numpy.typing as npt

from eva_coralbay.results import case_values

_Array = npt.NDArray[np.float64]

CHUNK_VALUES = 2**21
"""Resampled cases that are held at once, which bounds the memory."""

DIGITS = 12
"""Digits of a difference that are not rounding errors, relative to the values."""


def resample_means(
    models: list[case_values.CaseValues], resamples: int, generator: np.random.Generator
) -> _Array:
    """Resamples the means of models on a task: the cases together, the seeds of each alone.

    Returns:
        The deviations from the means, of shape [models, resamples].
    """
    deviations = resample(np.stack([model.by_case for model in models]), resamples, generator)
    for model, row in zip(models, deviations, strict=True):
        variance = model.components.seeds
        if variance:
            by_seed = model.values.mean(axis=1)
            scale = math.sqrt(variance / by_seed.var())
            row += resample(scale * by_seed[None], resamples, generator)[0]
    return deviations


def resample(values: _Array, resamples: int, generator: np.random.Generator) -> _Array:
    """Resamples means over units, the same units for all means.

    Args:
        values: The values, of shape [means, units].
        resamples: The number of samples.
        generator: Draws the samples.

    Returns:
        The deviations of the resampled means, of shape [means, resamples].
    """
    n_units = values.shape[1]
    centered = (values - values.mean(axis=1, keepdims=True)) / n_units
    deviations = np.empty((len(values), resamples))
    step = max(1, CHUNK_VALUES // n_units)
    for start in range(0, resamples, step):
        n_samples = min(step, resamples - start)
        drawn = generator.integers(n_units, size=(n_samples, n_units))
        drawn += n_units * np.arange(n_samples)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n_samples * n_units)
        deviations[:, start : start + n_samples] = centered @ counts.reshape(
            n_samples, n_units
        ).T.astype(np.float64)
    return deviations
