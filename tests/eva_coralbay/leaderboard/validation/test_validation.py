"""Tests the validation: good folders pass, and warnings are told from faults."""

import dataclasses
import hashlib
import json
import pathlib
import subprocess
import sys

import pytest

from eva_coralbay.cli import main
from eva_coralbay.leaderboard import validation
from eva_coralbay.leaderboard.page import gathering
from eva_coralbay.results import case_table, run_config
from eva_coralbay.results import folder as results_folder
from eva_coralbay.tasks import protocols
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.leaderboard import result_files
from tests.eva_coralbay.leaderboard.validation import editing


def test_a_good_folder_has_no_faults(folder: pathlib.Path) -> None:
    assert validation.validate(folder) == []
    assert validation.validate(folder / "lab__net") == []
    assert validation.validate(editing.entry(folder).path) == []
    assert len(results_folder.find(folder)) == 6


def test_mixed_versions_are_a_warning(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the records of a task, the one is named that is not like the others."""
    entry = editing.entry(folder)
    editing.edit(entry, environment__packages={"eva-coralbay": "0.1.0", "monai": "1.6.0"})
    (fault,) = validation.validate(folder)
    assert (fault.path, fault.where) == (entry.path, "environment.packages.monai")
    assert "is 1.6.0, but 1.5.0 in 2 of the 3 records of btcv@1" in fault.message
    assert main.main(["leaderboard", "validate", str(folder)]) == 0
    assert "warning" in capsys.readouterr().out


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_record_of_each_released_version_is_valid(version: str, tmp_path: pathlib.Path) -> None:
    result_files.write(tmp_path, task="msd_task06_lung", version=version)

    assert [str(fault) for fault in validation.validate(tmp_path) if not fault.is_warning] == []


def test_settings_of_an_older_version_are_no_settings_of_a_newer_one(
    tmp_path: pathlib.Path,
) -> None:
    """Version 2 of this task has another HU window."""
    entry = result_files.write(tmp_path, task="msd_task06_lung", version="1")
    config = run_config.read(entry.config_path)
    protocol = protocols.PROTOCOLS["frozen"]

    changes = run_config.find_changes(config, "msd_task06_lung", "2", protocol)

    assert changes == {
        "data.init_args.hu_window.0": (-175.0, -1000.0),
        "data.init_args.hu_window.1": (250.0, 400.0),
    }


def test_a_demo_has_any_settings(folder: pathlib.Path) -> None:
    entry = editing.entry(folder)
    editing.edit_config(entry, "trainer", max_steps=6)
    editing.edit(entry, kind="demo", checkpoint__step=6)
    assert not [fault for fault in validation.validate(folder) if not fault.is_warning]


def test_embeddings_have_settings_of_their_own(tmp_path: pathlib.Path) -> None:
    """They are of another protocol, so that they are not ranked with crops that are drawn anew."""
    config = result_files.describe(
        task="luna25", model="lab/net", protocol="frozen-offline", seed=0
    )
    assert (
        run_config.find_changes(config, "luna25", "1", protocols.PROTOCOLS["frozen-offline"]) == {}
    )
    changes = run_config.find_changes(config, "luna25", "1", protocols.PROTOCOLS["frozen"])
    assert changes["trainer.max_steps"] == (12500, 5000)


def test_a_segmentation_has_no_embeddings(tmp_path: pathlib.Path) -> None:
    result_files.write(tmp_path, protocol="frozen-offline")
    fault, *_ = validation.validate(tmp_path)
    assert (fault.where, fault.is_warning) == ("protocol", False)
    assert "which only a classification has" in fault.message


def test_a_classification_has_no_input_of_the_encoder(tmp_path: pathlib.Path) -> None:
    result_files.write(tmp_path, task="luna25", protocol="probe-native")
    messages = [fault.message for fault in validation.validate(tmp_path)]
    assert any("which only a segmentation has" in message for message in messages)


def test_other_weights_of_a_model_are_a_warning(folder: pathlib.Path) -> None:
    entry = result_files.write(folder, task="lits17")
    other = result_files.write(folder, task="word")
    editing.edit(other, model__weights_sha256="2" * 64)
    (fault,) = validation.validate(folder)
    assert (fault.path, fault.where) == (other.path, "model.weights_sha256")
    assert entry.record.model.weights_sha256 in fault.message and fault.is_warning


def test_verified_records_are_there_and_as_they_were(folder: pathlib.Path) -> None:
    """The list that the page reads is one that the validation takes."""
    entry, verified = editing.entry(folder), folder / results_folder.VERIFIED
    digest = hashlib.sha256(entry.path.read_bytes()).hexdigest()
    line = f"{digest}  {entry.path.relative_to(folder)}\n"
    verified.write_text(line)
    assert validation.validate(folder) == []
    track, *_ = gathering.gather(results_folder.find(folder), {}, [], folder).tracks
    assert sum(row.n_verified for row in track.rows) == 1

    verified.write_text(line + f"{digest}  ../elsewhere.json\n" + f"{digest}  lab__a/x.json\n")
    faults = validation.validate(folder)
    assert [fault.where for fault in faults] == ["../elsewhere.json", "lab__a/x.json"]
    assert all("is not a record of this folder" in fault.message for fault in faults)
    verified.write_text(line.replace(digest, "0" * 64))
    (fault,) = validation.validate(folder)
    assert "has changed since it was verified" in fault.message
    verified.write_text(line + "yes\n")
    (fault,) = validation.validate(folder)
    assert "line 2: write the SHA-256 of a record" in fault.message


def test_cards_and_reported_numbers_are_checked(folder: pathlib.Path) -> None:
    for name in ("models", "reported"):
        (folder.parent / name).mkdir()
    card = folder.parent / "models" / "lab__net.yaml"
    card.write_text("id: lab/net\nname: Net\n")
    numbers = folder.parent / "reported" / "lab__net.json"
    numbers.write_text('[{"model": "lab/net"}]')
    link = folder.parent / "models" / "lab__link.yaml"
    link.symlink_to(card)
    faults = validation.validate(folder)
    assert {fault.path for fault in faults} == {card, numbers, link}
    assert "license" in {fault.where for fault in faults if fault.path == card}
    assert "0.value" in {fault.where for fault in faults if fault.path == numbers}
    assert ["is a link" in fault.message for fault in faults if fault.path == link] == [True]


def test_other_settings_of_a_task_are_a_warning(folder: pathlib.Path) -> None:
    entry = editing.entry(folder)
    editing.swap_config(entry)
    editing.edit(entry, task__config_sha256="0" * 64)
    where = [fault.where for fault in validation.validate(folder) if fault.is_warning]
    assert where == ["task.config_sha256"]


def test_all_faults_are_told(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not only the first one; and the exit code is that of a failure."""
    editing.change_metric(editing.entry(folder))
    editing.edit(editing.entry(folder), surprise=1, protocol=3)
    (folder / "lab__a__b" / "notes.txt").touch()
    assert main.main(["leaderboard", "validate", str(folder), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [fault["where"] for fault in told if "seed_0.json" in fault["path"]] == [
        "protocol",
        "surprise",
    ]
    assert [fault["level"] for fault in told] == ["error"] * 3

    assert main.main(["leaderboard", "validate", str(folder)]) == 1
    output = capsys.readouterr().out
    assert (
        f"error: {editing.entry_path(folder)}: surprise: Extra inputs are not permitted" in output
    )
    assert "3 errors, 0 warnings" in output


def test_one_error_is_counted_as_one(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    editing.edit(editing.entry(folder), protocol=3)

    assert main.main(["leaderboard", "validate", str(folder)]) == 1
    assert "1 error, 0 warnings" in capsys.readouterr().out


def test_a_message_is_one_line(folder: pathlib.Path) -> None:
    """A name cannot end the line, or color the terminal of who checks."""
    (folder / "a\n::error::b\x1b[31m.txt").touch()
    (fault,) = validation.validate(folder)
    assert str(fault).isprintable() and r"a\n::error::b\x1b[31m.txt" in str(fault)


def test_an_empty_folder_is_a_fault(tmp_path: pathlib.Path) -> None:
    (fault,) = validation.validate(tmp_path)
    assert "there is no record" in fault.message
    with pytest.raises(ValueError, match="There is no file or folder"):
        validation.validate(tmp_path / "missing")


def test_classifications_are_checked(tmp_path: pathlib.Path) -> None:
    """A missing class of a case, or a probability above 1, is found."""
    classes = result_files.class_names("nodule_mnist_3d")
    cases = splits_lib.read_splits("nodule_mnist_3d").schemes["official"]["test"]
    rows = [
        case_table.PredictionRow(case, name, "probability", value, truth, case)
        for index, case in enumerate(cases)
        for name, value, truth in zip(
            classes, (0.25, 0.75), (index % 2, 1 - index % 2), strict=True
        )
    ]
    entry = result_files.write(tmp_path, task="nodule_mnist_3d", rows=rows)
    assert validation.validate(tmp_path) == []

    table = case_table.write(
        entry.cases_path, [dataclasses.replace(rows[0], value=3.0), *rows[1:-1]]
    )
    editing.edit(entry, cases=table.model_dump())
    messages = "\n".join(map(str, validation.validate(tmp_path)))
    assert "line 2: probability of" in messages and "is 3.0, but lies in 0 to 1" in messages
    assert f"has no probability of {classes[-1]}" in messages
    assert "does not have the classes" in messages


def test_importing_it_imports_no_torch() -> None:
    names = (
        "leaderboard.validation",
        "leaderboard.verification",
        "results.folder",
        "results.record",
        "results.run_config",
        "results.scores",
    )
    imports = ", ".join(f"eva_coralbay.{name}" for name in names)
    code = f"import sys, {imports}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("step", "is_refused"), [(0, False), (6, True), (20000, True)])
def test_a_probe_takes_no_step(tmp_path: pathlib.Path, step: int, is_refused: bool) -> None:
    """The limit of its trainer is not a number of steps that it was to do."""
    entry = result_files.write(tmp_path, model="lab/net", task="openkbp", protocol="probe")
    editing.edit(entry, checkpoint__step=step)
    places = [fault.where for fault in validation.validate(tmp_path)]
    assert ("checkpoint.step" in places) == is_refused


def test_label_maps_of_other_programs_need_no_configuration(tmp_path: pathlib.Path) -> None:
    entry = result_files.write(
        tmp_path,
        protocol="external",
        config=None,
        checkpoint={"selection": "last", "step": None},
    )
    entry.config_path.unlink()
    assert validation.validate(tmp_path) == []
    other = result_files.write(tmp_path, config=None)
    faults = [fault for fault in validation.validate(tmp_path) if not fault.is_warning]
    assert [(fault.path, fault.where) for fault in faults] == [(other.path, "config")]


def test_what_other_programs_have_trained_is_no_encoder_of_the_registry(
    tmp_path: pathlib.Path,
) -> None:
    result_files.write(tmp_path, protocol="external", config=None, model="radiology/voco_b")
    messages = [fault.message for fault in validation.validate(tmp_path)]
    assert any("the name of an encoder, but another program" in message for message in messages)


def test_a_classification_has_no_label_maps(tmp_path: pathlib.Path) -> None:
    result_files.write(tmp_path, task="luna25", protocol="external", config=None)
    messages = [fault.message for fault in validation.validate(tmp_path)]
    assert any("which only a segmentation has" in message for message in messages)
