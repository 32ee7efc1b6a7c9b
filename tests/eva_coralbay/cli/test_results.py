"""Tests `eva-coralbay results`."""

import pathlib

import pytest

from eva_coralbay.cli import main
from eva_coralbay.results import record

_GOLDEN = pathlib.Path(__file__).parents[1] / "results" / "data"
"""The folder of the records that must stay readable."""


def test_prints_every_record_their_mean_and_the_pictures(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = record.Record.read(next(_GOLDEN.glob("*.json")))
    for run, dice in enumerate((0.25, 0.75, None)):
        folder = tmp_path / f"run_{run}"
        folder.mkdir()
        entry = golden.model_copy(update={"metrics": {"dice": dice}})
        entry.write(folder / "record_val_last.json")
    (tmp_path / "run_1" / "cases_val.png").touch()
    monkeypatch.setenv("COLUMNS", "200")

    assert main.main(["results", str(tmp_path)]) == 0

    text = capsys.readouterr().out
    assert all(run in text for run in ("run_0", "run_1", "run_2"))
    row = next(line for line in text.splitlines() if "dice" in line)
    assert [cell.strip() for cell in row.split("│")[2:-1]] == ["0.250", "0.750", "-", "0.500"]
    assert f"best and worst case: {tmp_path / 'run_1' / 'cases_val.png'}\n" in text


def test_says_where_there_is_nothing(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["results", str(tmp_path)]) == 1
    assert "no record" in capsys.readouterr().err
