"""The ranking of models over several tasks."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from eva_coralbay.leaderboard.statistics import intervals, resampling, significance, variation
from eva_coralbay.results import case_values

_Array = npt.NDArray[np.float64]


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

    mean_rank: intervals.Estimate
    """The mean over the tasks of the rank by the task's mean value."""

    win_rate: intervals.Estimate
    """The share of won comparisons with another model on a case, each task weighing the same."""

    mean: intervals.Estimate
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


def rank(
    tasks: Mapping[str, Mapping[str, case_values.CaseValues]],
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
    for all pairs, and its direction is that of the mean ranks. The cases of two tasks have to be
    independent: of tasks that share scans, give one. A tie group is the best model without a group
    and those after it, up to the first that is separated from it (comparison with the best: Hsu
    1984, Ann. Statist. 12:1136).

    Args:
        tasks: The values by task and model; on a task, all of the same cases.
        resamples: The number of bootstrap samples.
        random_seed: The seed of the resampling.

    Returns:
        The ranking.

    Raises:
        EvaCoralbayError: If two models have values of different cases of a task, naming the cases.
    """
    for task, models in tasks.items():
        significance.check_models(models, f"{task}: ")
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
    names: list[str], rows: list[list[case_values.CaseValues]], resamples: int, random_seed: int
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
    rows: list[list[case_values.CaseValues]], resamples: int, generator: np.random.Generator
) -> list[tuple[intervals.Estimate, intervals.Estimate, intervals.Estimate]]:
    """Estimates the mean rank, the win rate and the mean over the tasks of each model."""
    n_models, n_tasks = len(rows[0]), len(rows)
    ranks = np.zeros(n_models)
    resampled_ranks = np.zeros((n_models, resamples))
    values, deviations, spread = np.zeros((2, n_models)), np.zeros((2, n_models, resamples)), 0.0
    for row in rows:
        by_case = np.stack([model.by_case for model in row])
        wins = (stats.rankdata(by_case, axis=0) - 1) / (n_models - 1)
        resampled = np.stack(
            [
                resampling.resample(wins, resamples, generator),
                resampling.resample_means(row, resamples, generator),
            ]
        )
        seeds = np.hstack([variation.of_seeds(model) for model in row])
        task_spread = np.hstack([variation.of_cases(wins), variation.of_cases(by_case) + seeds])
        task_values = np.stack([wins.mean(axis=1), by_case.mean(axis=1)])

        ranks += _ranks(task_values[1])
        resampled_ranks += _ranks(task_values[1][:, None] + resampled[1])
        values += task_values
        deviations += resampled
        spread += task_spread

    bounds = np.quantile(resampled_ranks, intervals.LEVELS, axis=1) / n_tasks
    ranks /= n_tasks
    mean_ranks = [
        intervals.Estimate(float(value), float(min(value, low)), float(max(value, high)))
        for value, low, high in zip(ranks, *bounds, strict=True)
    ]
    others = intervals.estimate(
        values.ravel() / n_tasks,
        deviations.reshape(2 * n_models, resamples) / n_tasks,
        spread / n_tasks**variation.SCALING,
    )
    return list(zip(mean_ranks, others[:n_models], others[n_models:], strict=True))


def _find_separated(
    rows: list[list[case_values.CaseValues]], mean_ranks: _Array
) -> npt.NDArray[np.bool_]:
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
    tests = [significance.run_test([(row[a], row[b]) for row in rows]) for a, b in pairs]
    corrected = significance.holm([p_value for p_value, _ in tests])
    for (a, b), (_, direction), p_value in zip(pairs, tests, corrected, strict=True):
        if p_value <= significance.SIGNIFICANCE and direction * (mean_ranks[b] - mean_ranks[a]) > 0:
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
