"""Tests the loggers by name."""

import copy
import importlib.util
import pathlib
from typing import Any

import pytest
from lightning.pytorch import loggers as pl_loggers

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import tracking


def test_loggers_by_name(tmp_path: pathlib.Path) -> None:
    built = tracking.build_loggers("csv, tensorboard", str(tmp_path), "btcv")
    assert [type(item) for item in built] == [
        pl_loggers.CSVLogger,
        pl_loggers.TensorBoardLogger,
    ]
    assert tracking.build_loggers("", str(tmp_path), "btcv") == []


def test_mlflow_writes_a_database_that_it_takes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow 3 refuses the plain files that Lightning asks for."""
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    built: Any
    (built,) = tracking.build_loggers("mlflow", str(tmp_path / "logs"), "btcv")
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
        tracking.build_loggers("csw", str(tmp_path), "btcv")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EvaCoralbayError, match="pip install wandb"):
        tracking.build_loggers("wandb", str(tmp_path), "btcv")


def test_metrics_of_an_interrupted_run_are_kept(tmp_path: pathlib.Path) -> None:
    for number in range(3):
        (tmp_path / "metrics.csv").write_text(str(number))
        tracking.keep_metrics(tmp_path)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {f"metrics.{number}.csv": str(number) for number in range(3)}
