"""Tests of the values by case."""

import math
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from eva_coralbay.results import case_table, case_values
from tests.eva_coralbay.leaderboard import result_files

_Array = npt.NDArray[np.float64]


def _case_values(values: Any) -> case_values.CaseValues:
    """Makes values of shape [cases] or [seeds, cases]."""
    values = np.atleast_2d(np.asarray(values, dtype=np.float64))
    return case_values.CaseValues(_cases(values.shape[1]), values)


def _cases(n: int) -> tuple[str, ...]:
    return tuple(f"case_{index:03d}" for index in range(n))


def test_a_case_without_a_value_in_one_run_is_excluded_from_all() -> None:
    runs = [
        {"c": 0.1, "a": 0.2, "b": None, "d": 0.5},
        {"a": 0.4, "b": 0.3, "c": math.nan, "d": 0.7},
    ]
    values = case_values.CaseValues.from_runs(runs)
    assert (values.cases, values.excluded) == (("a", "d"), ("b", "c"))
    assert values.values.tolist() == [[0.2, 0.5], [0.4, 0.7]]
    assert values.by_case == pytest.approx([0.3, 0.6])


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([{"a": 0.1, "b": 0.2}, {"a": 0.1, "c": 0.2}], "Two seeds do not have .* has b, c"),
        ([{"a": 0.1, "b": math.inf, "c": 0.2}], "values of the cases b are not finite"),
        ([{"a": 0.1, "b": None}], r"1 seeds and 1 cases .*\(1 cases are excluded\)"),
        ([], "0 seeds and 0 cases"),
    ],
)
def test_runs_that_cannot_be_gathered(runs: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        case_values.CaseValues.from_runs(runs)


def test_values_of_a_wrong_shape_or_of_a_case_twice() -> None:
    with pytest.raises(ValueError, match=r"for 3 cases, got \[1, 2\]"):
        case_values.CaseValues(_cases(3), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="A case id appears twice"):
        case_values.CaseValues(("a", "a"), np.zeros((1, 2)))


def test_models_are_restricted_to_the_cases_that_all_have() -> None:
    restricted = case_values.restrict_to_common_cases(
        {
            "a": case_values.CaseValues(("1", "2", "3"), np.array([[1.0, 2.0, 3.0]]), ("4",)),
            "b": case_values.CaseValues(("2", "3", "4"), np.array([[4.0, 5.0, 6.0]]), ("1",)),
        }
    )
    assert restricted["a"].cases == restricted["b"].cases == ("2", "3")
    assert restricted["a"].values.tolist() == [[2.0, 3.0]]
    assert restricted["a"].excluded == restricted["b"].excluded == ("1", "4")
    with pytest.raises(ValueError, match="1 cases have values"):
        case_values.restrict_to_common_cases(
            {"a": restricted["a"], "b": case_values.CaseValues(("3", "5"), np.zeros((1, 2)))}
        )


def test_components_of_one_seed_are_the_variance_between_cases() -> None:
    values = np.random.default_rng(0).normal(size=9)
    assert _case_values(values).components == case_values.Components(
        pytest.approx(values.var(ddof=1)), None, None
    )


def test_components_are_found_again() -> None:
    generator = np.random.default_rng(1)
    values = (
        generator.normal(0, 3.0, (1, 400))
        + generator.normal(0, 2.0, (300, 1))
        + generator.normal(0, 1.0, (300, 400))
    )
    components = _case_values(values).components
    assert components.cases == pytest.approx(9.0, rel=0.2)
    assert components.seeds == pytest.approx(4.0, rel=0.2)
    assert components.residual == pytest.approx(1.0, rel=0.02)


def test_components_are_those_of_the_analysis_of_variance() -> None:
    values = np.array([[1.0, 2.0, 6.0], [2.0, 4.0, 9.0]])
    # sums of squares by hand: cases 38 1/3, seeds 6, residual 1, of 2, 1 and 2 degrees of freedom
    components = _case_values(values).components
    between_cases = 2 * ((values.mean(axis=0) - 4) ** 2).sum() / 2
    assert components.residual == pytest.approx(0.5)
    assert components.seeds == pytest.approx((6 - 0.5) / 3)
    assert components.cases == pytest.approx((between_cases - 0.5) / 2)


def test_values_by_case_of_a_segmentation(tmp_path: pathlib.Path) -> None:
    """Their mean is the record's metric; a case without a value is excluded."""
    entries = [result_files.write(tmp_path, seed=seed) for seed in (0, 1)]
    values = case_values.gather(entries, "dice")
    assert values.values.shape == (2, 9) and not values.excluded
    assert values.values.mean(axis=1) == pytest.approx(
        [entry.record.metrics["dice"] for entry in entries], abs=1e-12
    )

    organ = case_values.gather(entries, "dice", "spleen")
    assert organ.excluded == (entries[0].rows[0].case,)
    assert organ.values[0].mean() == pytest.approx(entries[0].record.metrics["dice_spleen"])
    with pytest.raises(ValueError, match="no values by case of 'nsd'"):
        case_values.gather(entries, "nsd")
    with pytest.raises(ValueError, match="no values by case of 'dice' of the class 'tail'"):
        case_values.gather(entries, "dice", "tail")


def test_higher_is_better(tmp_path: pathlib.Path) -> None:
    """Distances are negated."""
    rows = [
        case_table.CaseRow(f"case_{index}", name, "hd95", 2.0 + index, 5, 5)
        for index in range(4)
        for name in ("lung", "liver")
    ]
    entry = result_files.write(tmp_path, task="mine", rows=rows)
    assert case_values.gather([entry], "hd95").values.tolist() == [[-2.0, -3.0, -4.0, -5.0]]


def test_values_by_patient_of_a_classification(tmp_path: pathlib.Path) -> None:
    """Their mean is the balanced accuracy; of one class it is the recall."""
    generator = np.random.default_rng(1)
    rows = []
    for index in range(40):
        truth, patient = int(index % 4 == 0), f"p{index // 8 * 4 + index % 4}"
        first = float(generator.random())
        for label, value in enumerate((first, 1 - first)):
            name = ("benign", "malignant")[label]
            row = (f"c{index}", name, "probability", value, int(label == truth), patient)
            rows.append(case_table.PredictionRow(*row))
    entry = result_files.write(tmp_path, task="mine", rows=rows)
    values = case_values.gather([entry], "balanced_accuracy")
    assert len(values.cases) == 20
    assert values.values.mean() == pytest.approx(entry.record.metrics["balanced_accuracy"])
    recalls = [
        case_values.gather([entry], "balanced_accuracy", name).values
        for name in ("benign", "malignant")
    ]
    assert [recall.shape for recall in recalls] == [(1, 15), (1, 5)]
    assert np.mean([recall.mean() for recall in recalls]) == pytest.approx(values.values.mean())
    with pytest.raises(ValueError, match="no values by case of 'auroc'"):
        case_values.gather([entry], "auroc")
