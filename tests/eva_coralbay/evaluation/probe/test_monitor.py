"""The probe of a pre-training."""

import pathlib

import pandas as pd
import pytest

from eva_coralbay.data import phantom
from eva_coralbay.evaluation.probe import monitor
from tests.eva_coralbay.pretraining import runs, stores


def test_a_training_logs_the_probe_of_the_untrained_and_the_trained_encoder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.fit_heads_to_few_samples(monkeypatch)
    phantom.write_dataset(str(tmp_path / "labeled"), cases=4, val_cases=2, seed=0)
    probe = monitor.ProbeMonitor(
        dataset={
            "class_path": "eva_coralbay.data.datasets.NnUNet",
            "init_args": {"root": str(tmp_path / "labeled")},
        },
        every_n_steps=2,
        spacing=(8.0, 8.0, 8.0),
        roi_size=(40, 40, 40),
        max_cases=2,
    )

    runs.train(
        store=stores.write_store(tmp_path / "store"),
        out=str(tmp_path / "out"),
        steps=3,
        callbacks=[probe],
    )

    logged = pd.read_csv(tmp_path / "out" / "metrics.csv").dropna(subset=["probe/dice"])
    assert logged["step"].tolist() == [0, 2, 3]
    for name in ("probe/dice", "probe/balanced_accuracy"):
        assert logged[name].between(0.0, 1.0).all()
    assert logged["probe/balanced_accuracy"].nunique() > 1
