"""Tests the comparison of two models, its table and its plot."""

import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from eva_coralbay.cli import main
from eva_coralbay.leaderboard import comparison, comparison_plot, statistics
from eva_coralbay.results import case_table
from eva_coralbay.results import folder as results_folder
from tests.eva_coralbay.leaderboard import result_files

_CLASSES = ("liver", "spleen", "pancreas <b>")
_SVG = "{http://www.w3.org/2000/svg}"


def _write(
    root: pathlib.Path, model: str, values: Any, *, cases: Sequence[str] = (), **kwargs: Any
) -> results_folder.Entry:
    """Writes a result with values [cases, classes], of which those that are NaN are excluded."""
    values = np.asarray(values)
    rows = [
        case_table.CaseRow(case, name, "dice", None if np.isnan(value) else float(value), 9, 9)
        for case, row in zip(cases or _cases(len(values)), values, strict=True)
        for name, value in zip(_CLASSES, row, strict=True)
    ]
    return result_files.write(root, model=model, task="own", rows=rows, **kwargs)


def _cases(n: int) -> list[str]:
    return [f"case_{index:02d}" for index in range(n)]


def _compare(root: pathlib.Path, *models: str, **kwargs: Any) -> comparison.Pair:
    first, second = models or ("lab/a", "lab/b")
    return comparison.compare(
        results_folder.find(root), first, second, **{"task": "own", "protocol": "frozen", **kwargs}
    )


def _values(n_cases: int, shift: float = 0.0) -> np.ndarray:
    """Draws values of a model that is better by `shift`."""
    generator = np.random.default_rng(0)
    difficulty = generator.uniform(0.3, 0.8, (n_cases, len(_CLASSES)))
    noise = np.random.default_rng([1, int(1000 * shift)]).normal(0, 0.02, difficulty.shape)
    return difficulty + noise + shift


def _p_value(first: Any, second: Any) -> float:
    return max(stats.wilcoxon(first, second).pvalue, stats.ttest_rel(first, second).pvalue)


@pytest.fixture(name="apart")
def _apart(tmp_path: pathlib.Path) -> comparison.Pair:
    """Two models that are apart by 0.1 in 20 cases."""
    _write(tmp_path, "lab/a", _values(20))
    _write(tmp_path, "lab/b", _values(20, 0.1))
    return _compare(tmp_path)


def test_numbers_are_those_of_the_paired_cases(apart: comparison.Pair) -> None:
    first, second = _values(20).mean(axis=1), _values(20, 0.1).mean(axis=1)
    total = apart.total.comparison

    assert total.difference.value == pytest.approx((first - second).mean())
    assert total.difference.low < (first - second).mean() < total.difference.high < 0
    assert total.p_value == pytest.approx(_p_value(first, second))
    assert (total.n_cases, total.n_seeds) == (20, (1, 1))
    assert (apart.task, apart.metric) == ("own@1", "dice")


def test_classes_are_corrected_for_their_number(tmp_path: pathlib.Path) -> None:
    first, second = _values(20), _values(20)
    second += np.random.default_rng(3).normal([0.02, 0.01, 0], 0.02, second.shape)
    _write(tmp_path, "lab/a", first)
    _write(tmp_path, "lab/b", second)
    pair = _compare(tmp_path)

    p_values = [_p_value(*np.round([a, b], 12)) for a, b in zip(first.T, second.T, strict=True)]
    assert [row.name for row in pair.classes] == list(_CLASSES)
    assert [row.comparison.p_value for row in pair.classes] == pytest.approx(p_values)
    corrected = [row.comparison.corrected_p_value for row in pair.classes]
    assert min(corrected) == pytest.approx(3 * min(p_values))
    assert max(corrected) == pytest.approx(max(p_values))
    assert pair.total.comparison.corrected_p_value == pair.total.comparison.p_value


def test_the_verdict_names_the_better_model(apart: comparison.Pair, tmp_path: pathlib.Path) -> None:
    assert apart.verdict.startswith("lab/b is ahead of lab/a by 0.1")
    assert apart.verdict.endswith(", 20 cases.")
    assert _compare(tmp_path, "lab/b", "lab/a").verdict == apart.verdict


def test_few_cases_are_never_separable(tmp_path: pathlib.Path) -> None:
    _write(tmp_path, "lab/a", _values(5))
    _write(tmp_path, "lab/b", _values(5, 0.2))
    pair = _compare(tmp_path)
    expected = "lab/a and lab/b are not separable: with 5 cases, no p-value can be below 0.062."
    assert pair.verdict == expected
    reason = pair.classes[0].comparison.reason
    assert reason and "with 5 cases and 3 comparisons, no corrected p-value" in reason


def test_no_difference_is_not_separable(tmp_path: pathlib.Path) -> None:
    _write(tmp_path, "lab/a", _values(9))
    _write(tmp_path, "lab/b", _values(9))
    pair = _compare(tmp_path)
    assert pair.verdict == "lab/a and lab/b are not separable: p = 1, 9 cases."
    assert pair.total.comparison.difference == statistics.Estimate(0, 0, 0)
    assert "NaN" not in comparison_plot.draw(pair)


def test_a_difference_that_one_case_makes_up_for_is_none(tmp_path: pathlib.Path) -> None:
    """Wilcoxon's test alone would call it significant."""
    first = _values(20)
    second = first + np.random.default_rng(4).uniform(0.01, 0.02, (20, 1))
    second[0] -= 0.25
    _write(tmp_path, "lab/a", first)
    _write(tmp_path, "lab/b", second)
    assert stats.wilcoxon(first.mean(axis=1), second.mean(axis=1)).pvalue < 0.05
    assert "are not separable: p = 0." in _compare(tmp_path).verdict


def test_only_cases_that_both_have_are_compared(tmp_path: pathlib.Path) -> None:
    first, second = _values(8), _values(8, 0.1)
    first[:3, 1] = np.nan
    second[2:4, 1] = np.nan
    first[1:, 2] = np.nan
    _write(tmp_path, "lab/a", first)
    _write(tmp_path, "lab/b", second)
    pair = _compare(tmp_path)

    liver, spleen = pair.classes
    assert (liver.comparison.n_cases, spleen.comparison.n_cases) == (8, 4)
    assert spleen.values[0].cases == spleen.values[1].cases == tuple(_cases(8)[4:])
    assert spleen.comparison.difference.value == pytest.approx((first - second)[4:, 1].mean())
    assert spleen.values[0].excluded == tuple(_cases(4))
    assert list(pair.left_out) == ["pancreas <b>"]
    assert pair.total.comparison.n_cases == 8


def test_seeds_are_averaged(tmp_path: pathlib.Path) -> None:
    for seed in (0, 1, 2):
        _write(tmp_path, "lab/a", _values(8) + 0.01 * seed, seed=seed)
    _write(tmp_path, "lab/b", _values(8))
    pair = _compare(tmp_path)
    assert pair.total.comparison.n_seeds == (3, 1)
    assert pair.total.comparison.difference.value == pytest.approx(0.01)


def test_what_is_not_there_is_said(apart: comparison.Pair, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"no result of 'lab/x' on 'own'.*results of lab/a, lab/b"):
        _compare(tmp_path, "lab/x", "lab/a")
    with pytest.raises(ValueError, match="by the protocol 'scratch'.*by others: frozen"):
        _compare(tmp_path, protocol="scratch")


def test_a_revision_is_named_where_there_are_several(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "results"
    _write(root, "lab/a", _values(8))
    for revision, shift in (("v1", 0.1), ("v2", 0.2)):
        _write_revision(root, revision, _write(tmp_path / revision, "lab/a", _values(8, shift)))

    with pytest.raises(ValueError, match="lab/a@unversioned on own@1, lab/a@v1 on own@1, lab/a@v2"):
        _compare(root, "lab/a", "lab/a@v1")
    pair = _compare(root, "lab/a@v1", "lab/a@v2", task="own@1")
    assert pair.total.comparison.difference.value == pytest.approx(-0.1, abs=0.02)


def _write_revision(root: pathlib.Path, revision: str, entry: results_folder.Entry) -> None:
    """Writes a result as one of a revision of its model."""
    model = entry.record.model.model_copy(update={"revision": revision})
    changed = entry.record.model_copy(update={"model": model})
    path = root / results_folder.relative_path(changed)
    changed.write(path)
    shutil.copy(entry.cases_path, path.parent)


def test_results_of_different_kinds_or_cases_are_not_compared(tmp_path: pathlib.Path) -> None:
    _write(tmp_path, "lab/a", _values(8))
    _write(tmp_path, "lab/b", _values(8), kind="demo")
    with pytest.raises(ValueError, match="the kind of the result differs: measured, demo"):
        _compare(tmp_path)
    split = {"name": "fold_1", "part": "test", "n": 4, "ids_sha256": "0" * 64}
    _write(tmp_path, "lab/c", _values(8), split=split)
    with pytest.raises(ValueError, match="the split differs"):
        _compare(tmp_path, "lab/a", "lab/c")


def test_command_prints_and_draws(
    apart: comparison.Pair, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plots/cases.svg"
    arguments = ["leaderboard", "compare", "lab/a", "lab/b", "--task=own", f"--results={tmp_path}"]
    assert main.main([*arguments, f"--out={plot}"]) == 0
    output = capsys.readouterr().out
    assert output.endswith(f"{apart.verdict}\n")
    assert all(name in output for name in ("all classes", *_CLASSES))
    difference = apart.classes[0].comparison.difference
    assert f"{difference.value:+.3f}" in output
    assert f"[{difference.low:+.3f}, {difference.high:+.3f}]" in output
    assert plot.read_text(encoding="utf-8") == comparison_plot.draw(apart)

    assert main.main([*arguments, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads(json.dumps(apart.as_dict()))
    assert content["rows"][0]["mean_a"] == pytest.approx(_values(20).mean())
    assert content["rows"][1]["difference"]["value"] < 0


def test_plot_shows_every_case_as_text_that_can_be_read(apart: comparison.Pair) -> None:
    content = comparison_plot.draw(apart)
    svg = ElementTree.fromstring(content)

    dots = [circle for circle in svg.iter(f"{_SVG}circle") if circle.get("class") == "case"]
    assert len(dots) == 20 * (2 + 1 + len(_CLASSES))
    assert {title.text.split(":")[0] for dot in dots for title in dot if title.text} == set(
        _cases(20)
    )
    texts = [element.text for element in svg.iter(f"{_SVG}text")]
    assert {"A: lab/a", "B: lab/b", "pancreas <b> (20)", apart.verdict} <= set(texts)
    assert svg.find(f"{_SVG}title") is not None and "prefers-color-scheme: dark" in content
    assert comparison_plot.draw(apart) == content


def test_positions_in_the_plot_are_those_of_the_values(apart: comparison.Pair) -> None:
    svg = ElementTree.fromstring(comparison_plot.draw(apart))
    _, _, width, height = map(float, str(svg.get("viewBox")).split())
    shown = {
        str(title.text): float(str(circle.get("cx")))
        for circle in svg.iter(f"{_SVG}circle")
        for title in circle
        if "+" not in str(title.text) and "-" not in str(title.text)
    }
    values = np.array([float(title.split(": ")[1]) for title in shown])
    places = np.array(list(shown.values()))
    slope, offset = np.polyfit(values, places, 1)
    assert slope > 0 and np.abs(slope * values + offset - places).max() < 1
    assert all(0 < float(str(text.get("x"))) < width for text in svg.iter(f"{_SVG}text"))
    assert all(0 < float(str(text.get("y"))) < height for text in svg.iter(f"{_SVG}text"))
