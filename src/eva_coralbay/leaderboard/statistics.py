"""How sure the leaderboard's numbers are: intervals, paired comparisons and rankings.

The unit is the case; the runs of a model (its seeds) are a second source of variation. Of every
value, higher is better: negate those of a metric of which lower is better. The methods:

- Intervals are by the BCa bootstrap (Efron 1987, JASA 82:171) at the expanded levels
  of Hesterberg (2015, The American Statistician 69:371, section 4.5; `CI.bca(expand=TRUE)` of his
  R package `resample`), which make up for resamples that vary too little and for a standard error
  that is itself estimated. Plain BCa intervals of 95 % cover 91 % at 12 cases, these 94 to 95 %.
  Intervals of differences leave out its corrections for bias and skewness: differences are nearly
  symmetric, with some cases far out, which these corrections take for skewness. They cover 94 %
  then, BCa intervals 92 %.
  No interval knows of what the cases do not show: if a model fails in one case of ten, those of 12
  cases cover 83 %, of 30 cases 90 %. Nor do two seeds show how far seeds vary: if they vary as
  much as the mean over the cases does, intervals cover 86 %.
- Two models are compared on the same cases by Wilcoxon's signed-rank test, with Holm's correction
  (1979, Scand. J. Statist. 6:65) for all pairs, as in challengeR (Wiesenfarth et al. 2021,
  Sci. Rep. 11:2369), and by a paired t-test; they differ if both say so. Models are ranked by their
  means, and Wilcoxon's test alone is not about these: of 30 skewed differences whose mean is 0 it
  makes a false claim in 15 % of trials, of 100 in 44 %.
- A rank interval counts the models that are significantly better and worse. With Holm's
  correction it holds for all models at once (S. Holm 2013; Mogstad et al. 2024, Rev. Econ.
  Stud. 91:476), and of several methods it is the one that Foucart et al. (2025, ESANN,
  doi:10.14428/esann/2025.ES2025-39) recommend. Chatbot Arena's rank is its lower end.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from eva_coralbay.errors import EvaCoralbayError

CONFIDENCE: Final = 0.95
"""The confidence of every interval."""

SIGNIFICANCE: Final = 0.05
"""The most that the chance of a false claim may be, over all pairs of a comparison together."""

_CHUNK_VALUES = 2**21
"""Resampled cases that are held at once, which bounds the memory."""

_DIGITS = 12
"""Digits of a difference that are not rounding errors, relative to the values."""

_LEVELS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
"""The levels of the ends of an interval."""

_SHOWN_CASES = 10
"""The most case ids that a message lists."""

_Array = npt.NDArray[np.float64]

_SCALING = np.array([[2], [4], [2], [3]])
"""The power by which each row of a spread (see :func:`_case_spread`) grows with the values."""


class TooFewCases(EvaCoralbayError):
    """There are too few cases with values for any statistics."""


@dataclasses.dataclass(frozen=True)
class Components:
    """Estimates of the variance of one value, by its source; by analysis of variance."""

    cases: float
    """Between cases; of a single seed, including the residual."""

    seeds: float | None
    """Between seeds; `None` of a single one."""

    residual: float | None
    """Of case and seed together; `None` of a single seed."""


@dataclasses.dataclass(frozen=True, eq=False)
class CaseValues:
    """The values of a model on a task: every seed on every case."""

    cases: tuple[str, ...]
    """The case ids."""

    values: _Array
    """Finite values of shape [seeds, cases]; higher is better."""

    excluded: tuple[str, ...] = ()
    """Ids of the cases without a value."""

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.values.ndim != 2 or self.values.shape[1] != len(self.cases):
            raise ValueError(
                f"Expected values of shape [seeds, cases] for {len(self.cases)} cases, got "
                f"{list(self.values.shape)}."
            )
        if self.n_seeds < 1 or len(self.cases) < 2:
            raise TooFewCases(
                f"{self.n_seeds} seeds and {len(self.cases)} cases have values "
                f"({len(self.excluded)} cases are excluded), but statistics take at least one "
                "seed and two cases."
            )
        if len(set(self.cases)) < len(self.cases):
            raise ValueError("A case id is there twice.")
        is_infinite = ~np.isfinite(self.values).all(axis=0)
        infinite = [self.cases[index] for index in np.flatnonzero(is_infinite)]
        if infinite:
            raise ValueError(
                f"The values of the cases {_names(infinite)} are not finite. "
                "A case without a value is to be excluded."
            )

    @classmethod
    def from_runs(cls, runs: Sequence[Mapping[str, float | None]]) -> "CaseValues":
        """Gathers the runs of a model on a task.

        A case that has no value (`None` or NaN) in one of the runs is excluded from all of them.

        Args:
            runs: The value by case id of every run, one for each seed.

        Returns:
            The values, with the cases in the order of their ids.

        Raises:
            ValueError: If the runs are of different cases, or a value is infinite, naming the
                cases.
            TooFewCases: If fewer than two cases have values.
        """
        for run in runs:
            _check_same_cases(runs[0], run, "Two seeds")
        cases = sorted(runs[0]) if runs else []
        excluded = {case for case in cases if any(_is_missing(run[case]) for run in runs)}
        kept = [case for case in cases if case not in excluded]
        values = np.array([[run[case] for case in kept] for run in runs], dtype=np.float64)
        return cls(tuple(kept), values.reshape(len(runs), len(kept)), tuple(sorted(excluded)))

    @property
    def n_seeds(self) -> int:
        """The number of seeds."""
        return len(self.values)

    @property
    def by_case(self) -> _Array:
        """The mean over the seeds by case."""
        return self.values.mean(axis=0)

    @property
    def components(self) -> Components:
        """The estimated components of the variance."""
        by_case = self.by_case
        if self.n_seeds == 1:
            return Components(float(by_case.var(ddof=1)), None, None)

        by_seed = self.values.mean(axis=1)
        residuals = self.values - by_case - by_seed[:, None] + by_case.mean()
        residual = (residuals**2).sum() / ((self.n_seeds - 1) * (len(self.cases) - 1))
        return Components(
            cases=max(0.0, float(by_case.var(ddof=1) - residual / self.n_seeds)),
            seeds=max(0.0, float(by_seed.var(ddof=1) - residual / len(self.cases))),
            residual=float(residual),
        )


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

    components: Components
    """What makes one value vary."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models on the same cases of a task."""

    model_a: str
    model_b: str

    difference: Estimate
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


@dataclasses.dataclass(frozen=True)
class RankedModel:
    """The place of a model over all tasks."""

    model: str

    rank: int
    """The place by mean rank; models with the same mean rank share the better place."""

    rank_interval: tuple[int, int]
    """The places that cannot be ruled out; those of all models hold together with 95 %."""

    tie_group: int
    """Group from 1 on: models that cannot be separated from the first of their group."""

    mean_rank: Estimate
    """The mean over the tasks of the rank by the task's mean value."""

    win_rate: Estimate
    """The share of won comparisons with another model on a case, each task weighing the same."""

    mean: Estimate
    """The plain mean over the tasks, which is only meaningful if their values are alike."""


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The ranking of the models that have values on all tasks."""

    models: tuple[RankedModel, ...]
    """From best to worst."""

    unranked: dict[str, tuple[str, ...]]
    """The tasks that each of the other models lacks; none if there is no model to compare with."""

    n_cases: dict[str, int]
    """The number of cases by task."""

    agreement: dict[str, float | None]
    """Kendall's tau-b of the order by mean rank with that by `win_rate` and by `mean`.

    `None` where it is not defined, as all models are equal in one of them.
    """


def mean(values: CaseValues, *, resamples: int = 10_000, random_seed: int = 0) -> Mean:
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
    deviations = _resample_means([values], resamples, np.random.default_rng(random_seed))
    spread = _case_spread(values.by_case[None]) + _seed_spread(values)
    return Mean(
        mean=_estimate(values.by_case[None].mean(axis=1), deviations, spread)[0],
        n_cases=len(values.cases),
        n_seeds=values.n_seeds,
        n_excluded=len(values.excluded),
        components=values.components,
    )


def compare(
    models: Mapping[str, CaseValues], *, resamples: int = 10_000, random_seed: int = 0
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
    _check_models(models)
    if len(models) < 2:
        return []

    deviations = _resample_means(values, resamples, np.random.default_rng(random_seed))
    by_case = np.stack([model.by_case for model in values])
    seeds = np.hstack([_seed_spread(model) for model in values])
    pairs, differences = [], []
    for first in range(len(values) - 1):
        others = slice(first + 1, None)
        difference = by_case[first] - by_case[others]
        spread = _case_spread(difference) + seeds[:, [first]] + seeds[:, others]
        differences += _estimate(
            difference.mean(axis=1),
            deviations[first] - deviations[others],
            spread,
            is_symmetric=True,
        )
        pairs += [(first, second) for second in range(first + 1, len(values))]

    p_values = [_test([(values[first], values[second])])[0] for first, second in pairs]
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


def restrict_to_common_cases(models: Mapping[str, CaseValues]) -> dict[str, CaseValues]:
    """Restricts models to the cases of which all of them have values.

    Args:
        models: The values by model, of a task.

    Returns:
        The same with fewer cases; those left out count as excluded.

    Raises:
        TooFewCases: If fewer than two cases are left.
    """
    shared = set.intersection(*(set(values.cases) for values in models.values()))
    restricted = {}
    for name, values in models.items():
        kept = [index for index, case in enumerate(values.cases) if case in shared]
        left_out = set(values.cases) - shared
        restricted[name] = CaseValues(
            tuple(values.cases[index] for index in kept),
            values.values[:, kept],
            tuple(sorted(left_out.union(values.excluded))),
        )
    return restricted


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


def rank(
    tasks: Mapping[str, Mapping[str, CaseValues]],
    *,
    resamples: int = 10_000,
    random_seed: int = 0,
) -> Ranking:
    """Ranks the models that have values on all tasks, by their mean rank.

    The cases of a task are resampled for all models at once, those of two tasks independently.
    The interval of the mean rank is of bootstrap percentiles, extended to the mean rank itself:
    resampling moves ranks towards the middle. The two other intervals are as in :func:`mean`;
    that of the win rate holds no variation between seeds.

    Two models are separated if the test of :func:`compare` over the cases of all tasks, of which
    the differences are divided by their mean size by task, is significant after Holm's correction
    for all pairs, and its direction is that of the mean ranks. It takes the cases of two tasks for
    independent. A tie group is the best model without a group and those after it, up to the first
    that is separated from it (comparison with the best: Hsu 1984, Ann. Statist. 12:1136).

    Args:
        tasks: The values by task and model; on a task, all of the same cases.
        resamples: The number of bootstrap samples.
        random_seed: The seed of the resampling.

    Returns:
        The ranking.

    Raises:
        ValueError: If two models have values of different cases of a task, naming the cases.
    """
    for task, models in tasks.items():
        _check_models(models, f"{task}: ")
    missing = {
        model: tuple(task for task, others in tasks.items() if model not in others)
        for models in tasks.values()
        for model in models
    }
    names = sorted(model for model, lacks in missing.items() if not lacks)
    if len(names) < 2:
        names = []
    rows = [[models[name] for name in names] for models in tasks.values()]
    ranked = _rank_rows(names, rows, resamples, random_seed) if names else []
    return Ranking(
        models=tuple(ranked),
        unranked={model: lacks for model, lacks in missing.items() if model not in names},
        n_cases={
            task: len(next(iter(models.values())).cases) for task, models in tasks.items() if models
        },
        agreement={
            "win_rate": _agreement(ranked, [model.win_rate.value for model in ranked]),
            "mean": _agreement(ranked, [model.mean.value for model in ranked]),
        },
    )


def _rank_rows(
    names: list[str], rows: list[list[CaseValues]], resamples: int, random_seed: int
) -> list[RankedModel]:
    """Ranks models by their values on every task, from best to worst."""
    estimates = _estimate_ranks(rows, resamples, np.random.default_rng(random_seed))
    mean_ranks = np.array([mean_rank.value for mean_rank, _, _ in estimates])
    ahead = _find_separated(rows, mean_ranks)
    order = np.argsort(mean_ranks, kind="stable")
    tie_groups = _group_ties(order, ahead)
    ranks = stats.rankdata(mean_ranks, method="min")
    return [
        RankedModel(
            model=names[index],
            rank=int(ranks[index]),
            rank_interval=(
                1 + int(ahead[:, index].sum()),
                len(names) - int(ahead[index].sum()),
            ),
            tie_group=tie_groups[index],
            mean_rank=estimates[index][0],
            win_rate=estimates[index][1],
            mean=estimates[index][2],
        )
        for index in order
    ]


def _estimate_ranks(
    rows: list[list[CaseValues]], resamples: int, generator: np.random.Generator
) -> list[tuple[Estimate, Estimate, Estimate]]:
    """Estimates the mean rank, the win rate and the mean over the tasks of each model."""
    n_models, n_tasks = len(rows[0]), len(rows)
    ranks = np.zeros(n_models)
    resampled_ranks = np.zeros((n_models, resamples))
    values, deviations, spread = np.zeros((2, n_models)), np.zeros((2, n_models, resamples)), 0.0
    for row in rows:
        by_case = np.stack([model.by_case for model in row])
        wins = (stats.rankdata(by_case, axis=0) - 1) / (n_models - 1)
        resampled = np.stack(
            [_resample(wins, resamples, generator), _resample_means(row, resamples, generator)]
        )
        seeds = np.hstack([_seed_spread(model) for model in row])
        task_spread = np.hstack([_case_spread(wins), _case_spread(by_case) + seeds])
        task_values = np.stack([wins.mean(axis=1), by_case.mean(axis=1)])

        ranks += _ranks(task_values[1])
        resampled_ranks += _ranks(task_values[1][:, None] + resampled[1])
        values += task_values
        deviations += resampled
        spread += task_spread

    bounds = np.quantile(resampled_ranks, _LEVELS, axis=1) / n_tasks
    ranks /= n_tasks
    mean_ranks = [
        Estimate(float(value), float(min(value, low)), float(max(value, high)))
        for value, low, high in zip(ranks, *bounds, strict=True)
    ]
    others = _estimate(
        values.ravel() / n_tasks,
        deviations.reshape(2 * n_models, resamples) / n_tasks,
        spread / n_tasks**_SCALING,
    )
    return list(zip(mean_ranks, others[:n_models], others[n_models:], strict=True))


def _find_separated(rows: list[list[CaseValues]], mean_ranks: _Array) -> npt.NDArray[np.bool_]:
    """Finds the pairs that are separated over all tasks.

    Args:
        rows: The values by task and model.
        mean_ranks: The mean rank of each model.

    Returns:
        Whether the model of the row is significantly better than that of the column.
    """
    n_models = len(mean_ranks)
    ahead = np.zeros((n_models, n_models), dtype=bool)
    pairs = [(a, b) for a in range(n_models) for b in range(a + 1, n_models)]
    tests = [_test([(row[a], row[b]) for row in rows]) for a, b in pairs]
    corrected = holm([p_value for p_value, _ in tests])
    for (a, b), (_, direction), p_value in zip(pairs, tests, corrected, strict=True):
        if p_value <= SIGNIFICANCE and direction * (mean_ranks[b] - mean_ranks[a]) > 0:
            ahead[(a, b) if direction > 0 else (b, a)] = True
    return ahead


def _group_ties(order: npt.NDArray[np.intp], ahead: npt.NDArray[np.bool_]) -> dict[int, int]:
    """Returns the tie group of each model, from 1 on."""
    groups: dict[int, int] = {}
    best, group = order[0], 1
    for index in order:
        if ahead[best, index]:
            best, group = index, group + 1
        groups[index] = group
    return groups


def _agreement(models: list[RankedModel], values: list[float]) -> float | None:
    """Returns Kendall's tau-b of the order by mean rank with that by other values."""
    if len(models) < 2:
        return None
    result: Any = stats.kendalltau([-model.mean_rank.value for model in models], values)
    tau = float(result.statistic)
    return None if math.isnan(tau) else tau


def _ranks(values: _Array) -> _Array:
    """Ranks along the first axis; the highest value has rank 1, ties have their mean rank."""
    return stats.rankdata(-values, axis=0)


def _test(tasks: Sequence[tuple[CaseValues, CaseValues]]) -> tuple[float, float]:
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
            by_case += _case_spread(difference[None]) / size**_SCALING
            by_seed += (_seed_mean_spread(first) + _seed_mean_spread(second)) / size**_SCALING

    pooled = np.concatenate(differences)
    pooled = pooled[pooled != 0]
    if not len(pooled):
        return 1.0, 0.0
    result: Any = stats.wilcoxon(pooled)
    p_values = [float(result.pvalue), _t_test(total, by_case)]
    if any(model.n_seeds > 1 for pair in tasks for model in pair):
        p_values += [_t_test(total, by_seed), _t_test(total, by_case + by_seed)]
    return max(p_values), total


def _t_test(difference: float, spread: _Array) -> float:
    """Returns the p-value of a t-test of a difference."""
    variance, degrees = spread[0, 0], _degrees_of_freedom(spread)[0]
    if variance == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference) / math.sqrt(variance), degrees))


def _subtract(first: _Array, second: _Array) -> _Array:
    """Subtracts values; what may be a rounding error is 0."""
    scale = max(np.abs(first).max(), np.abs(second).max()) or 1.0
    return np.round((first - second) / scale, _DIGITS) * scale


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


def _estimate(
    values: _Array, deviations: _Array, spread: _Array, *, is_symmetric: bool = False
) -> list[Estimate]:
    """Computes expanded bootstrap intervals.

    Args:
        values: The estimates, of shape [estimates].
        deviations: Of the resampled estimates from these, of shape [estimates, resamples].
        spread: The spread of the estimates (see :func:`_case_spread`).
        is_symmetric: Whether to leave out the corrections of BCa for bias and skewness.

    Returns:
        The estimates with their intervals.
    """
    variance, _, resampled_variance, _ = spread
    with np.errstate(invalid="ignore"):
        # 0 / 0 where nothing varies, and then of no consequence
        expansion = np.nan_to_num(np.sqrt(variance / resampled_variance))
    quantile = expansion * stats.t.ppf(_LEVELS[1], _degrees_of_freedom(spread))
    scores = np.stack([-quantile, quantile])
    if not is_symmetric:
        scores = _correct_skewness(scores, deviations, spread)
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
    zero = np.abs(deviations).max(axis=1, keepdims=True) * 10.0**-_DIGITS
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


def _case_spread(values: _Array) -> _Array:
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


def _seed_spread(values: CaseValues) -> _Array:
    """Computes what the seeds of a model add to the spread of its mean (one column)."""
    return _spread_over_seeds(values.components.seeds or 0.0, values.n_seeds)


def _seed_mean_spread(values: CaseValues) -> _Array:
    """Computes the spread of a mean over seeds, including what these vary by case."""
    by_seed = values.values.mean(axis=1)
    return _spread_over_seeds(by_seed.var(ddof=1) if len(by_seed) > 1 else 0.0, len(by_seed))


def _spread_over_seeds(variance: float, n_seeds: int) -> _Array:
    """Returns the spread of a mean over seeds from the variance between them."""
    variance /= n_seeds
    return np.array([[variance], [variance**2 / max(1, n_seeds - 1)], [variance], [0.0]])


def _degrees_of_freedom(spread: _Array) -> _Array:
    """Returns Satterthwaite's degrees of freedom; infinite where nothing varies."""
    return np.divide(
        spread[0] ** 2, spread[1], out=np.full(spread.shape[1], np.inf), where=spread[1] > 0
    )


def _resample_means(
    models: list[CaseValues], resamples: int, generator: np.random.Generator
) -> _Array:
    """Resamples the means of models on a task: the cases together, the seeds of each alone.

    Returns:
        The deviations from the means, of shape [models, resamples].
    """
    deviations = _resample(np.stack([model.by_case for model in models]), resamples, generator)
    for model, row in zip(models, deviations, strict=True):
        variance = model.components.seeds
        if variance:
            by_seed = model.values.mean(axis=1)
            scale = math.sqrt(variance / by_seed.var())
            row += _resample(scale * by_seed[None], resamples, generator)[0]
    return deviations


def _resample(values: _Array, resamples: int, generator: np.random.Generator) -> _Array:
    """Resamples means over units, the same units for all means.

    Args:
        values: The values, of shape [means, units].
        resamples: The number of samples.
        generator: Draws the samples.

    Returns:
        The deviations of the resampled means, of shape [means, resamples].
    """
    n_units = values.shape[1]
    centerd = (values - values.mean(axis=1, keepdims=True)) / n_units
    deviations = np.empty((len(values), resamples))
    step = max(1, _CHUNK_VALUES // n_units)
    for start in range(0, resamples, step):
        n_samples = min(step, resamples - start)
        drawn = generator.integers(n_units, size=(n_samples, n_units))
        drawn += n_units * np.arange(n_samples)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n_samples * n_units)
        deviations[:, start : start + n_samples] = centerd @ counts.reshape(
            n_samples, n_units
        ).T.astype(np.float64)
    return deviations


def _check_models(models: Mapping[str, CaseValues], place: str = "") -> None:
    """Checks that all models have values of the same cases, in the same order."""
    if not models:
        return
    (first, values), *others = models.items()
    for name, other in others:
        who = f"{place}{first} and {name}"
        _check_same_cases(values.cases, other.cases, who)
        if values.cases != other.cases:
            raise ValueError(f"{who} have their cases in different order.")


def _check_same_cases(first: Iterable[str], second: Iterable[str], who: str) -> None:
    """Checks that two sets of cases are the same."""
    different = sorted(set(first) ^ set(second))
    if different:
        raise ValueError(
            f"{who} do not have values of the same cases: only one of them has "
            f"{_names(different)}. Use the cases that both have."
        )


def _names(cases: Sequence[str]) -> str:
    """Lists case ids, the first few of many."""
    shown = ", ".join(cases[:_SHOWN_CASES])
    return shown if len(cases) <= _SHOWN_CASES else f"{shown} and {len(cases) - _SHOWN_CASES} more"


def _is_missing(value: float | None) -> bool:
    return value is None or math.isnan(value)
