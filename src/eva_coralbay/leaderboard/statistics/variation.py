"""How much a mean varies, by the analysis of variance: over cases and over seeds."""

import numpy as np
import numpy.typing as npt

from eva_coralbay.results import case_values

_Array = npt.NDArray[np.float64]

SCALING = np.array([[2], [4], [2], [3]])
"""The power by which each row of a spread (see :func:`of_cases`) grows with the values."""


def of_cases(values: _Array) -> _Array:
    """Computes what the cases add to the spread of means.

    Args:
        values: The values that are averaged, of shape [means, cases].

    Returns:
        By mean (columns), the rows: the variance of the mean; its square over its degrees of
        freedom; the variance and the third cumulant of the resampled mean. Those of independent
        parts add up.
    """
    n_cases = values.shape[1]
    deviations = values - values.mean(axis=1, keepdims=True)
    squares = (deviations**2).sum(axis=1)
    variance = squares / (n_cases * (n_cases - 1))
    return np.stack(
        [
            variance,
            variance**2 / (n_cases - 1),
            squares / n_cases**2,
            (deviations**3).sum(axis=1) / n_cases**3,
        ]
    )


def of_seeds(values: case_values.CaseValues) -> _Array:
    """Computes what the seeds of a model add to the spread of its mean (one column)."""
    return _spread_over_seeds(values.components.seeds or 0.0, values.n_seeds)


def of_seed_means(values: case_values.CaseValues) -> _Array:
    """Computes the spread of a mean over seeds, including what these vary by case."""
    by_seed = values.values.mean(axis=1)
    return _spread_over_seeds(by_seed.var(ddof=1) if len(by_seed) > 1 else 0.0, len(by_seed))


def _spread_over_seeds(variance: float, n_seeds: int) -> _Array:
    """Returns the spread of a mean over seeds from the variance between them."""
    variance /= n_seeds
    return np.array([[variance], [variance**2 / max(1, n_seeds - 1)], [variance], [0.0]])


def degrees_of_freedom(spread: _Array) -> _Array:
    """Returns Satterthwaite's degrees of freedom; infinite where nothing varies."""
    return np.divide(
        spread[0] ** 2, spread[1], out=np.full(spread.shape[1], np.inf), where=spread[1] > 0
    )
