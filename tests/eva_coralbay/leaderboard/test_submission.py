"""Tests the gathering of runs into the results folder."""

import hashlib
import json
import pathlib
from typing import Any

import pytest
import yaml

from eva_coralbay.cli import main
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.leaderboard import cards as model_cards
from eva_coralbay.leaderboard import submission, validation
from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import record
from tests.eva_coralbay.leaderboard import run_files

_PLACE = pathlib.Path("lab__net/unversioned/btcv@1/frozen/seed_0.json")


def _change_config(session: pathlib.Path, change: Any, *, name: str = "record_test_last") -> None:
    """Changes the configuration of a run, as if the run had had this one."""
    run = session / "run_0"
    config = yaml.safe_load((run / "config.yaml").read_text())
    change(config)
    content = yaml.safe_dump(config).encode()
    (run / "config.yaml").write_bytes(content)
    path = run / f"{name}.json"
    fields = json.loads(path.read_text())
    fields["config"]["sha256"] = hashlib.sha256(content).hexdigest()
    path.write_text(json.dumps(fields))


def test_runs_become_valid_results(tmp_path: pathlib.Path) -> None:
    runs = [run_files.write(tmp_path / "logs" / f"session_{seed}", seed=seed) for seed in (0, 1)]
    out = tmp_path / "leaderboard" / "results"

    submitted = submission.submit([tmp_path / "logs"], out)

    assert validation.validate(out) == []
    entries = results_folder.find(out)
    assert [entry.path.relative_to(out).name for entry in entries] == ["seed_0.json", "seed_1.json"]
    assert entries[0].path.relative_to(out) == _PLACE
    for entry, run in zip(entries, runs, strict=True):
        assert entry.record.metrics == run.metrics
        assert entry.record.environment == run.environment
        assert entry.record.kind == "measured"
    assert submitted.entries == entries
    mean = sum(run.metrics["dice"] or 0 for run in runs) / 2
    assert f"| btcv@1 | frozen | 0, 1 | 9 test | {mean:.3f} ± " in submitted.pull_request


def test_again_is_no_error_but_other_values_are(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "results"
    run_files.write(tmp_path / "first")
    run_files.write(tmp_path / "second", environment=_environment("0.2.0"))
    submission.submit([tmp_path / "first"], out)

    submission.submit([tmp_path / "first"], out)
    with pytest.raises(ValueError, match="seed_0.json already exists with other values"):
        submission.submit([tmp_path / "second"], out)


def _environment(version: str) -> dict[str, Any]:
    return {
        "packages": {"eva-coralbay": version},
        "python": "3.11.7",
        "torch": "2.7.0",
        "cuda": None,
        "device": "cpu",
    }


def test_paths_of_the_machine_are_removed(tmp_path: pathlib.Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["trainer"]["init_args"]["default_root_dir"] = "/home/jane/logs/btcv"
        config["data"]["init_args"]["dataset"]["init_args"] = {
            "root": "/mnt/secret/btcv/",
            "prepared_root": "C:\\Users\\jane\\prepared",
            "others": ["~/x", "../../jane/y", "file:///jane/z", "org/name@main"],
        }

    run_files.write(tmp_path / "logs")
    _change_config(tmp_path / "logs", change)

    written = submission.submit([tmp_path / "logs"], tmp_path / "results", is_demo=True)
    (entry,) = written.entries

    text = entry.config_path.read_text()
    assert "jane" not in text and "secret" not in text
    config = yaml.safe_load(text)
    assert config["trainer"]["init_args"]["default_root_dir"] == "btcv"
    assert config["data"]["init_args"]["dataset"]["init_args"] == {
        "root": "btcv",
        "prepared_root": "prepared",
        "others": ["x", "y", "z", "org/name@main"],
    }


def test_the_config_is_of_the_one_run(tmp_path: pathlib.Path) -> None:
    """Of a session of several runs, each has the seed of the first in its configuration."""

    def change(config: dict[str, Any]) -> None:
        config["trainer"]["init_args"]["n_runs"] = 5
        config["model"]["init_args"]["seed"] = 0

    run_files.write(tmp_path / "logs", seed=3)
    _change_config(tmp_path / "logs", change)
    (entry,) = submission.submit([tmp_path / "logs"], tmp_path / "results").entries
    config = yaml.safe_load(entry.config_path.read_text())
    assert config["trainer"]["init_args"]["n_runs"] == 1
    assert config["model"]["init_args"]["seed"] == 3


@pytest.mark.parametrize("name", ["config.yaml", "record_test_last.cases.csv"])
def test_a_missing_file_is_named(tmp_path: pathlib.Path, name: str) -> None:
    run_files.write(tmp_path / "logs")
    (tmp_path / "logs" / "run_0" / name).unlink()
    with pytest.raises(ValueError, match=f"{name} cannot be read .No such file"):
        submission.submit([tmp_path / "logs"], tmp_path / "results")


@pytest.mark.parametrize("name", ["config.yaml", "record_test_last.cases.csv"])
def test_what_is_no_file_is_not_read(tmp_path: pathlib.Path, name: str) -> None:
    """A device has no end."""
    run_files.write(tmp_path / "logs")
    path = tmp_path / "logs" / "run_0" / name
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=f"{name} is a folder, a pipe or a device"):
        submission.submit([tmp_path / "logs"], tmp_path / "results")


@pytest.mark.parametrize("part", ["cases", "config"])
@pytest.mark.parametrize("name", ["../../../etc/passwd", "..", "", "a\x1bb"])
def test_a_file_elsewhere_is_not_taken(tmp_path: pathlib.Path, part: str, name: str) -> None:
    run_files.write(tmp_path / "logs")
    path = tmp_path / "logs" / "run_0" / "record_test_last.json"
    fields = json.loads(path.read_text())
    fields[part]["file"] = name
    path.write_text(json.dumps(fields))
    with pytest.raises(EvaCoralbayError, match="states a file that is not beside it"):
        submission.submit([tmp_path / "logs"], tmp_path / "results")


def test_a_terminal_obeys_nothing_in_the_text(tmp_path: pathlib.Path) -> None:
    model = {"id": "lab/net", "revision": None, "weights_sha256": "1" * 64, "parameters": 6}
    model |= {"license": "MIT\x1b[31m", "training_datasets": None}
    run_files.write(tmp_path / "logs")
    path = tmp_path / "logs" / "run_0" / "record_test_last.json"
    fields = json.loads(path.read_text())
    fields["model"] |= model
    path.write_text(json.dumps(fields))
    text = submission.submit([tmp_path / "logs"], tmp_path / "results").pull_request
    assert "\\x1b[31m" in text and "\x1b" not in text


def test_the_record_that_the_protocol_ranks_is_taken(tmp_path: pathlib.Path) -> None:
    last = run_files.write(tmp_path / "logs")
    best = {"selection": "best", "step": 3}
    run_files.write(tmp_path / "logs", name="record_test_best", checkpoint=best)
    val = {"name": "fold_0", "part": "val", "n": 1, "ids_sha256": "3" * 64}
    run_files.write(tmp_path / "logs", name="record_val_last", split=val)

    (entry,) = submission.find_ranked([tmp_path])

    assert entry.record == last


def test_of_an_evaluation_as_evas_the_best_on_val_is_taken(tmp_path: pathlib.Path) -> None:
    run_files.write(
        tmp_path / "logs",
        name="record_test_best",
        protocol="frozen-eva",
        split={"name": "voco@1", "part": "test", "n": 1, "ids_sha256": "3" * 64},
    )
    best = run_files.write(tmp_path / "logs", name="record_val_best", protocol="frozen-eva")

    (entry,) = submission.find_ranked([tmp_path])

    assert entry.record == best


def test_a_repetition_replaces_an_interrupted_session(tmp_path: pathlib.Path) -> None:
    run_files.write(tmp_path / "logs" / "a", is_finished=False)
    run_files.write(tmp_path / "logs" / "b")
    run_files.write(tmp_path / "logs" / "c", seed=1, is_finished=False)

    found = submission.find_ranked([tmp_path])

    assert [entry.path.parts[-3] for entry in found] == ["b", "c"]


def test_two_runs_of_a_cell_are_refused(tmp_path: pathlib.Path) -> None:
    run_files.write(tmp_path / "logs" / "a")
    run_files.write(tmp_path / "logs" / "b")

    with pytest.raises(ValueError, match="same model, task, protocol and seed"):
        submission.submit([tmp_path / "logs"], tmp_path / "results")


def test_what_is_not_valid_is_not_written(tmp_path: pathlib.Path) -> None:
    run_files.write(tmp_path / "good")
    run_files.write(tmp_path / "bad", seed=1, metrics={"dice": 0.99})

    with pytest.raises(ValueError, match="seed_1.json: metrics.dice: is 0.99, but the case table"):
        submission.submit([tmp_path / "good", tmp_path / "bad"], tmp_path / "results")

    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "models").exists()


def test_own_data_are_demo_only(tmp_path: pathlib.Path) -> None:
    run_files.write(tmp_path / "logs", task="phantom")

    with pytest.raises(ValueError, match="A result on other data is of kind `demo`"):
        submission.submit([tmp_path / "logs"], tmp_path / "results")
    (entry,) = submission.submit([tmp_path / "logs"], tmp_path / "results", is_demo=True).entries

    assert record.Record.read(entry.path).kind == "demo"


def test_the_model_is_named(tmp_path: pathlib.Path) -> None:
    run_files.write(tmp_path / "logs")
    path = tmp_path / "logs" / "run_0" / "record_test_last.json"
    path.write_text(path.read_text().replace('"lab/net"', '"net"'))

    with pytest.raises(ValueError, match="named <organization>/<model>.*by --model-id"):
        submission.submit([tmp_path / "logs"], tmp_path / "results")
    submission.submit([tmp_path / "logs"], tmp_path / "results", model_id="lab/net")

    assert validation.validate(tmp_path / "results") == []
    assert (tmp_path / "results" / _PLACE).is_file()


def test_one_name_is_not_given_to_several_models(tmp_path: pathlib.Path) -> None:
    run_files.write(tmp_path / "a", model="lab/a")
    run_files.write(tmp_path / "b", model="lab/b")

    with pytest.raises(ValueError, match=r"several models \(lab/a, lab/b\)"):
        submission.submit([tmp_path / "a", tmp_path / "b"], tmp_path / "out", model_id="lab/c")


def test_own_weights_do_not_take_the_name_of_the_published_ones(tmp_path: pathlib.Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["model"]["init_args"]["encoder"]["init_args"] = {
            "model_name": "radiology/coralbay",
            "model_kwargs": {"checkpoint": "/home/jane/encoder"},
        }

    run_files.write(tmp_path / "logs", model="radiology/coralbay")
    _change_config(tmp_path / "logs", change)

    with pytest.raises(ValueError, match="own weights .* under the name of the published ones"):
        submission.submit([tmp_path / "logs"], tmp_path / "results")
    (entry,) = submission.submit(
        [tmp_path / "logs"], tmp_path / "results", model_id="lab/net"
    ).entries

    assert "jane" not in entry.config_path.read_text()


def test_facts_are_those_of_the_card(tmp_path: pathlib.Path) -> None:
    run_files.write(tmp_path / "logs")
    card = {
        "id": "lab/net",
        "name": "Net",
        "revision": "v1",
        "weights": {"url": "https://example.org/net", "sha256": None},
        "license": "MIT",
        "parameters": None,
        "pretraining": [
            {"name": "S", "scans": 3, "use": "unlabeled", "source": "https://example.org"}
        ],
        "overlap": {},
        "sources": [],
    }
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "lab__net.yaml").write_text(yaml.safe_dump(card))

    submitted = submission.submit([tmp_path / "logs"], tmp_path / "results")

    model = submitted.entries[0].record.model
    assert (model.revision, model.license, model.training_datasets) == ("v1", "MIT", ["S"])
    assert model.parameters == 6
    assert submitted.entries[0].path.parts[-4] == "v1"
    assert submitted.templates == []
    assert "- license: MIT" in submitted.pull_request


def test_a_model_without_a_card_gets_one_to_fill_in(tmp_path: pathlib.Path) -> None:
    run_files.write(tmp_path / "logs")

    submitted = submission.submit([tmp_path / "logs"], tmp_path / "results")

    assert submitted.templates == [tmp_path / "models" / "lab__net.yaml"]
    card = model_cards.find(tmp_path / "models")["lab/net"]
    assert card.pretraining is None and card.license is None
    assert "- license: unknown" in submitted.pull_request

    text = submitted.templates[0].read_text()
    submitted.templates[0].write_text(text.replace("license: null ", "license: MIT "))
    again = submission.submit([tmp_path / "logs"], tmp_path / "results")
    assert again.entries[0].record.model.license == "MIT"
    assert again.templates == []


def test_a_changed_config_is_refused(tmp_path: pathlib.Path) -> None:
    run_files.write(tmp_path / "logs")
    path = tmp_path / "logs" / "run_0" / "config.yaml"
    path.write_text(path.read_text() + "\n")

    with pytest.raises(ValueError, match="config.yaml was changed after the run"):
        submission.submit([tmp_path / "logs"], tmp_path / "results")


def test_command(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_files.write(tmp_path / "logs")
    arguments = ["--out", str(tmp_path / "results"), "--demo"]

    exit_code = main.main(["leaderboard", "submit", str(tmp_path / "logs"), *arguments])

    printed = capsys.readouterr()
    assert exit_code == 0
    assert printed.out.startswith("# Results of lab/net\n")
    assert "kind: demo" in printed.out
    assert "fill in this card, then submit again" in printed.err


def test_command_without_a_run(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = main.main(["leaderboard", "submit", str(tmp_path)])

    assert exit_code == 1
    assert "There is no record below" in capsys.readouterr().err
