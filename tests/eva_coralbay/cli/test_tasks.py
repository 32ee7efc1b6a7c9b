"""Tests `eva-coralbay tasks`."""

import json
import pathlib

import pytest

from eva_coralbay.cli import main


def test_tasks(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    exit_code = main.main(["tasks", "--root", str(tmp_path)])

    output = capsys.readouterr().out
    assert exit_code == 0
    assert "totalsegmentator" in output and "cc_ccii" in output


def test_tasks_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = main.main(["tasks", "--json"])

    listed = {entry["task"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert exit_code == 0
    assert len(listed) == 17
    assert listed["btcv"]["cases"] == {"train": 18, "val": 3, "test": 9}
