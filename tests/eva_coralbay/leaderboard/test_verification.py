"""Tests of the verification: what differs is told, and a run can be repeated."""

import dataclasses
import hashlib
import json
import pathlib
import subprocess
import sys
from typing import Any, Literal

import pytest
import yaml

from eva_coralbay.cli import leaderboard, main
from eva_coralbay.leaderboard import verification
from eva_coralbay.models import CoralBayEncoder
from eva_coralbay.models.description import describe_encoder
from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import record
from tests.eva_coralbay.evaluation import toy
from tests.eva_coralbay.leaderboard import result_files


class _Run:
    """Stands for eva: keeps the configuration and leaves a record."""

    def __init__(self, leaves: record.Record | None, returncode: int = 0) -> None:
        """Initializes the run."""
        self.returncode = returncode
        self.command: list[str] = []
        self.config: Any = None
        self._leaves = leaves

    def __call__(self, command: list[str], **kwargs: Any) -> "_Run":
        self.command = command
        self.config = yaml.safe_load(pathlib.Path(command[-1]).read_text())
        if self._leaves is not None:
            folder = pathlib.Path(self.config["trainer"]["init_args"]["default_root_dir"])
            self._leaves.write(folder / "1" / "run_0" / "record_test_last.json")
        return self


def test_the_metrics_are_those_of_the_table(tmp_path: pathlib.Path) -> None:
    entry = result_files.write(tmp_path)
    assert verification.recompute(entry) == entry.record.metrics
    assert verification.verify(entry) == []


def test_other_metrics_are_told(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed, a missing and an invented one."""
    entry = result_files.write(tmp_path)
    dice = entry.record.metrics["dice"]
    metrics = {**entry.record.metrics, "dice": dice + 1e-6, "nsd": 0.5}
    del metrics["dice_spleen"]
    entry.record.model_copy(update={"metrics": metrics}).write(entry.path)

    assert main.main(["leaderboard", "verify", str(entry.path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [(each["where"], each["found"]) for each in told] == [
        ("metrics.dice", dice),
        ("metrics.nsd", None),
        ("metrics.dice_spleen", entry.record.metrics["dice_spleen"]),
    ]
    assert main.main(["leaderboard", "verify", str(entry.path)]) == 1
    output = capsys.readouterr().out
    assert "metrics.nsd: 0.5 recorded, None by case table" in output
    assert "3 differences between the record and its case table" in output


@pytest.mark.parametrize("name", ["cases", "config"])
def test_other_files_are_not_those_of_the_record(
    tmp_path: pathlib.Path, name: Literal["cases", "config"]
) -> None:
    """A table of other values can add up to the same metrics; its hash tells."""
    entry = result_files.write(tmp_path)
    path = getattr(entry, f"{name}_path")
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ValueError, match="is not the file that the record states") as error:
        verification.verify(entry, rerun=True)
    stated = getattr(entry.record, name).sha256
    assert str(path) in str(error.value) and stated in str(error.value)


def test_a_file_that_is_not_there_is_named(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = result_files.write(tmp_path)
    for path, options in ((entry.config_path, ["--rerun"]), (entry.cases_path, [])):
        path.unlink()
        assert main.main(["leaderboard", "verify", str(entry.path), *options]) == 1
        message = capsys.readouterr().err
        assert f"error: {path} cannot be read (No such file or directory): put" in message
    entry.path.unlink()
    assert main.main(["leaderboard", "verify", str(entry.path)]) == 1
    message = capsys.readouterr().err
    assert f"error: {entry.path} cannot be read (No such file or directory)" in message


def test_distances_of_a_repetition_are_not_compared(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tolerance is of metrics in [0, 1]; a distance in mm is compared with the table only."""
    rows = result_files.draw_rows(["a", "b"], ["lung", "liver"], seed=0)
    distances = [dataclasses.replace(row, metric="hd95", value=12.5) for row in rows[1:]]
    entry = result_files.write(tmp_path, task="own", rows=[*rows, *distances])
    metrics = entry.record.metrics
    others = {name: 13.5 if name.startswith("hd95") else value for name, value in metrics.items()}
    assert sum(name.startswith("hd95") for name in metrics) == 3
    repeated = entry.record.model_copy(update={"metrics": others})
    monkeypatch.setattr(subprocess, "run", _Run(repeated))
    assert verification.verify(entry, rerun=True) == []

    wrong = dataclasses.replace(entry, record=repeated)
    found = [each.where for each in verification.verify(wrong)]
    assert found == ["metrics.hd95", "metrics.hd95_lung", "metrics.hd95_liver"]


def test_a_repetition_is_compared(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics within the tolerance; weights, data, cases and settings exactly."""
    entry = result_files.write(tmp_path)
    repeated = entry.record.model_copy(
        update={
            "metrics": {
                **entry.record.metrics,
                "dice": entry.record.metrics["dice"] + 0.004,
                "dice_spleen": entry.record.metrics["dice_spleen"] - 0.02,
            },
            "model": entry.record.model.model_copy(update={"weights_sha256": "3" * 64}),
        }
    )
    monkeypatch.setattr(subprocess, "run", _Run(repeated))
    found = verification.verify(entry, rerun=True)
    assert [each.where for each in found] == ["metrics.dice_spleen", "model.weights_sha256"]
    assert {each.source for each in found} == {"rerun"}
    found = verification.verify(entry, rerun=True, tolerance=0.001)
    assert next(each.where for each in found) == "metrics.dice"


def test_a_repetition_is_of_the_same_encoder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal weights with other patch merging are another encoder; old records do not state it."""
    encoders = [
        record.Encoder(**describe_encoder(CoralBayEncoder(12, patch_merging=merging)))
        for merging in ("octants", "legacy")
    ]
    own = encoders[0].model_dump()
    entry = result_files.write(tmp_path / "new", task="own", encoder=own)
    old = result_files.write(tmp_path / "old", task="own")

    for encoder, expected in (
        (encoders[0], []),
        (encoders[1], ["encoder"]),
        (None, ["encoder"]),
    ):
        repeated = entry.record.model_copy(update={"encoder": encoder})
        monkeypatch.setattr(subprocess, "run", _Run(repeated))
        found = verification.verify(entry, rerun=True)
        assert [(each.source, each.where) for each in found] == [("rerun", w) for w in expected]
        assert verification.verify(old, rerun=True) == []
    assert "legacy" in str(verification.Difference("rerun", "encoder", *encoders))


def test_a_repetition_is_of_this_machine(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seed is the record's; folders and device are those of the environment."""
    entry = result_files.write(tmp_path, seed=4)
    config = yaml.safe_load(entry.config_path.read_text())
    config["trainer"]["init_args"] |= {"accelerator": "gpu", "n_runs": 5}
    config["model"]["init_args"]["seed"] = 0
    config["data"]["init_args"]["dataset"]["init_args"] = {"root": "/theirs", "fold": 2}
    run = _Run(entry.record)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("DATA_ROOT", "/mine")
    monkeypatch.setenv("ACCELERATOR", "cpu")
    monkeypatch.setenv("CHECKPOINT", "unused")
    verification.verify(_with_config(entry, config), rerun=True)

    assert run.command[:-1] == [sys.executable, "-m", "eva", "fit", "--config"]
    trainer = run.config["trainer"]["init_args"]
    assert (trainer["accelerator"], trainer["n_runs"]) == ("cpu", 1)
    assert run.config["model"]["init_args"]["seed"] == 4
    assert run.config["model"]["init_args"]["encoder"] == {"class_path": "Net"}
    assert run.config["data"]["init_args"]["dataset"]["init_args"] == {"root": "/mine", "fold": 2}
    assert not pathlib.Path(trainer["default_root_dir"]).exists()


def test_embeddings_are_computed_anew(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = result_files.write(tmp_path)
    config = yaml.safe_load(entry.config_path.read_text())
    config["data"]["init_args"]["embeddings_root"] = "/theirs"
    config["trainer"]["init_args"]["callbacks"] = [
        {"class_path": "EmbeddingsWriter", "init_args": {"output_dir": "/theirs"}},
        {"class_path": "Other"},
    ]
    run = _Run(entry.record)
    monkeypatch.setattr(subprocess, "run", run)
    verification.verify(_with_config(entry, config), rerun=True)
    assert run.command[3] == "predict_fit"
    folder = run.config["data"]["init_args"]["embeddings_root"]
    callbacks = run.config["trainer"]["init_args"]["callbacks"]
    assert folder != "/theirs" and callbacks[0]["init_args"]["output_dir"] == folder


def test_what_cannot_be_repeated_is_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = result_files.write(tmp_path)
    monkeypatch.setattr(subprocess, "run", _Run(None))
    with pytest.raises(ValueError, match="has left 0 records of the test cases and the last"):
        verification.verify(entry, rerun=True)
    monkeypatch.setattr(subprocess, "run", _Run(entry.record, returncode=1))
    with pytest.raises(ValueError, match="seed_0.config.yaml failed: see its output"):
        verification.verify(entry, rerun=True)
    entry.config_path.write_text("a: 1")
    with pytest.raises(ValueError, match="is not the file that the record states"):
        verification.verify(entry, rerun=True)
    without = entry.record.model_copy(update={"config": None})
    with pytest.raises(ValueError, match="states no configuration"):
        verification.verify(dataclasses.replace(entry, record=without), rerun=True)


def test_the_command_has_the_tolerance_of_the_function() -> None:
    parser = leaderboard.argparse.ArgumentParser()
    leaderboard.Verify().add_arguments(parser)
    assert parser.parse_args(["record"]).tolerance == verification.RERUN_TOLERANCE


@pytest.mark.slow
def test_a_run_of_eva_is_repeated(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same CPU it gives the same metrics; with other settings it does not."""
    (tmp_path / "config.yaml").write_text(toy.CONFIG)
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path / "logs"))
    command = [sys.executable, "-m", "eva", "fit", "--config", str(tmp_path / "config.yaml")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (run,) = (path.parent for path in tmp_path.rglob("record_val_last.json"))
    for suffix in (".json", ".cases.csv"):
        (run / f"record_val_last{suffix}").rename(run / f"seed_0{suffix}")
    (run / "config.yaml").rename(run / "seed_0.config.yaml")
    entry = results_folder.Entry(run / "seed_0.json", record.Record.read(run / "seed_0.json"))
    assert verification.verify(entry, rerun=True, tolerance=1e-9) == []

    config = yaml.safe_load(entry.config_path.read_text())
    config["trainer"]["init_args"]["max_steps"] = 2
    found = verification.verify(_with_config(entry, config), rerun=True, tolerance=1e-9)
    assert {"metrics.dice", "task.config_sha256"} <= {each.where for each in found}


def _with_config(entry: results_folder.Entry, config: Any) -> results_folder.Entry:
    """Writes another configuration, and states it."""
    content = yaml.safe_dump(config).encode()
    entry.config_path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    stated = record.ConfigFile(file=entry.config_path.name, sha256=sha256)
    return dataclasses.replace(entry, record=entry.record.model_copy(update={"config": stated}))
