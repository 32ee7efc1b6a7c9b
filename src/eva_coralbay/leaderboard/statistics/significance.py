"""Whether two models differ on the same cases of a task."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from eva_coralbay.leaderboard.statistics import intervals, resampling, variation
from eva_coralbay.results import case_values

_Array = npt.NDArray[np.float64]

SIGNIFICANCE: Final = 0.05
"""The most that the chance of a false claim may be, over all pairs of a comparison together."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models on the same cases of a task."""

    model_a: str
    model_b: str

    difference: intervals.Estimate
    """The mean difference, A less B."""

    p_value: float
    """Of the test alone."""

    corrected_p_value: float
    """After Holm's correction for all the pairs that were compared."""

    n_cases: int

    n_seeds: tuple[int, int]
    """The number of seeds of A and B."""

    reason: str | None
    """Why the models are not separable; `None` if they are."""


def compare(
    models: Mapping[str, case_values.CaseValues], *, resamples: int = 10_000, random_seed: int = 0
) -> list[Comparison]:
    """Compares every pair of models on the same cases of a task.

    The p-value is the larger of two tests of the differences by case, their mean over the seeds:
    Wilcoxon's signed-rank test, in which equal cases are dropped and which is exact up to 50 cases
    (with ties up to 13), else asymptotic; and a paired t-test. They are about these very runs. With
    several seeds of a model, the models have to differ beyond the variation between seeds too: the
    p-value is the largest of four, with Welch's t-test of the means of the seeds, and a t-test in
    which the variances of cases and of seeds add up. Neither alone keeps the chance of a false
    claim below 5 % for any number of seeds. Two seeds of two models rarely separate them, three
    often do.

    Args:
        models: The values by model, all of the same cases.
        resamples: The number of bootstrap samples.
        random_seed: The seed of the resampling.

    Returns:
        The comparisons, in the order of the models.

    Raises:
        ValueError: If two models have values of different cases, naming the cases.
    """
    names, values = list(models), list(models.values())
    check_models(models)
    if len(models) < 2:
        return []

    deviations = resampling.resample_means(values, resamples, np.random.default_rng(random_seed))
    by_case = np.stack([model.by_case for model in values])
    seeds = np.hstack([variation.of_seeds(model) for model in values])
    pairs, differences = [], []
    for first in range(len(values) - 1):
        others = slice(first + 1, None)
        difference = by_case[first] - by_case[others]
        spread = variation.of_cases(difference) + seeds[:, [first]] + seeds[:, others]
        differences += intervals.estimate(
            difference.mean(axis=1),
            deviations[first] - deviations[others],
            spread,
            is_symmetric=True,
        )
        pairs += [(first, second) for second in range(first + 1, len(values))]

    p_values = [run_test([(values[first], values[second])])[0] for first, second in pairs]
    return correct(
        [
            Comparison(
                model_a=names[first],
                model_b=names[second],
                difference=difference,
                p_value=p_value,
                corrected_p_value=p_value,
                n_cases=by_case.shape[1],
                n_seeds=(values[first].n_seeds, values[second].n_seeds),
                reason=None,
            )
            for (first, second), difference, p_value in zip(
                pairs, differences, p_values, strict=True
            )
        ]
    )


def correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Corrects comparisons for their number, whatever they were corrected for before.

    Args:
        comparisons: The comparisons of a family, e.g. of two models on every class.

    Returns:
        The same with new `corrected_p_value` and `reason`.
    """
    corrected = holm([comparison.p_value for comparison in comparisons])
    return [
        dataclasses.replace(
            comparison,
            corrected_p_value=p_value,
            reason=_reason(p_value, comparison.n_cases, len(comparisons)),
        )
        for comparison, p_value in zip(comparisons, corrected, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number (Holm 1979).

    Args:
        p_values: The p-values of a family of tests.

    Returns:
        The corrected p-values, in the same order.
    """
    order = np.argsort(p_values)
    factors = np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(factors * np.asarray(p_values)[order])
    return np.minimum(corrected, 1.0).tolist()


def run_test(
    tasks: Sequence[tuple[case_values.CaseValues, case_values.CaseValues]],
) -> tuple[float, float]:
    """Tests whether two models differ over all tasks (see :func:`compare` and :func:`rank`).

    Args:
        tasks: The values of the two models on each task.

    Returns:
        The p-value, and a number of the sign of the mean difference.
    """
    differences = [np.zeros(0)]
    total, by_case, by_seed = 0.0, np.zeros((4, 1)), np.zeros((4, 1))
    for first, second in tasks:
        difference = _subtract(first.by_case, second.by_case)
        size = np.abs(difference).mean()
        if size > 0:
            differences.append(difference / size)
            total += difference.mean() / size
            by_case += variation.of_cases(difference[None]) / size**variation.SCALING
            by_seed += (
                variation.of_seed_means(first) + variation.of_seed_means(second)
            ) / size**variation.SCALING

    pooled = np.concatenate(differences)
    pooled = pooled[pooled != 0]
    if not len(pooled):
        return 1.0, 0.0
    result: Any = stats.wilcoxon(pooled)
    p_values = [float(result.pvalue), _t_test(total, by_case)]
    if any(model.n_seeds > 1 for pair in tasks for model in pair):
        p_values += [_t_test(total, by_seed), _t_test(total, by_case + by_seed)]
    return max(p_values), total


def check_models(models: Mapping[str, case_values.CaseValues], place: str = "") -> None:
    """Checks that all models have values of the same cases, in the same order."""
    if not models:
        return
    (first, values), *others = models.items()
    for name, other in others:
        who = f"{place}{first} and {name}"
        case_values.check_same_cases(values.cases, other.cases, who)
        if values.cases != other.cases:
            raise ValueError(f"{who} have their cases in different order.")


def _t_test(difference: float, spread: _Array) -> float:
    """Returns the p-value of a t-test of a difference."""
    variance, degrees = spread[0, 0], variation.degrees_of_freedom(spread)[0]
    if variance == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference) / math.sqrt(variance), degrees))


def _subtract(first: _Array, second: _Array) -> _Array:
    """Subtracts values; what may be a rounding error is 0."""
    scale = max(np.abs(first).max(), np.abs(second).max()) or 1.0
    return np.round((first - second) / scale, resampling.DIGITS) * scale


def _reason(corrected_p_value: float, n_cases: int, n_pairs: int) -> str | None:
    """Says why two models are not separable, if they are not."""
    if corrected_p_value <= SIGNIFICANCE:
        return None

    smallest = min(1.0, n_pairs * 2.0 ** (1 - n_cases))
    if smallest > SIGNIFICANCE:
        family = f" and {n_pairs} comparisons, no corrected" if n_pairs > 1 else ", no"
        return f"not separable: with {n_cases} cases{family} p-value can be below {smallest:.2g}"

    family = f" after correction for {n_pairs} comparisons" if n_pairs > 1 else ""
    return f"not separable: p = {corrected_p_value:.2g}{family}, {n_cases} cases"
