"""Tests of the recorder in real sessions of eva."""

import hashlib
import json
import os
import pathlib
import sys
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from eva.core import cli
from eva.core.cli import logo, setup
from eva.core.metrics import structs
from eva.core.trainers import functional
from lightning.pytorch import callbacks
from typing_extensions import override

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import recorder, rescoring
from eva_coralbay.results import case_table, record
from tests.eva_coralbay.evaluation import toy


class _Spy(pl.Callback):
    """Keeps the weights as they are after the recorder's hook."""

    weights: list[torch.Tensor] = []

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if rescoring.is_scoring(trainer):
            self.weights.append(pl_module.state_dict()["encoder.weight"].clone())


def _recorder() -> recorder.Recorder:
    return recorder.Recorder(task="toy", task_version="2", model="toy/model")


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in root.glob("*/run_*") if path.is_dir())


def _records(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.glob("record_*"))


def _naive_dice(checkpoint: pathlib.Path) -> dict[str, float]:
    """The liver's Dice by case, computed by hand from a checkpoint."""
    module = toy.ToyModule()
    module.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    dataset = toy.ToyDataset()
    values = {}
    for image, target, metadata in (dataset[index] for index in range(len(dataset))):
        predicted = module.encoder(image[None]).argmax(1)[0].numpy() == 1
        truth = target[0].numpy() == 1
        values[metadata["case"]] = 2 * np.sum(predicted & truth) / (predicted.sum() + truth.sum())
    return values


def _liver(table: pathlib.Path) -> dict[str, float]:
    rows = case_table.read(table)
    return {row.case: row.value for row in rows if row.class_name == "liver" and row.value}


def test_every_run_is_recorded(tmp_path: pathlib.Path) -> None:
    """Two runs with validation and test cases leave a record of both checkpoints each."""
    trainer = toy.trainer(str(tmp_path), [_recorder()], n_runs=2)
    data = toy.datamodule(test=toy.ToyDataset(first_seed=50))
    trainer.run_evaluation_session(toy.ToyModule(seed=7), data)

    first, second = _folders(tmp_path)
    names = [f"record_{part}_{which}" for part in ("test", "val") for which in ("best", "last")]
    expected = sorted(f"{name}{suffix}" for name in names for suffix in (".cases.csv", ".json"))
    assert _records(first) == _records(second) == expected
    assert not list(tmp_path.rglob(".*")), "a temporary file is left"

    read = record.Record.read(second / "record_val_last.json")
    assert read.task == record.Task(id="toy", version="2", config_sha256=None)
    assert (read.model.id, read.model.parameters) == ("toy/model", 6)
    assert read.model.weights_sha256 == "0" * 64
    assert read.encoder is not None and read.encoder.is_consistent
    assert read.encoder.class_path.startswith("torch.nn.")
    assert (read.protocol, read.seed) == ("frozen", 7)
    assert (read.split.name, read.split.part, read.split.n) == ("fold_0", "val", 3)
    assert read.split.ids_sha256 == record.ids_sha256(["case_0", "case_1", "case_2"])
    assert read.dataset.name == "Toy"
    assert read.dataset.checksums == toy.ToyDataset().checksums()
    assert read.checkpoint == record.Checkpoint(selection="last", step=6)
    assert read.environment.packages["kaiko-eva"] is not None
    assert all(value is not None and value > 0 for _, value in read.cost)
    assert (read.kind, read.config, read.robustness) == ("measured", None, None)
    test = record.Record.read(second / "record_test_last.json")
    assert test.split.ids_sha256 == record.ids_sha256(["case_50", "case_51", "case_52"])
    assert test.dataset.checksums != read.dataset.checksums


def test_values_are_those_of_eva_and_of_the_table(tmp_path: pathlib.Path) -> None:
    """The record, the case table and eva's own results agree."""
    trainer = toy.trainer(str(tmp_path), [_recorder()])
    trainer.run_evaluation_session(toy.ToyModule(), toy.datamodule())

    (folder,) = _folders(tmp_path)
    read = record.Record.read(folder / "record_val_last.json")
    results = json.loads((folder.parent / "results.json").read_text())["metrics"]["val"][0]
    for name, value in read.metrics.items():
        assert results[f"val/{name}"]["mean"] == pytest.approx(value, abs=1e-6)

    rows = case_table.read(folder / read.cases.file)
    assert (read.cases.rows, read.cases.excluded) == (6, sum(row.value is None for row in rows))
    liver = [row.value for row in rows if row.class_name == "liver" and row.value is not None]
    assert read.metrics["dice_liver"] == pytest.approx(np.mean(liver), abs=1e-15)
    assert {row.truth_voxels for row in rows if row.class_name == "spleen"} == {0, 32}


@pytest.mark.parametrize("checkpoint_type", ["last", "best"])
def test_both_checkpoints_are_scored(tmp_path: pathlib.Path, checkpoint_type: str) -> None:
    """Each record is of its own weights, and the module keeps those of the stage."""
    _Spy.weights = []
    trainer = toy.trainer(
        str(tmp_path), [_recorder(), _Spy()], checkpoint_type=checkpoint_type, max_steps=8
    )
    trainer.run_evaluation_session(toy.ToyModule(worsens=True), toy.datamodule(batch_size=2))

    (folder,) = _folders(tmp_path)
    steps = {}
    for which in ("last", "best"):
        checkpoint = folder / "checkpoints" / f"{which}.ckpt"
        assert _liver(folder / f"record_val_{which}.cases.csv") == pytest.approx(
            _naive_dice(checkpoint), abs=1e-12
        )
        steps[which] = record.Record.read(folder / f"record_val_{which}.json").checkpoint.step
    assert steps == {"last": 8, "best": 2}
    stage = torch.load(folder / "checkpoints" / f"{checkpoint_type}.ckpt", weights_only=True)
    assert torch.equal(_Spy.weights[0], stage["state_dict"]["encoder.weight"])


def test_without_a_last_checkpoint_it_is_the_final_weights(tmp_path: pathlib.Path) -> None:
    """Lightning then scores the weights as they are after the training."""
    trainer = toy.trainer(str(tmp_path), [], callbacks=[toy.savers()[0], _recorder()])
    trainer.run_evaluation_session(toy.ToyModule(worsens=True), toy.datamodule())
    (folder,) = _folders(tmp_path)
    assert record.Record.read(folder / "record_val_last.json").checkpoint.step == 6
    assert record.Record.read(folder / "record_val_best.json").checkpoint.step == 2


def test_without_a_checkpoint_there_is_no_record_of_it(tmp_path: pathlib.Path) -> None:
    """`eva validate` trains nothing: one record, with what is unknown left so."""
    trainer = toy.trainer(str(tmp_path), [_recorder()])
    functional.run_evaluation_session(
        trainer, toy.ToyModule(), toy.datamodule(), stages=["validate"]
    )
    (folder,) = _folders(tmp_path)
    assert _records(folder) == ["record_val_last.cases.csv", "record_val_last.json"]
    assert record.Record.read(folder / "record_val_last.json").cost.fit_seconds is None


def test_data_sets_of_eva_say_nothing_of_themselves(tmp_path: pathlib.Path) -> None:
    """What they do not tell is unknown; their cases are numbered."""
    trainer = toy.trainer(str(tmp_path), [_recorder()])
    trainer.run_evaluation_session(toy.ToyModule(), toy.datamodule(val=toy.UnknownDataset()))
    (folder,) = _folders(tmp_path)
    read = record.Record.read(folder / "record_val_last.json")
    assert read.dataset == record.Dataset(name=None, checksums=None, license=None)
    assert (read.split.name, read.split.n) == (None, 3)
    assert set(_liver(folder / read.cases.file)) == {"0", "1", "2"}


def test_a_run_that_cannot_be_recorded_ends_with_an_error(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk leaves no half-written record, and names all that is missing."""

    def fail(*args: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        trainer = toy.trainer(str(tmp_path), [_recorder()])
        with pytest.raises(EvaCoralbayError, match="last checkpoint on the val .*No space left"):
            trainer.run_evaluation_session(toy.ToyModule(), toy.datamodule())
    (folder,) = _folders(tmp_path)
    assert _records(folder) == []
    assert not list(folder.glob(".*"))
    assert sorted(path.name for path in folder.glob("checkpoints/*")) == ["best.ckpt", "last.ckpt"]


def test_what_can_be_recorded_is_written_before_the_error(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one of four records fails, the others are there, those of later stages too."""
    write = record.Record.write

    def fail_once(self: record.Record, path: Any) -> None:
        if pathlib.Path(path).name == "record_val_last.json":
            raise OSError("Input/output error")
        write(self, path)

    monkeypatch.setattr(record.Record, "write", fail_once)
    trainer = toy.trainer(str(tmp_path), [_recorder()])
    data = toy.datamodule(test=toy.ToyDataset(first_seed=50))
    with pytest.raises(EvaCoralbayError, match="not recorded in full"):
        trainer.run_evaluation_session(toy.ToyModule(), data)
    (folder,) = _folders(tmp_path)
    assert [name for name in _records(folder) if name.endswith(".json")] == [
        "record_test_best.json",
        "record_test_last.json",
        "record_val_best.json",
    ]


def test_what_cannot_be_recorded_fails_before_the_training(tmp_path: pathlib.Path) -> None:
    """Several data sets, or a module without the metric, are errors at the start."""
    several = [toy.ToyDataset(), toy.ToyDataset(first_seed=50)]
    with pytest.raises(EvaCoralbayError, match="one data set a run, but `val` has 2"):
        toy.trainer(str(tmp_path), [_recorder()]).fit(
            toy.ToyModule(), datamodule=toy.datamodule(val=several)
        )
    module = toy.ToyModule()
    module.metrics = structs.MetricModule(None, None, None)
    with pytest.raises(EvaCoralbayError, match="list eva_coralbay.evaluation.CaseSegmentation"):
        toy.trainer(str(tmp_path), [_recorder()]).fit(module, datamodule=toy.datamodule())
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_last_checkpoint_that_is_the_best_is_rejected(tmp_path: pathlib.Path) -> None:
    """From lightning 2.6 on, `save_last` beside a monitor keeps the best as the last."""
    saver = callbacks.ModelCheckpoint(monitor="val/dice", mode="max", save_last=True)
    trainer = toy.trainer(str(tmp_path), [], callbacks=[saver, _recorder()])
    with pytest.raises(
        EvaCoralbayError, match="add a second ModelCheckpoint with `filename: last`"
    ):
        trainer.fit(toy.ToyModule(), datamodule=toy.datamodule())


def _run_eva(
    monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path, *arguments: str
) -> pathlib.Path:
    """Runs `eva fit` in this process, and returns the folder of its run."""
    folder.mkdir()
    monkeypatch.setenv("OUTPUT_ROOT", str(folder / "logs"))
    monkeypatch.setattr(sys, "argv", ["/usr/bin/eva", "fit", *arguments])
    monkeypatch.setattr(setup, "setup", lambda: None)
    monkeypatch.setattr(logo, "print_cli_logo", lambda: None)
    cli()
    (run,) = _folders(folder / "logs")
    return run


def _override(folder: pathlib.Path, **init_args: Any) -> str:
    """A configuration file that overrides arguments of the module."""
    path = folder / f"{'_'.join(init_args)}.yaml"
    model = {"class_path": "tests.eva_coralbay.evaluation.toy.ToyModule", "init_args": init_args}
    path.write_text(yaml.safe_dump({"model": model}))
    return str(path)


def test_the_configuration_is_the_resolved_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overrides, environment variables and defaults are in it, and it can be run again."""
    config = tmp_path / "config.yaml"
    config.write_text(toy.CONFIG)
    monkeypatch.setenv("MAX_STEPS", "4")
    first = _run_eva(
        monkeypatch, tmp_path / "a", f"--config={config}", "--config", _override(tmp_path, lr=0.25)
    )

    config_file = first / "config.yaml"
    content = yaml.safe_load(config_file.read_text())
    assert record.Record.read(first / "record_val_best.json").config == record.ConfigFile(
        file="config.yaml", sha256=hashlib.sha256(config_file.read_bytes()).hexdigest()
    )
    assert set(content) == {"trainer", "model", "data"}
    assert content["trainer"]["init_args"]["max_steps"] == 4
    assert content["trainer"]["init_args"]["default_root_dir"] == str(tmp_path / "a" / "logs")
    assert content["model"]["init_args"] == {"lr": 0.25, "worsens": False, "seed": 0}
    assert content["data"]["init_args"]["datasets"]["val"]["init_args"]["n_cases"] == 3

    monkeypatch.delenv("MAX_STEPS")
    moved = tmp_path / "moved.yaml"
    moved.write_text(config_file.read_text().replace("/a/logs", "/b/logs"))
    again = _run_eva(
        monkeypatch,
        tmp_path / "b",
        "--config",
        str(moved),
        f"--config={_override(tmp_path, seed=3)}",
    )
    records = [record.Record.read(run / "record_val_last.json") for run in (first, again)]
    assert records[0].task.config_sha256 == records[1].task.config_sha256 is not None
    assert records[0].metrics == records[1].metrics
    assert [read.seed for read in records] == [0, 3]


def test_case_tables_of_equal_runs_are_equal(tmp_path: pathlib.Path) -> None:
    """Nothing in them depends on the time or the place of a run."""
    tables = []
    for name in ("a", "b"):
        trainer = toy.trainer(str(tmp_path / name), [_recorder()])
        trainer.run_evaluation_session(toy.ToyModule(), toy.datamodule())
        (folder,) = _folders(tmp_path / name)
        tables.append((folder / "record_val_last.cases.csv").read_bytes())
    assert tables[0] == tables[1]
