"""Whether two models differ on the same cases of a task."""

import dataclasses
import itertools
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


def compare(models: Mapping[str, case_values.CaseValues]) -> list[Comparison]:
    """Compares every pair of models on the same cases of a task.

    The p-value is the largest of several tests of the differences by case, their mean over the
    seeds. Wilcoxon's signed-rank test, in which equal cases are dropped and which is exact up to 50
    cases (with ties up to 13), else asymptotic, and a paired t-test are about these very runs. With
    several seeds of a model, the models have to differ beyond the variation between seeds too: two
    more tests are Welch's t-test of the means of the seeds, and a t-test in which the variances of
    cases and of seeds add up, with Satterthwaite's degrees of freedom (1946, Biometrics Bull.
    2:110). None alone keeps the chance of a false claim below 5 % for any number of seeds. Two
    seeds of two models rarely separate them, three often do.

    The interval is the union of those that the t-tests invert to, so it covers as often as each of
    them. Where only Wilcoxon's test finds no difference, it is extended to 0: interval and p-value
    always say the same.

    Args:
        models: The values by model, all of the same cases.

    Returns:
        The comparisons, in the order of the models.

    Raises:
        EvaCoralbayError: If two models have values of different cases, naming the cases.
    """
    check_models(models)
    return correct(
        [
            _compare_pair(name_a, name_b, values_a, values_b)
            for (name_a, values_a), (name_b, values_b) in itertools.combinations(models.items(), 2)
        ]
    )


def _compare_pair(
    name_a: str, name_b: str, values_a: case_values.CaseValues, values_b: case_values.CaseValues
) -> Comparison:
    """Compares two models, with a p-value that is not corrected."""
    spreads = _Spreads.of_pair(values_a, values_b)
    p_value, _ = run_test([(values_a, values_b)])
    value = float((values_a.by_case - values_b.by_case).mean())
    margin = max(
        _quantile(spread) * math.sqrt(spread[0, 0])
        for spread in spreads.as_list(has_seeds=max(values_a.n_seeds, values_b.n_seeds) > 1)
    )
    low, high = value - margin, value + margin
    if p_value > SIGNIFICANCE:
        low, high = min(low, 0.0), max(high, 0.0)
    return Comparison(
        model_a=name_a,
        model_b=name_b,
        difference=intervals.Estimate(value, low, high),
        p_value=p_value,
        corrected_p_value=p_value,
        n_cases=len(values_a.cases),
        n_seeds=(values_a.n_seeds, values_b.n_seeds),
        reason=None,
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
    pooled: list[_Array] = []
    total, spreads = 0.0, _Spreads.of_nothing()
    for first, second in tasks:
        difference = _subtract(first.by_case, second.by_case)
        size = float(np.abs(difference).mean())
        if size > 0:
            pooled.append(difference / size)
            total += float(difference.mean()) / size
            spreads = spreads.add(_Spreads.of_pair(first, second), size)
    if not pooled:
        return 1.0, 0.0
    has_seeds = any(model.n_seeds > 1 for pair in tasks for model in pair)
    p_values = [_t_test(total, spread) for spread in spreads.as_list(has_seeds=has_seeds)]
    return max(_signed_rank_test(np.concatenate(pooled)), *p_values), total


@dataclasses.dataclass(frozen=True)
class _Spreads:
    """The spread of a mean difference by its source (see :func:`variation.of_cases`)."""

    cases: _Array
    seeds: _Array

    @classmethod
    def of_nothing(cls) -> "_Spreads":
        """Returns that of a sum of no differences."""
        return cls(np.zeros((4, 1)), np.zeros((4, 1)))

    @classmethod
    def of_pair(cls, first: case_values.CaseValues, second: case_values.CaseValues) -> "_Spreads":
        """Returns that of the difference of two models."""
        difference = _subtract(first.by_case, second.by_case)
        return cls(
            variation.of_cases(difference[None]),
            variation.of_seed_means(first) + variation.of_seed_means(second),
        )

    def add(self, other: "_Spreads", size: float) -> "_Spreads":
        """Returns that of the sum with an independent difference, divided by a size."""
        scale = size**variation.SCALING
        return _Spreads(self.cases + other.cases / scale, self.seeds + other.seeds / scale)

    def as_list(self, *, has_seeds: bool) -> list[_Array]:
        """Returns the spreads that a difference has to stand out from."""
        return [self.cases, self.seeds, self.cases + self.seeds] if has_seeds else [self.cases]


def _signed_rank_test(differences: _Array) -> float:
    """Returns the p-value of Wilcoxon's signed-rank test; differences of 0 are dropped."""
    result: Any = stats.wilcoxon(differences[differences != 0])
    return float(result.pvalue)


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


def _quantile(spread: _Array) -> float:
    """Returns how many standard errors the end of an interval is off."""
    return float(stats.t.ppf(1 - SIGNIFICANCE / 2, variation.degrees_of_freedom(spread)[0]))


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
