"""Tests `eva-coralbay tasks`."""

import json
import pathlib

import pytest

from eva_coralbay.cli import main, tasks
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.tasks import catalog
from tests.eva_coralbay.data.datasets import task_layouts


def test_tasks(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    exit_code = main.main(["tasks", "--root", str(tmp_path)])

    output = capsys.readouterr().out
    assert exit_code == 0
    assert "totalsegmentator" in output and "cc_ccii" in output


def test_tasks_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = main.main(["tasks", "--json"])

    listed = {entry["task"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert exit_code == 0
    assert list(listed) == list(catalog.TASKS)
    assert listed["btcv"]["cases"] == {"train": 18, "val": 3, "test": 9}


def test_summary() -> None:
    summaries = {summary.task: summary for summary in tasks.summarize()}

    assert summaries["lits17"] == tasks.Summary(
        task="lits17",
        kind="segmentation",
        cases={"train": 92, "val": 13, "test": 26},
        classes=2,
        license="CC-BY-NC-ND-4.0",
        restrictions=["non-commercial", "no derivatives"],
        access="account at codalab.org",
        state=None,
    )
    assert summaries["organ_mnist_3d"].classes == 11


@pytest.mark.parametrize("has_root", [True, False])
def test_table_fits_a_narrow_terminal(
    has_root: bool,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main.main(["tasks", "--root", str(tmp_path)] if has_root else ["tasks"])

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for task in catalog.TASKS:
        assert any(task in line for line in lines)
    assert any("4351/573/1239" in line for line in lines)
    assert any("no derivatives" in line for line in lines)
    assert any("disk" in line for line in lines) == has_root


def test_prepared_scans_are_looked_for_with_their_data_only() -> None:
    with pytest.raises(EvaCoralbayError, match="`--prepared-root` needs `--root`"):
        tasks.summarize(prepared_root="elsewhere")


def test_what_is_on_the_disk(tmp_path: pathlib.Path) -> None:
    task_layouts.write_btcv(tmp_path / "btcv")

    states = {summary.task: summary.state for summary in tasks.summarize(str(tmp_path))}

    assert states.pop("btcv") == "there, 0 of 30 prepared"
    assert set(states.values()) == {"-"}


def test_a_folder_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(EvaCoralbayError, match="There is no folder '.*nowhere'"):
        tasks.summarize(str(tmp_path / "nowhere"))
