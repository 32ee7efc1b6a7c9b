"""Tests the ranking by its properties."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eva_coralbay.leaderboard import statistics
from tests.eva_coralbay.leaderboard.statistics import drawn


@given(
    seed=st.integers(0, 1000),
    n_models=st.integers(2, 6),
    n_tasks=st.integers(1, 4),
    n_seeds=st.integers(1, 2),
    step=st.sampled_from([0.0, 0.01, 0.1]),
)
@settings(deadline=None, max_examples=25)
def test_ranking_keeps_its_rules(
    seed: int, n_models: int, n_tasks: int, n_seeds: int, step: float
) -> None:
    tasks = {
        f"task_{index}": drawn.draw(seed + index, n_models=n_models, n_seeds=n_seeds, step=step)
        for index in range(n_tasks)
    }
    ranking = statistics.rank(tasks, resamples=100)

    models = ranking.models
    means = np.array([[each.values.mean() for each in task.values()] for task in tasks.values()])
    expected = stats.rankdata(-means, axis=1).mean(axis=0)
    for model in models:
        index = int(model.model.removeprefix("model_"))
        assert model.mean_rank.value == pytest.approx(expected[index])
        assert model.mean.value == pytest.approx(means[:, index].mean())
        assert model.rank_interval[0] <= model.rank <= model.rank_interval[1]
        for estimate in (model.mean_rank, model.win_rate, model.mean):
            assert estimate.low - 1e-9 <= estimate.value <= estimate.high + 1e-9
        assert model.mean_rank.low >= 1 and model.mean_rank.high <= n_models
        assert 0 <= model.win_rate.value <= 1
    assert [model.rank for model in models] == stats.rankdata(
        [model.mean_rank.value for model in models], method="min"
    ).tolist()
    assert np.mean([model.win_rate.value for model in models]) == pytest.approx(0.5)
    groups = [model.tie_group for model in models]
    assert groups[0] == 1 and set(np.diff(groups)) <= {0, 1}


def test_models_far_apart_have_one_rank_each() -> None:
    ranking = statistics.rank({name: drawn.draw(seed, step=0.2) for seed, name in enumerate("xyz")})
    assert [model.model for model in ranking.models] == [f"model_{index}" for index in range(4)]
    assert [model.rank_interval for model in ranking.models] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert [model.tie_group for model in ranking.models] == [1, 2, 3, 4]
    assert ranking.agreement == {"win_rate": pytest.approx(1), "mean": pytest.approx(1)}
    assert ranking.n_cases == {"x": 20, "y": 20, "z": 20}
    assert ranking.models[0].mean_rank == statistics.Estimate(1, 1, 1)


def test_equal_models_share_rank_and_tie_group() -> None:
    values = drawn.draw(0)["model_0"]
    ranking = statistics.rank({"x": {"a": values, "b": values, "c": values}})
    assert [model.rank for model in ranking.models] == [1, 1, 1]
    assert [model.rank_interval for model in ranking.models] == [(1, 3)] * 3
    assert [model.tie_group for model in ranking.models] == [1, 1, 1]
    assert [model.mean_rank.value for model in ranking.models] == [2, 2, 2]
    assert [model.win_rate.value for model in ranking.models] == pytest.approx([0.5] * 3)
    assert ranking.agreement == {"win_rate": None, "mean": None}


def test_a_tie_group_ends_at_the_first_that_its_best_is_separated_from() -> None:
    generator = np.random.default_rng(0)
    difficulty = generator.beta(9, 1.5, 40)
    steps = {"a": 0.0, "b": 0.002, "c": 0.05, "d": 0.051}
    models = {
        name: drawn.make_values(difficulty - step + generator.normal(0, 0.01, 40))
        for name, step in steps.items()
    }
    ranking = statistics.rank({"x": models})
    intervals = {model.model: model.rank_interval for model in ranking.models}
    assert intervals == {"a": (1, 2), "b": (1, 2), "c": (3, 4), "d": (3, 4)}
    assert {model.model: model.tie_group for model in ranking.models} == {
        "a": 1,
        "b": 1,
        "c": 2,
        "d": 2,
    }


def test_only_complete_rows_are_ranked() -> None:
    tasks = {"x": drawn.draw(0), "y": drawn.draw(1)}
    complete = statistics.rank(tasks, resamples=drawn.RESAMPLES)
    tasks["x"]["part"] = drawn.draw(2)["model_0"]
    ranking = statistics.rank(tasks, resamples=drawn.RESAMPLES)
    assert ranking.unranked == {"part": ("y",)}
    assert ranking.models == complete.models


def test_a_model_alone_is_not_ranked() -> None:
    assert statistics.rank({}).models == ()
    ranking = statistics.rank({"x": {"a": drawn.draw(0)["model_0"]}})
    assert (ranking.models, ranking.unranked) == ((), {"a": ()})
    assert ranking.agreement == {"win_rate": None, "mean": None}


def test_agreement_is_kendalls_tau() -> None:
    tasks = {name: drawn.draw(seed, n_models=6) for seed, name in enumerate("xyz")}
    ranking = statistics.rank(tasks, resamples=drawn.RESAMPLES)
    ranks = [-model.mean_rank.value for model in ranking.models]
    for name in ("win_rate", "mean"):
        values = [getattr(model, name).value for model in ranking.models]
        expected: Any = stats.kendalltau(ranks, values)
        assert ranking.agreement[name] == pytest.approx(expected.statistic)


def test_a_task_with_wide_values_weighs_as_much_as_any_other() -> None:
    better = np.linspace(0.5, 0.9, 12)
    steps = 0.1 + 0.001 * np.arange(12)
    tasks = {
        f"narrow_{index}": {"a": drawn.make_values(better), "b": drawn.make_values(better - steps)}
        for index in range(4)
    }
    tasks["wide"] = {"a": drawn.make_values(better), "b": drawn.make_values(better + 1000 * steps)}
    first, second = statistics.rank(tasks, resamples=drawn.RESAMPLES).models
    assert (first.model, first.rank_interval, second.rank_interval) == ("a", (1, 1), (2, 2))
    assert (first.mean_rank.value, first.win_rate.value) == pytest.approx((1.2, 0.8))
