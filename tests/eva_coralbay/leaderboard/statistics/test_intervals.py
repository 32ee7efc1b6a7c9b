"""Tests the intervals: against scipy, and by their properties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eva_coralbay.leaderboard import statistics
from eva_coralbay.leaderboard.statistics import resampling
from tests.eva_coralbay.leaderboard.statistics import drawn


@pytest.mark.parametrize("n_cases", [8, 12, 30, 400])
def test_interval_is_that_of_scipy_at_the_expanded_level(n_cases: int) -> None:
    values = np.random.default_rng(n_cases).beta(9, 1.5, n_cases)
    quantile = math.sqrt(n_cases / (n_cases - 1)) * stats.t.ppf(0.975, n_cases - 1)
    expected = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        confidence_level=1 - 2 * stats.norm.sf(quantile),
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    estimate = statistics.mean(drawn.make_values(values), resamples=20_000).mean

    assert estimate.value == pytest.approx(values.mean(), abs=1e-15)
    width = expected.high - expected.low
    assert estimate.low == pytest.approx(expected.low, abs=0.03 * width)
    assert estimate.high == pytest.approx(expected.high, abs=0.03 * width)


@given(
    values=st.lists(st.floats(0, 1, allow_subnormal=False), min_size=2, max_size=15),
    shift=st.floats(-3, 3),
    scale=st.floats(0.1, 10),
)
@settings(deadline=None, max_examples=60)
def test_interval_holds_the_mean_and_moves_with_the_values(
    values: list[float], shift: float, scale: float
) -> None:
    estimate = statistics.mean(drawn.make_values(values), resamples=drawn.RESAMPLES).mean
    assert min(values) - 1e-9 <= estimate.low <= estimate.value + 1e-9
    assert estimate.value - 1e-9 <= estimate.high <= max(values) + 1e-9

    moved = statistics.mean(
        drawn.make_values(np.array(values) * scale + shift), resamples=drawn.RESAMPLES
    ).mean
    if np.ptp(values) > 1e-6:
        bounds = np.array([estimate.low, estimate.value, estimate.high]) * scale + shift
        assert [moved.low, moved.value, moved.high] == pytest.approx(bounds.tolist(), abs=1e-6)


def test_equal_cases_have_no_interval() -> None:
    estimate = statistics.mean(drawn.make_values([0.5] * 8)).mean
    assert estimate == statistics.Estimate(0.5, 0.5, 0.5)


def test_numbers_do_not_depend_on_the_call() -> None:
    values = drawn.draw(0)["model_0"]
    assert statistics.mean(values) == statistics.mean(values)
    assert statistics.mean(values, random_seed=1) != statistics.mean(values)


def test_chunks_do_not_change_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    values = drawn.draw(0)["model_0"]
    whole = statistics.mean(values).mean
    monkeypatch.setattr(resampling, "CHUNK_VALUES", 100)
    chunked = statistics.mean(values).mean
    width = whole.high - whole.low
    assert chunked.low == pytest.approx(whole.low, abs=0.05 * width)
    assert chunked.high == pytest.approx(whole.high, abs=0.05 * width)


def test_seeds_that_differ_widen_the_interval() -> None:
    by_case = drawn.draw(0)["model_0"].values[0]
    same = statistics.mean(drawn.make_values([by_case, by_case, by_case]))
    apart = statistics.mean(drawn.make_values([by_case - 0.1, by_case, by_case + 0.1]))
    one = statistics.mean(drawn.make_values(by_case))

    assert apart.mean.value == pytest.approx(one.mean.value)
    assert apart.mean.high - apart.mean.low > 1.5 * (one.mean.high - one.mean.low)
    assert same.mean.value == pytest.approx(one.mean.value, rel=1e-12)
    assert same.mean.low == pytest.approx(one.mean.low, rel=1e-12)
    assert same.mean.high == pytest.approx(one.mean.high, rel=1e-12)
    assert (apart.n_seeds, apart.n_cases, one.n_seeds) == (3, 20, 1)
    assert apart.components.seeds == pytest.approx(0.01)
