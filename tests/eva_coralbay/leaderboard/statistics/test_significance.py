"""Tests the comparisons of models: against scipy, and by their properties."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eva_coralbay.leaderboard import statistics
from eva_coralbay.results import case_values
from tests.eva_coralbay.leaderboard.statistics import drawn

_P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@given(p_values=_P_VALUES, seed=st.integers(0, 100))
@settings(deadline=None)
def test_holm_is_the_step_down_procedure(p_values: list[float], seed: int) -> None:
    corrected = statistics.holm(p_values)
    order = np.random.default_rng(seed).permutation(len(p_values))
    assert statistics.holm([p_values[index] for index in order]) == pytest.approx(
        [corrected[index] for index in order]
    )
    for level in (0.01, 0.05, 0.5):
        rejected = _step_down(p_values, level)
        assert [value <= level for value in corrected] == rejected
    for p_value, value in zip(p_values, corrected, strict=True):
        assert p_value <= value <= min(1.0, len(p_values) * p_value) + 1e-12


def _step_down(p_values: Sequence[float], level: float) -> list[bool]:
    """Holm's procedure as it is written: stop at the first that is not small enough."""
    rejected = [False] * len(p_values)
    for step, index in enumerate(np.argsort(p_values)):
        if (len(p_values) - step) * p_values[index] > level:
            break
        rejected[index] = True
    return rejected


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([]) == []


@pytest.mark.parametrize("n_cases", [7, 20, 80])
def test_test_is_the_weaker_of_wilcoxons_and_students(n_cases: int) -> None:
    models = drawn.draw(3, n_cases=n_cases, step=0.01)
    compared = statistics.compare(models)

    assert [(each.model_a, each.model_b) for each in compared] == [
        (f"model_{a}", f"model_{b}") for a in range(4) for b in range(a + 1, 4)
    ]
    for each in compared:
        first, second = models[each.model_a].values[0], models[each.model_b].values[0]
        p_values = stats.wilcoxon(first, second).pvalue, stats.ttest_rel(first, second).pvalue
        assert each.p_value == pytest.approx(max(p_values))
        assert each.difference.value == pytest.approx(first.mean() - second.mean())
        assert each.n_cases == n_cases
    corrected = [each.corrected_p_value for each in compared]
    assert corrected == statistics.holm([each.p_value for each in compared])
    assert [each.reason is None for each in compared] == [value <= 0.05 for value in corrected]


def test_interval_of_a_difference_is_that_of_the_t_test() -> None:
    first, second = drawn.draw(4, n_models=2, n_cases=15, step=0.1).values()
    (compared,) = statistics.compare({"a": first, "b": second})
    expected = stats.ttest_rel(first.by_case, second.by_case).confidence_interval(0.95)
    assert compared.p_value < 0.05
    assert (compared.difference.low, compared.difference.high) == pytest.approx(expected)


@given(
    seed=st.integers(0, 10**6),
    n_cases=st.integers(2, 40),
    n_seeds=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    step=st.sampled_from([0.0, 0.005, 0.01, 0.02, 0.05]),
    digits=st.sampled_from([1, 2, 12]),
)
@settings(deadline=None, max_examples=200)
def test_interval_and_p_value_never_disagree(
    seed: int, n_cases: int, n_seeds: tuple[int, int], step: float, digits: int
) -> None:
    """The interval leaves 0 out exactly if the test is significant, with ties and few seeds too."""
    generator = np.random.default_rng(seed)
    difficulty = generator.beta(9, 1.5, n_cases)
    models = {
        name: drawn.make_values(
            np.round(
                difficulty
                + shift
                + generator.normal(0, 0.02, (n, n_cases))
                + generator.normal(0, 0.01, (n, 1)),
                digits,
            )
        )
        for name, n, shift in zip("ab", n_seeds, (0.0, step), strict=True)
    }
    (compared,) = statistics.compare(models)
    difference = compared.difference
    assert difference.low <= difference.value <= difference.high
    assert (difference.low <= 0 <= difference.high) == (compared.p_value > 0.05)


@given(seed=st.integers(0, 1000), n_seeds=st.integers(1, 3))
@settings(deadline=None, max_examples=20)
def test_a_comparison_the_other_way_round_is_its_mirror(seed: int, n_seeds: int) -> None:
    first, second = drawn.draw(seed, n_models=2, n_seeds=n_seeds, step=0.02).values()
    (there,) = statistics.compare({"a": first, "b": second})
    (back,) = statistics.compare({"b": second, "a": first})
    assert back.p_value == pytest.approx(there.p_value)
    assert back.difference.value == pytest.approx(-there.difference.value)
    assert back.difference.low == pytest.approx(-there.difference.high)


def test_equal_models_are_not_separable() -> None:
    values = drawn.draw(0)["model_0"]
    (compared,) = statistics.compare({"a": values, "b": values})
    assert (compared.p_value, compared.difference) == (1.0, statistics.Estimate(0, 0, 0))
    assert compared.reason == "not separable: p = 1, 20 cases"


def test_rounding_errors_are_no_difference() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.7, 0.9, 0.4, 0.6])
    (compared,) = statistics.compare(
        {"a": drawn.make_values(values + 0.1 + 0.2), "b": drawn.make_values(values + 0.3)}
    )
    assert compared.p_value == 1.0


@pytest.mark.parametrize(("n_cases", "is_separable"), [(5, False), (6, True)])
def test_few_cases_cannot_be_significant(n_cases: int, is_separable: bool) -> None:
    models = drawn.draw(0, n_models=2, n_cases=n_cases, step=0.5)
    (compared,) = statistics.compare(models)
    assert (compared.reason is None) == is_separable
    assert is_separable or "with 5 cases, no p-value can be below 0.062" in str(compared.reason)
    many = statistics.compare(drawn.draw(0, n_models=4, n_cases=n_cases, step=0.5))
    assert all("6 comparisons, no corrected p-value" in str(each.reason) for each in many)


def test_a_difference_within_the_variation_of_the_seeds_is_none() -> None:
    models = drawn.draw(0, n_models=2, n_seeds=3, step=0.03)
    (compared,) = statistics.compare(models)
    shifts = np.array([[-0.1], [0.0], [0.1]])
    (shifted,) = statistics.compare(
        {name: drawn.make_values(each.values + shifts) for name, each in models.items()}
    )
    assert compared.reason is None and compared.n_seeds == (3, 3)
    assert shifted.difference.value == pytest.approx(compared.difference.value)
    assert shifted.reason is not None and shifted.p_value > 0.05


def test_two_seeds_have_to_differ_by_welchs_test() -> None:
    """It is the largest of the p-values where there are few seeds."""
    generator = np.random.default_rng(0)
    difficulty = generator.beta(9, 1.5, 30)
    models = {
        name: drawn.make_values(
            difficulty - step + generator.normal(0, 0.06, 30) + generator.normal(0, 0.01, (2, 1))
        )
        for name, step in (("a", 0.0), ("b", 0.1))
    }
    (compared,) = statistics.compare(models)
    means = [each.values.mean(axis=1) for each in models.values()]
    assert compared.p_value == pytest.approx(stats.ttest_ind(*means, equal_var=False).pvalue)
    by_case = [each.by_case for each in models.values()]
    assert compared.p_value > 100 * stats.wilcoxon(*by_case).pvalue


def test_many_seeds_do_not_make_up_for_few_cases() -> None:
    """The variances of cases and of seeds add up."""
    generator = np.random.default_rng(1)
    models = {
        name: drawn.make_values(
            step + generator.normal(0, 0.05, (1, 12)) + generator.normal(0, 0.03, (10, 1))
        )
        for name, step in (("a", 0.0), ("b", 0.04))
    }
    (compared,) = statistics.compare(models)
    first, second = models.values()
    means = [each.values.mean(axis=1) for each in (first, second)]
    assert compared.p_value > stats.ttest_ind(*means, equal_var=False).pvalue
    assert compared.p_value > stats.wilcoxon(first.by_case, second.by_case).pvalue


def test_comparisons_of_a_family_are_corrected_together() -> None:
    single = [
        statistics.compare({"a": first, "b": second})[0]
        for first, second in zip(drawn.draw(1).values(), drawn.draw(2).values(), strict=True)
    ]
    corrected = statistics.correct(single)
    assert [each.corrected_p_value for each in corrected] == statistics.holm(
        [each.p_value for each in single]
    )
    assert statistics.correct(corrected) == corrected
    assert "after correction for 4 comparisons" in str(corrected[-1].reason)


def test_models_of_different_cases_are_not_compared() -> None:
    values = np.zeros((1, 3))
    models = {
        "a": case_values.CaseValues(("x", "y", "z"), values),
        "b": case_values.CaseValues(("x", "y", "w"), values),
    }
    with pytest.raises(ValueError, match="a and b do not have values of the same cases.* w, z"):
        statistics.compare(models)
    with pytest.raises(ValueError, match="some task: a and b do not have"):
        statistics.rank({"some task": models})
    models["b"] = case_values.CaseValues(("z", "y", "x"), values)
    with pytest.raises(ValueError, match="have their cases in different order"):
        statistics.compare(models)
