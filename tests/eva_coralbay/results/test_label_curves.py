"""Label-efficiency curves: their tables, intervals and areas."""

import math
import pathlib

import pytest

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.results import label_curves

POINTS = [
    label_curves.Point(f"case_{case}", size, draw, 0.1 * size + 0.02 * case + 0.01 * draw)
    for size, draws in ((1, 10), (2, 10), (4, 1))
    for draw in range(draws)
    for case in range(8)
]

METRICS: tuple[label_curves.Metric, ...] = ("dice", "balanced_accuracy")


@pytest.mark.parametrize("metric", METRICS)
def test_a_table_is_read_as_it_was_written(
    tmp_path: pathlib.Path, metric: label_curves.Metric
) -> None:
    curve = label_curves.Curve(metric, POINTS)
    label_curves.write(tmp_path / "curve.csv", curve)

    header = (tmp_path / "curve.csv").read_text().partition("\n")[0]
    assert header == f"case,labeled_cases,draw,{metric}"
    assert label_curves.read(tmp_path / "curve.csv") == curve


_HEADER = "case,labeled_cases,draw,dice\n"
"""The heading of a table."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("case,dice\n", "other.csv is not a curve"),
        ("", "other.csv is not a curve"),
        ("case,labeled_cases,draw,dice\na,1,0,0.5\nb,1\n", "other.csv, line 3: not enough values"),
        ("case,labeled_cases,draw,dice\na,one,0,0.5\n", "other.csv, line 2: invalid literal"),
        (_HEADER, "other.csv is not a curve: it has no row"),
        (f"{_HEADER}a,0,0,0.5\n", "a number of cases is not from 1"),
        (f"{_HEADER}a,{10**400},0,0.5\n", "a number of cases is not from 1"),
        (f"{_HEADER}a,1,0,inf\n", "a score is infinite"),
        (
            _HEADER + "".join(f"a,{n},0,0.5\n" for n in range(1, 200)),
            "more than 100 numbers of cases",
        ),
        (
            _HEADER + "".join(f"c{n},1,{n},0.5\n" for n in range(100_000)),
            "its draws are not of the same cases",
        ),
    ],
)
def test_another_table_is_an_error(tmp_path: pathlib.Path, content: str, message: str) -> None:
    (tmp_path / "other.csv").write_text(content)

    with pytest.raises(EvaCoralbayError, match=message):
        label_curves.read(tmp_path / "other.csv")


def test_the_mean_lies_in_its_interval_which_cases_and_draws_widen() -> None:
    summary = label_curves.summarize(POINTS)

    assert list(summary) == [1, 2, 4]
    assert summary[1].mean == pytest.approx(0.1 + 0.07 + 0.045)
    assert all(one.low < one.mean < one.high for one in summary.values())
    # of one draw, the interval is over the cases alone
    assert summary[4].high - summary[4].low < summary[1].high - summary[1].low


def test_the_area_is_over_the_logarithm_of_the_cases() -> None:
    assert label_curves.area({1: 0.0, 10: 1.0, 100: 1.0}) == pytest.approx(0.75)
    assert label_curves.area({1: math.nan, 10: 1.0}) == 1.0
    assert math.isnan(label_curves.area({1: math.nan}))


@pytest.mark.parametrize(("cases", "classes", "expected"), [(12, 3, 4), (11, 3, 3), (2, 3, 1)])
def test_all_cases_of_a_classification_are_counted_by_class(
    cases: int, classes: int, expected: int
) -> None:
    assert label_curves.cases_per_class(cases, classes) == expected


def test_curves_are_drawn(tmp_path: pathlib.Path) -> None:
    curves = {metric: label_curves.Curve(metric, POINTS) for metric in METRICS}
    label_curves.draw(tmp_path / "curves.png", curves)

    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
