"""Tests that the numbers for programs are those of the records."""

import csv
import io
import json
import pathlib

import pytest

from eva_coralbay.leaderboard.page import board, export, gathering
from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import record
from tests.eva_coralbay.leaderboard.page import generated

_Key = tuple[str, str, str]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("results")
    models = ["radiology/coralbay", "radiology/voco_b"]
    generated.write_results(root, models=models, tasks=["btcv", "phantom"])
    generated.write_results(root, models=["demo/model"], tasks=["phantom"], kind="demo")
    return root


@pytest.fixture(scope="module")
def content(root: pathlib.Path) -> board.Board:
    return gathering.gather(results_folder.find(root), {}, [], root)


@pytest.fixture(scope="module")
def expected(root: pathlib.Path) -> dict[_Key, float]:
    """The mean over the seeds, read from the files."""
    values: dict[_Key, list[float]] = {}
    for path in root.rglob("*.json"):
        entry = record.Record.read(path)
        key = (entry.kind, entry.model.id or "", entry.task.id)
        values.setdefault(key, []).append(entry.metrics["dice"] or 0.0)
    return {key: sum(found) / len(found) for key, found in values.items()}


def test_json_equals_the_records(content: board.Board, expected: dict[_Key, float]) -> None:
    document = json.loads(export.as_json(content))
    found = {
        (track["kind"], row["model"], score["task"]): score["value"]
        for track in document["tracks"]
        for row in track["models"]
        for score in row["scores"]
    }
    assert found == pytest.approx(expected, abs=1e-15)


def test_csv_equals_the_records(content: board.Board, expected: dict[_Key, float]) -> None:
    lines = list(csv.DictReader(io.StringIO(export.as_csv(content))))
    found = {(line["kind"], line["model"], line["task"]): float(line["value"]) for line in lines}
    assert found == pytest.approx(expected, abs=1e-15)
    assert {line["n_cases"] for line in lines if line["task"] == "btcv"} == {"9"}


def test_demonstrations_are_not_ranked_with_measured_results(content: board.Board) -> None:
    lines = list(csv.DictReader(io.StringIO(export.as_csv(content))))
    assert {line["rank"] for line in lines if line["kind"] == "demo"} == {""}
    assert {line["rank"] for line in lines if line["kind"] == "measured"} == {"1", "2"}


def test_no_text_is_a_formula_of_a_spreadsheet(tmp_path: pathlib.Path) -> None:
    """A revision may begin with a hyphen."""
    path = generated.write_run(tmp_path, model="lab/net", task="btcv")
    content = json.loads(path.read_text())
    content["model"]["revision"] = "-2+3"
    content["environment"]["device"] = "=1+1"
    path.write_text(json.dumps(content))
    track = gathering.gather(results_folder.find(tmp_path), {}, [], tmp_path)
    (line,) = csv.DictReader(io.StringIO(export.as_csv(track)))
    assert (line["revision"], line["device"]) == ("'-2+3", "'=1+1")
    assert float(line["value"]) > 0
