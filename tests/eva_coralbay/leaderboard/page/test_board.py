"""Tests of what the page shows."""

import hashlib
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from eva_coralbay.leaderboard import cards as model_cards
from eva_coralbay.leaderboard.page import board, gathering
from eva_coralbay.results import folder as results_folder
from tests.eva_coralbay.leaderboard.page import generated

_CARDS = model_cards.find(pathlib.Path(__file__).parents[4] / "leaderboard" / "models")


def _gather(root: pathlib.Path) -> board.Board:
    return gathering.gather(results_folder.find(root), _CARDS, [], root)


def _change(path: pathlib.Path, edit: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> board.Board:
    """Four models on two tasks, of which one lacks a task; another protocol; demonstrations."""
    root = tmp_path_factory.mktemp("results")
    models = ["radiology/coralbay", "radiology/voco_b", "radiology/coralbay_random"]
    generated.write_results(root, models=models, tasks=["btcv", "lits17"])
    generated.write_run(root, model="example/incomplete", task="btcv")
    generated.write_results(root, models=models[:1], tasks=["btcv"], protocol="scratch")
    generated.write_results(root, models=["demo/model"], tasks=["phantom"], kind="demo")
    return _gather(root)


def test_kinds_and_protocols_are_apart(content: board.Board) -> None:
    assert [(track.is_demo, track.title) for track in content.tracks] == [
        (False, "Segmentation, frozen"),
        (False, "Segmentation, scratch"),
        (True, "Segmentation, frozen"),
    ]
    assert [row.model for row in content.demos[0].rows] == ["demo/model"]


def test_a_cell_is_the_mean_of_its_records(content: board.Board) -> None:
    track = content.tracks[0]
    for row in track.rows:
        for cell in row.cells.values():
            values = [entry.record.metrics["dice"] or 0.0 for entry in cell.entries]
            assert cell.value == pytest.approx(sum(values) / len(values), abs=1e-15)
            assert cell.score
            assert cell.score.mean.value == pytest.approx(cell.value, abs=1e-12)
            assert cell.score.mean.low < cell.score.mean.value < cell.score.mean.high


def test_models_are_ranked_by_their_level(content: board.Board) -> None:
    rows = content.tracks[0].rows
    assert [row.model for row in rows] == [
        "radiology/coralbay",
        "radiology/voco_b",
        "radiology/coralbay_random",
        "example/incomplete",
    ]
    assert [row.place.rank for row in rows if row.place] == [1, 2, 3]


def test_a_model_that_lacks_a_task_is_not_ranked(content: board.Board) -> None:
    row = content.tracks[0].rows[-1]
    assert row.place is None
    assert row.missing == ["lits17"]


def test_one_more_task_takes_nobody_out_of_the_ranking(
    content: board.Board, tmp_path: pathlib.Path
) -> None:
    """It is ranked by when that makes the table without missing cells larger."""
    models = ["radiology/coralbay", "radiology/voco_b", "radiology/coralbay_random"]
    generated.write_results(tmp_path, models=models, tasks=["btcv", "lits17"])
    generated.write_run(tmp_path, model="example/incomplete", task="btcv")
    generated.write_run(tmp_path, model="radiology/voco_b", task="word")
    (track,) = _gather(tmp_path).tracks
    before = content.tracks[0]
    assert [row.place for row in track.rows] == [row.place for row in before.rows]
    assert [column.label for column in track.ranked_by] == ["btcv", "lits17"]
    assert [row.missing for row in track.rows] == [[], [], [], ["lits17"]]

    generated.write_run(tmp_path, model="radiology/coralbay", task="word")
    generated.write_run(tmp_path, model="radiology/coralbay_random", task="word")
    (track,) = _gather(tmp_path).tracks
    assert [column.label for column in track.ranked_by] == ["btcv", "lits17", "word"]
    assert track.n_ranked == 3


def test_of_tasks_with_common_scans_one_counts(tmp_path: pathlib.Path) -> None:
    """The one that more models have; the page says which."""
    models = ["radiology/coralbay", "radiology/voco_b"]
    generated.write_results(tmp_path, models=models, tasks=["lits17", "msd_task03_liver", "word"])
    generated.write_run(tmp_path, model="radiology/coralbay_random", task="msd_task03_liver")
    (track,) = _gather(tmp_path).tracks
    assert [column.task for column in track.ranked_by] == ["msd_task03_liver", "word"]
    assert track.shared == {"lits17": "msd_task03_liver"}


def test_a_model_alone_is_not_ranked(content: board.Board) -> None:
    assert content.tracks[1].rows[0].place is None


def test_overlap_is_that_of_the_card(content: board.Board) -> None:
    kinds = {
        row.model: [cell.overlap.kind for cell in row.cells.values()]
        for row in content.tracks[0].rows
    }
    assert kinds["radiology/voco_b"] == ["test", "test"]
    assert kinds["radiology/coralbay"] == ["unknown", "unknown"]
    assert kinds["radiology/coralbay_random"] == ["none", "none"]
    assert kinds["example/incomplete"] == ["unknown"]


def test_other_cases_are_another_column(tmp_path: pathlib.Path) -> None:
    """Values of other cases or versions are shown, but never compared."""
    generated.write_run(tmp_path, model="org/a", task="btcv")
    generated.write_run(tmp_path, model="org/b", task="btcv", n_cases=7)
    path = generated.write_run(tmp_path, model="org/c", task="btcv")
    _change(path, lambda record: record["task"].update(version="2"))
    (track,) = _gather(tmp_path).tracks
    assert len(track.columns) == 3
    assert len({column.slug for column in track.columns}) == 3
    assert all(row.place is None for row in track.rows)


def test_only_common_cases_are_compared(tmp_path: pathlib.Path) -> None:
    """A case that one model has excluded is left out for all."""
    paths = [generated.write_run(tmp_path, model=f"org/{name}", task="lung") for name in "ab"]
    table = paths[0].with_name("seed_0.cases.csv")
    lines = table.read_text().splitlines()
    lines[1] = "case_000,organ,dice,,0,0"
    table.write_text("\n".join(lines) + "\n")
    (track,) = _gather(tmp_path).tracks
    lengths = [len(values.cases) for values in track.comparable(track.columns[0]).values()]
    assert lengths == [5, 5]
    assert all(row.place for row in track.rows)
    assert track.left_out == {"lung": 1}


def test_an_unranked_model_takes_no_case_from_the_ranking(tmp_path: pathlib.Path) -> None:
    for name in "ab":
        for task in ("lung", "liver"):
            generated.write_run(tmp_path, model=f"org/{name}", task=task)
    path = generated.write_run(tmp_path, model="org/incomplete", task="lung")
    table = path.with_name("seed_0.cases.csv")
    lines = table.read_text().splitlines()
    lines[1] = "case_000,organ,dice,,0,0"
    table.write_text("\n".join(lines) + "\n")
    (track,) = _gather(tmp_path).tracks
    assert (track.n_ranked, track.left_out) == (2, {})


def test_one_case_with_values_has_no_interval(tmp_path: pathlib.Path) -> None:
    path = generated.write_run(tmp_path, model="org/a", task="lung", n_cases=2)
    table = path.with_name("seed_0.cases.csv")
    lines = table.read_text().splitlines()
    lines[1:2] = ["case_000,organ,dice,,0,0", "case_000,lesion,dice,,0,0"]
    table.write_text("\n".join([*lines, "case_001,lesion,dice,0.5,10,10"]) + "\n")
    (track,) = _gather(tmp_path).tracks
    assert track.rows[0].cells[track.columns[0].slug].score is None


def test_seeds_of_different_cases_are_named(tmp_path: pathlib.Path) -> None:
    generated.write_run(tmp_path, model="org/a", task="lung", seed=0)
    path = generated.write_run(tmp_path, model="org/a", task="lung", seed=1)
    table = path.with_name("seed_1.cases.csv")
    table.write_text(table.read_text().replace("case_000", "another"))
    with pytest.raises(ValueError, match="org__a.*: Two seeds do not have values of the same"):
        _gather(tmp_path)


def test_intervals_stay_within_the_metric(tmp_path: pathlib.Path) -> None:
    for name, level in (("low", 0.0), ("high", 0.98)):
        for seed in (0, 1):
            path = generated.write_run(tmp_path, model=f"org/{name}", task="lung", seed=seed)
            table = path.with_name(f"seed_{seed}.cases.csv")
            value = level + 0.02 * seed
            table.write_text(re.sub(r"dice,[\d.]+,", f"dice,{value},", table.read_text()))
    (track,) = _gather(tmp_path).tracks
    for row in track.rows:
        (cell,) = row.cells.values()
        assert cell.score and row.place
        for estimate in (cell.score.mean, row.place.mean, row.place.win_rate):
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_an_undefined_metric_has_no_interval(tmp_path: pathlib.Path) -> None:
    path = generated.write_run(tmp_path, model="org/a", task="btcv")
    _change(path, lambda record: record["metrics"].update(dice=None))
    (track,) = _gather(tmp_path).tracks
    cell = next(iter(track.rows[0].cells.values()))
    assert (cell.value, cell.score) == (None, None)


def test_only_unchanged_records_are_verified(tmp_path: pathlib.Path) -> None:
    paths = generated.write_results(tmp_path, models=["org/a"], tasks=["btcv"])
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(tmp_path)}\n"
        for path in paths
    ]
    (tmp_path / results_folder.VERIFIED).write_text("".join(lines))
    assert _gather(tmp_path).tracks[0].rows[0].n_verified == 2
    _change(paths[0], lambda record: record["cost"].update(fit_seconds=1.0))
    assert _gather(tmp_path).tracks[0].rows[0].n_verified == 1


@pytest.mark.parametrize("names", [("a/b", "a__b/"), ("<b>", "b"), ("é", "è"), ("a" * 200, "a")])
def test_pages_of_models_have_safe_names_of_their_own(names: tuple[str, str]) -> None:
    slugs = [board.model_slug(name) for name in names]
    assert slugs[0] != slugs[1]
    assert all(slug.isascii() and "/" not in slug and len(slug) < 120 for slug in slugs)


def test_gathering_imports_no_torch() -> None:
    """The page is built where no torch is installed."""
    code = "import sys, eva_coralbay.leaderboard.page.build; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
