"""Tests that an interrupted `eva fit` goes on as if it had not been interrupted."""

import os
import pathlib
import re
import signal
import subprocess
import sys
from typing import Any

import lightning.pytorch as pl
import pytest
import yaml
from eva.core import cli
from eva.core.cli import logo, setup
from lightning.pytorch import callbacks
from typing_extensions import override

from eva_coralbay.data import phantom
from eva_coralbay.evaluation import interruption
from eva_coralbay.results import record
from tests.eva_coralbay.evaluation import toy

_N_RUNS, _STEPS, _INTERVAL = 2, 6, 3


class Interruption(callbacks.Callback):
    """Interrupts the program at a moment, which INTERRUPT_AT names as `<run>:<moment>:<step>`.

    The moments are those of Lightning's hooks, the step is that of the training. INTERRUPT_BY is
    the signal that is sent, or empty for an error.
    """

    def _come_by(self, trainer: pl.Trainer, moment: str) -> None:
        run = pathlib.Path(str(trainer.log_dir)).name.removeprefix("run_")
        stage = trainer.state.fn.value if trainer.state.fn else ""
        if os.environ.get("INTERRUPT_AT") != f"{run}:{stage}.{moment}:{trainer.global_step}":
            return
        by = os.environ.get("INTERRUPT_BY")
        if not by:
            raise RuntimeError("interrupted by the test")
        os.kill(os.getpid(), getattr(signal, by))

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._come_by(trainer, "step")

    @override
    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._come_by(trainer, "case")

    @override
    def on_validation_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._come_by(trainer, "scored")

    @override
    def on_fit_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._come_by(trainer, "fitted")

    @override
    def teardown(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._come_by(trainer, "over")


_MOMENTS = (
    "0:fit.step:1",
    "0:fit.case:3",
    "0:fit.scored:3",
    "0:fit.step:4",
    "0:fit.step:6",
    "0:fit.fitted:6",
    "0:validate.case:6",
    "0:validate.over:6",
    "1:fit.step:1",
    "1:validate.scored:6",
)
"""In a training, its validation, its scoring, between them, and in the second run."""


def _write_config(folder: pathlib.Path) -> pathlib.Path:
    data = folder / "data"
    if not data.exists():
        phantom.write_dataset(
            str(data), cases=4, val_cases=2, shape=(16, 24, 24), spacing_mm=(20.0, 18.0, 18.0)
        )
    trainer = {
        "task": "toy",
        "task_version": "1",
        "protocol": "scratch",
        "default_root_dir": "${oc.env:OUTPUT_ROOT, logs}",
        "n_runs": _N_RUNS,
        "max_steps": _STEPS,
        "val_check_interval": _INTERVAL,
        "refresh_rate": 0,
        "accelerator": "cpu",
        "log_every_n_steps": 1,
        "callbacks": [{"class_path": f"{__name__}.Interruption"}],
    }
    model = {
        "encoder": {
            "class_path": f"{toy.__name__}.ToyEncoder",
            "init_args": {"dropout": 0.2},
        },
        "decoder": {"class_path": f"{toy.__name__}.ToyDecoder"},
        "protocol": "scratch",
        "roi_size": [16, 16, 16],
        "lr": 0.05,
    }
    nnunet = {
        "class_path": "eva_coralbay.data.datasets.NnUNet",
        "init_args": {"root": str(data)},
    }
    arguments = {
        "protocol": "scratch",
        "dataset": nnunet,
        "roi_size": [16, 16, 16],
        "num_samples": 2,
        "spacing": [18.0, 18.0, 18.0],
        "batch_size": 2,
        "num_workers": "${oc.env:N_DATA_WORKERS, 0}",
    }
    content = {
        "trainer": {"class_path": "eva_coralbay.evaluation.Trainer", "init_args": trainer},
        "model": {"class_path": "eva_coralbay.evaluation.SegmentationModule", "init_args": model},
        "data": {"class_path": "eva_coralbay.data.SegmentationData", "init_args": arguments},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(name="config")
def _config(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    path = _write_config(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/eva", "fit", "--config", str(path)])
    monkeypatch.setattr(setup, "setup", lambda: None)
    monkeypatch.setattr(logo, "print_cli_logo", lambda: None)
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path / "logs"))
    return path


def _tables(logs: pathlib.Path) -> dict[str, bytes]:
    (session,) = (path.parent for path in logs.glob("*/results.json"))
    return {
        str(path.relative_to(session)): path.read_bytes() for path in session.rglob("*.cases.csv")
    }


def _free(logs: pathlib.Path) -> None:
    """Makes the locks of all sessions free, as they are after the process that held them ended."""
    for lock in logs.glob("*/session.lock"):
        lock.unlink()


def test_interrupted_at_every_moment_it_ends_with_the_same_case_tables(
    config: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One session is interrupted ten times, in turn, and goes on each time in its folder."""
    cli()
    undisturbed = _tables(tmp_path / "logs")
    assert len(undisturbed) == 2 * _N_RUNS

    # elsewhere, as the same command goes on with a session that is not over only
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path / "again"))
    for moment in _MOMENTS:
        monkeypatch.setenv("INTERRUPT_AT", moment)
        with pytest.raises(RuntimeError, match="interrupted by the test"):
            cli()
        _free(tmp_path / "again")
    monkeypatch.delenv("INTERRUPT_AT")
    cli()
    assert len(list((tmp_path / "again").glob("*/run_0"))) == 1
    assert _tables(tmp_path / "again") == undisturbed
    for run in (tmp_path / "again").glob("*/run_*"):
        result = record.Record.read(run / "record_val_last.json")
        assert result.checkpoint.step == _STEPS
        assert result.cost.fit_seconds is not None and result.cost.fit_seconds > 0


@pytest.mark.parametrize("moment", ["0:fit.step:2", "0:fit.step:3", "0:fit.step:5", "1:fit.case:3"])
def test_a_signal_saves_the_step_and_ends_the_program(
    config: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setenv("INTERRUPT_BY", "SIGTERM")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        cli()
        monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path / "again"))
        monkeypatch.setenv("INTERRUPT_AT", moment)
        with pytest.raises(SystemExit) as ended:
            cli()
        assert ended.value.code == 128 + signal.SIGTERM
        (session,) = (tmp_path / "again").iterdir()
        last = interruption.last_checkpoint(session / f"run_{moment[0]}")
        assert last.exists()
        _free(tmp_path / "again")
        monkeypatch.delenv("INTERRUPT_AT")
        cli()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert _tables(tmp_path / "again") == _tables(tmp_path / "logs")


def test_another_command_begins_a_session_of_its_own(
    config: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("INTERRUPT_AT", "0:fit.step:1")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="interrupted by the test"):
            cli()
        # the lock is held: as if another process worked on the session
    assert len(list((tmp_path / "logs").iterdir())) == 2
    _free(tmp_path / "logs")
    other = config.with_name("other.yaml")
    other.write_text(config.read_text().replace("lr: 0.05", "lr: 0.04"))
    monkeypatch.setattr(sys, "argv", ["/usr/bin/eva", "fit", "--config", str(other)])
    monkeypatch.delenv("INTERRUPT_AT")
    cli()
    assert len(list((tmp_path / "logs").iterdir())) == 3
    # the end of a session says what counts, without eva's and Lightning's tables of all metrics
    output = capsys.readouterr()
    assert re.search(r":: val: dice \d\.\d{3} ± \d\.\d{3}, nsd ", output.err)
    assert "metric" not in output.out.lower()


@pytest.mark.slow
def test_killed_ten_times_it_ends_with_the_same_case_tables(tmp_path: pathlib.Path) -> None:
    """`kill -9` of real processes, with two data workers."""
    config = _write_config(tmp_path)
    command = [sys.executable, "-m", "eva", "fit", "--config", str(config)]
    root = pathlib.Path(__file__).parents[3]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
        "N_DATA_WORKERS": "2",
        "INTERRUPT_BY": "SIGKILL",
    }

    def start(folder: str, moment: str) -> int:
        variables = {"OUTPUT_ROOT": str(tmp_path / folder), "INTERRUPT_AT": moment}
        return subprocess.run(command, env=environment | variables, check=False).returncode

    assert start("logs", "") == 0
    for moment in _MOMENTS:
        assert start("again", moment) == -signal.SIGKILL, moment
    assert start("again", "") == 0
    assert _tables(tmp_path / "again") == _tables(tmp_path / "logs")
