"""Tests of the figures."""

import pathlib
from xml.etree import ElementTree

import pytest

from eva_coralbay.leaderboard import statistics
from eva_coralbay.leaderboard.page import board, figures, gathering, label_curves
from eva_coralbay.results import folder as results_folder
from tests.eva_coralbay.leaderboard.page import generated


def _track(root: pathlib.Path) -> board.Track:
    for model in ("radiology/coralbay", "radiology/voco_b"):
        generated.write_run(root, model=model, task="btcv")
    return gathering.gather(results_folder.find(root), {}, [], root).tracks[0]


def test_the_strip_plot_has_a_dot_for_each_case(tmp_path: pathlib.Path) -> None:
    track = _track(tmp_path)
    models = track.models(track.columns[0])
    root = ElementTree.fromstring(figures.strip_plot(models, "dice"))
    texts = [text.text for text in root.iter("text")]
    assert {"radiology/coralbay", "radiology/voco_b"} <= set(texts)
    dots = [path.attrib["d"] for path in root.iter("path") if path.get("class") == "dots"]
    assert [path.count("M") for path in dots] == [9, 9]
    assert "of each of 9 cases" in root.findtext("title", "")


def test_dots_lie_at_their_values(tmp_path: pathlib.Path) -> None:
    track = _track(tmp_path)
    models = track.models(track.columns[0])
    root = ElementTree.fromstring(figures.strip_plot(models, "dice"))
    ticks = [text for text in root.iter("text") if text.get("class") == "tick"]
    (x_0, low), (x_1, high) = [(float(t.attrib["x"]), float(t.text)) for t in (ticks[0], ticks[-1])]
    path = next(path for path in root.iter("path") if path.get("class") == "dots")
    first = [float(part.split()[0]) for part in path.attrib["d"].split("M")[1:]]
    drawn = [low + (x - x_0) * (high - low) / (x_1 - x_0) for x in first]
    expected = sorted(models["radiology/coralbay"].cases.by_case)
    assert drawn == pytest.approx(expected, abs=1e-3)


def test_many_cases_are_thinned(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their quantiles stand for them, the lowest and the highest among them."""
    track = _track(tmp_path)
    models = track.models(track.columns[0])
    all_dots = figures.strip_plot(models, "dice")
    monkeypatch.setattr(figures, "MAX_DOTS", 8)
    few_dots = figures.strip_plot(models, "dice")
    assert (all_dots.count("h0"), few_dots.count("h0")) == (18, 8)
    assert _ends(few_dots) == _ends(all_dots)


def _ends(svg: str) -> list[tuple[str, str]]:
    """Returns the x of the first and the last dot of each model."""
    paths = ElementTree.fromstring(svg).iter("path")
    dots = [path.attrib["d"].split("M")[1:] for path in paths if path.get("class") == "dots"]
    return [(of_model[0].split()[0], of_model[-1].split()[0]) for of_model in dots]


def test_the_rank_plot_has_every_ranked_model(tmp_path: pathlib.Path) -> None:
    track = _track(tmp_path)
    root = ElementTree.fromstring(figures.rank_plot(track.rows))
    assert len(list(root.iter("circle"))) == 2
    assert figures.rank_plot([]) == ""


def test_models_of_one_organization_are_told_apart_beside_a_plot() -> None:
    names = ["organization/long_name_of_a_model_12", "organization/long_name_of_a_model_24"]
    points = {n: statistics.Estimate(0.5, 0.4, 0.6) for n in (1, 2)}
    curves = [label_curves.Curve(name, points) for name in names]
    root = ElementTree.fromstring(figures.curve_plot(curves, "own", "cases"))
    texts = {text.text for text in root.iter("text")}
    assert {"long_name_of_a_model_12", "long_name_of_a_model_24"} <= texts


def test_nothing_is_drawn_of_nothing() -> None:
    assert figures.strip_plot({}, "dice") == ""
