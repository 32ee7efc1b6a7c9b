"""Tests the table of results."""

import io
import pathlib

import pytest
from rich import console as rich_console

from eva_coralbay.cli import results_table
from eva_coralbay.results import record

_GOLDEN = pathlib.Path(__file__).parents[1] / "results" / "data"
"""The folder of the records that must stay readable."""


def _golden() -> record.Record:
    return record.Record.read(next(_GOLDEN.glob("*.json")))


def test_shows_every_record_and_their_mean(tmp_path: pathlib.Path) -> None:
    for run, dice in enumerate((0.25, 0.75, None)):
        folder = tmp_path / f"run_{run}"
        folder.mkdir()
        entry = _golden().model_copy(update={"metrics": {"dice": dice}})
        entry.write(folder / "record_val_last.json")
    stream = io.StringIO()
    table = results_table.draw_table(results_table.find_records(tmp_path))
    rich_console.Console(file=stream, width=200).print(table)
    text = stream.getvalue()
    assert all(run in text for run in ("run_0", "run_1", "run_2"))
    row = next(line for line in text.splitlines() if "dice" in line)
    assert [cell.strip() for cell in row.split("│")[2:-1]] == ["0.250", "0.750", "-", "0.500"]


def test_says_where_there_is_nothing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="no record"):
        results_table.find_records(tmp_path)
