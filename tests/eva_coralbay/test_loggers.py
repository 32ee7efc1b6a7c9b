"""Tests the loggers by name."""

import copy
import importlib.util
import pathlib
from typing import Any

import pytest
from lightning.pytorch import loggers as pl_loggers

from eva_coralbay import _loggers, pretraining
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import trainer


def test_loggers_by_name(tmp_path: pathlib.Path) -> None:
    built = _loggers.build("csv, tensorboard", str(tmp_path), project="btcv")
    assert [type(item) for item in built] == [
        pl_loggers.CSVLogger,
        pl_loggers.TensorBoardLogger,
    ]
    assert _loggers.build("", str(tmp_path), project="btcv") == []


def test_mlflow_writes_a_database_that_it_takes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow 3 refuses the plain files that Lightning asks for."""
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    built: Any
    (built,) = _loggers.build("mlflow", str(tmp_path / "logs"), project="btcv")
    # as eva does for each run
    runs = [copy.deepcopy(built) for _ in range(2)]
    for step, own in enumerate(runs):
        own.log_metrics({"val/dice": 0.5}, step)
        own.finalize()
        found = own.experiment.get_metric_history(own.run_id, "val/dice")
        assert [(metric.value, metric.step) for metric in found] == [(0.5, step)]
    assert runs[0].run_id != runs[1].run_id
    assert (tmp_path / "logs" / "mlflow.db").is_file()


def test_unknown_loggers_and_missing_packages_are_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EvaCoralbayError, match="no logger 'csw' .*tensorboard, csv, wandb, mlflow"):
        _loggers.build("csw", str(tmp_path), project="btcv")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EvaCoralbayError, match="pip install wandb"):
        _loggers.build("wandb", str(tmp_path), project="btcv")


def test_names_are_each_taken_once_in_any_case() -> None:
    assert _loggers.check("CSV, csv,TensorBoard,") == ["csv", "tensorboard"]
    with pytest.raises(EvaCoralbayError, match="no logger 'wandbb' .*did you mean wandb"):
        _loggers.check("csv,wandbb")


def test_a_dry_run_and_a_pretraining_check_them_too(tmp_path: pathlib.Path) -> None:
    with pytest.raises(EvaCoralbayError, match="no logger 'csw'"):
        trainer.Trainer(task="btcv", task_version="1", dry_run=True, loggers="csw")
    with pytest.raises(EvaCoralbayError, match="no logger 'csw'"):
        pretraining.Trainer(default_root_dir=str(tmp_path), loggers="csw")


@pytest.mark.parametrize(
    ("loggers", "kinds"),
    [
        ("csv", [pl_loggers.CSVLogger]),
        (None, [pl_loggers.TensorBoardLogger, pl_loggers.CSVLogger]),
    ],
)
def test_loggers_of_a_pretraining(
    loggers: str | None, kinds: list[type], tmp_path: pathlib.Path
) -> None:
    built = pretraining.Trainer(default_root_dir=str(tmp_path), loggers=loggers).loggers
    for one in built:
        one.finalize("success")
    assert [type(one) for one in built] == kinds
