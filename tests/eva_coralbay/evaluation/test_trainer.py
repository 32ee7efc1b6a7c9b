"""Tests of the trainer of the leaderboard's tasks."""

import os
import pathlib
import subprocess
import sys

import lightning.pytorch as pl
import pytest
from lightning.pytorch import callbacks

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import CaseFigures, Recorder, Trainer


def _trainer(folder: pathlib.Path, **arguments: object) -> Trainer:
    return Trainer(
        task="toy",
        task_version="1",
        default_root_dir=str(folder),
        **{"accelerator": "cpu", **arguments},
    )


def test_keeps_the_best_and_the_last_checkpoint_and_records_both(tmp_path: pathlib.Path) -> None:
    trainer = _trainer(tmp_path)
    savers = {
        saver.filename: saver.monitor
        for saver in trainer.checkpoint_callbacks
        if isinstance(saver, callbacks.ModelCheckpoint)
    }
    kinds = [type(callback) for callback in trainer.callbacks]

    assert savers == {"best": "val/dice", "last": None}
    assert Recorder in kinds and CaseFigures in kinds


@pytest.mark.parametrize("loggers", ["", "csv", "mlflow", "mlflow,csv"])
def test_checkpoints_are_in_the_folder_of_the_run_whatever_the_logger(
    tmp_path: pathlib.Path, loggers: str
) -> None:
    """From where an interrupted run goes on, and `eva-coralbay segment` reads them."""
    if "mlflow" in loggers:
        pytest.importorskip("mlflow")
    trainer = _trainer(tmp_path, loggers=loggers)
    for number in range(2):
        trainer.init_logger_run(number)
        for saver in trainer.checkpoint_callbacks:
            if isinstance(saver, callbacks.ModelCheckpoint):
                saver.setup(trainer, pl.LightningModule(), "fit")
                assert saver.dirpath == f"{trainer.log_dir}/checkpoints"
        assert pathlib.Path(str(trainer.log_dir)).name == f"run_{number}"


@pytest.mark.parametrize(
    ("protocol", "checkpoint"),
    [("frozen", "last"), ("frozen-eva", "best"), ("finetuned", "last"), ("scratch", "last")],
)
def test_the_protocol_says_which_checkpoint_counts(
    tmp_path: pathlib.Path, protocol: str, checkpoint: str
) -> None:
    assert _trainer(tmp_path, protocol=protocol).checkpoint_type == checkpoint


def test_other_arguments_are_lightnings(tmp_path: pathlib.Path) -> None:
    timer = callbacks.Timer()
    trainer = _trainer(tmp_path, callbacks=[timer], gradient_clip_val=1.0, max_steps=7)

    assert timer in trainer.callbacks
    assert trainer.gradient_clip_val == 1.0
    assert trainer.max_steps == 7
    with pytest.raises(TypeError, match="unheard_of"):
        _trainer(tmp_path, unheard_of=1)


@pytest.mark.parametrize("devices", [{}, {"devices": 1, "num_nodes": 2}, {"accelerator": "gpu"}])
def test_more_than_one_device_is_refused_with_the_way_to_use_them(
    tmp_path: pathlib.Path, devices: dict[str, object]
) -> None:
    """In one line, and by this package: Lightning would only say that there is no GPU."""
    arguments = {"devices": 2, "num_nodes": 1, **devices}
    with pytest.raises(EvaCoralbayError, match="NUM_DEVICES=1.*leaderboard sweep") as raised:
        _trainer(tmp_path, **arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("devices", [0, -1])
def test_another_number_than_one_device_is_refused(tmp_path: pathlib.Path, devices: int) -> None:
    """With -1, Lightning takes all devices, and fails with a traceback where there is none."""
    with pytest.raises(EvaCoralbayError, match=f"but {devices} are asked for: set NUM_DEVICES=1"):
        _trainer(tmp_path, devices=devices)


@pytest.mark.parametrize("runs", [0, -1])
def test_no_runs_are_refused(tmp_path: pathlib.Path, runs: int) -> None:
    """Before, the command ended at once with the exit code 0."""
    with pytest.raises(EvaCoralbayError, match=r"N_RUNS\) must be 1 or more"):
        _trainer(tmp_path, n_runs=runs)


def test_a_training_has_a_step(tmp_path: pathlib.Path) -> None:
    """Without one, random weights were scored without a word."""
    with pytest.raises(EvaCoralbayError, match=r"MAX_STEPS\) must be 1 or more; got 0"):
        _trainer(tmp_path, max_steps=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("NUM_DEVICES", "2", "leaderboard sweep"),
        # the module is built after the trainer, which has chosen the folder of the session
        ("LR_VALUE", "-1", "(LR_VALUE) must be 0 or more; got -1"),
    ],
)
def test_the_command_refuses_a_setting_in_one_line(
    tmp_path: pathlib.Path, variable: str, value: str, message: str
) -> None:
    """There are no data either, but they are not looked for; and nothing is left."""
    root = pathlib.Path(__file__).parents[3]
    config = root / "configs/vision/radiology/online/segmentation/btcv.yaml"
    ended = subprocess.run(
        [sys.executable, "-m", "eva", "fit", "--config", str(config)],
        env={**os.environ, variable: value, "DATA_ROOT": "data/btcv"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in ended.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
