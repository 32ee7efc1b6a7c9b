"""Tests of the validation: good folders pass, and every fault is found and named."""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import yaml

from eva_coralbay.cli import main
from eva_coralbay.leaderboard import validation
from eva_coralbay.leaderboard.page import gathering
from eva_coralbay.results import case_table, record, run_config, scores
from eva_coralbay.results import folder as results_folder
from eva_coralbay.tasks import protocols
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.leaderboard import result_files

_CONFIGS = pathlib.Path(__file__).parents[3] / "configs" / "vision" / "radiology"


def _edit(entry: results_folder.Entry, **changes: Any) -> None:
    """Changes fields of a record on the disk, by `part__field`."""
    content = json.loads(entry.path.read_text())
    for name, value in changes.items():
        part, _, field = name.partition("__")
        if field:
            content[part][field] = value
        else:
            content[part] = value
    entry.path.write_text(json.dumps(content))


def _rewrite(
    entry: results_folder.Entry, rows: list[case_table.Row], *, metrics: bool = True
) -> None:
    """Writes another case table, with a record that fits to it."""
    table = case_table.write(entry.cases_path, rows)
    _edit(entry, cases=table.model_dump())
    if metrics:
        found = scores.summarize(rows)
        _edit(entry, metrics={k: None if v != v else v for k, v in found.items()})


def _change_metric(entry: results_folder.Entry) -> None:
    _edit(entry, metrics__dice=0.99)


def _change_row(entry: results_folder.Entry) -> None:
    text = entry.cases_path.read_text()
    value = next(row.value for row in entry.rows if row.value)
    entry.cases_path.write_text(text.replace(repr(value), "1.0", 1))


def _change_row_and_hash(entry: results_folder.Entry) -> None:
    rows = entry.rows
    rows[1] = dataclasses.replace(rows[1], value=0.5, truth_voxels=3, predicted_voxels=2)
    _rewrite(entry, rows)


def _raise_dice(entry: results_folder.Entry) -> None:
    rows = entry.rows
    rows[1] = dataclasses.replace(rows[1], value=1.25)
    _rewrite(entry, rows)


def _drop_case(entry: results_folder.Entry) -> None:
    _rewrite(entry, [row for row in entry.rows if row.case != entry.rows[-1].case])


def _drop_row(entry: results_folder.Entry) -> None:
    _rewrite(entry, entry.rows[:-1])


def _drop_class(entry: results_folder.Entry) -> None:
    _rewrite(entry, [row for row in entry.rows if row.class_name != "spleen"])


def _repeat_row(entry: results_folder.Entry) -> None:
    lines = entry.cases_path.read_text().splitlines()
    entry.cases_path.write_text("\n".join([*lines, lines[-1]]) + "\n")


def _count_wrong(entry: results_folder.Entry) -> None:
    _edit(entry, cases__rows=5)


def _other_split(entry: results_folder.Entry) -> None:
    _edit(entry, split__name="voco@1")


def _other_cases(entry: results_folder.Entry) -> None:
    rows = [dataclasses.replace(row, case=f"my_{row.case}") for row in entry.rows]
    _rewrite(entry, rows)
    _edit(entry, split__ids_sha256=record.ids_sha256([row.case for row in rows]))


def _copy_as_seed_7(entry: results_folder.Entry) -> None:
    for path in (entry.path, entry.cases_path, entry.config_path):
        shutil.copy(path, path.with_name(path.name.replace("seed_0", "seed_7")))


def _move(entry: results_folder.Entry) -> None:
    folder = entry.path.parents[2] / "btcv@2" / "frozen"
    folder.mkdir(parents=True)
    for path in (entry.path, entry.cases_path, entry.config_path):
        path.rename(folder / path.name)


def _nan(entry: results_folder.Entry) -> None:
    entry.path.write_text(re.sub(r'"dice": [\d.e-]+', '"dice": NaN', entry.path.read_text()))


def _nan_in_table(entry: results_folder.Entry) -> None:
    text = entry.cases_path.read_text()
    value = next(row.value for row in entry.rows if row.value)
    entry.cases_path.write_text(text.replace(repr(value), "nan", 1))


def _truncate(entry: results_folder.Entry) -> None:
    entry.path.write_text(entry.path.read_text()[:-100])


def _repeat_key(entry: results_folder.Entry) -> None:
    entry.path.write_text(entry.path.read_text().replace('"seed":', '"seed": 3, "seed":'))


def _fill(path: pathlib.Path, size: int = 100_000_000) -> None:
    """Makes a sparse file of 100 MB."""
    with path.open("r+b") as file:
        file.truncate(size)


def _link(entry: results_folder.Entry) -> None:
    entry.cases_path.rename(entry.path.parents[5] / "elsewhere.csv")
    entry.cases_path.symlink_to(entry.path.parents[5] / "elsewhere.csv")


def _link_folder(entry: results_folder.Entry) -> None:
    (entry.path.parents[4] / "lab__other").symlink_to(entry.path.parents[3])


def _pipe(entry: results_folder.Entry) -> None:
    entry.cases_path.unlink()
    os.mkfifo(entry.cases_path)


def _swap_config(entry: results_folder.Entry) -> None:
    config = yaml.safe_load(entry.config_path.read_text())
    config["trainer"]["init_args"]["max_steps"] = 10**6
    _write_config(entry, config)


def _edit_config(entry: results_folder.Entry, part: str, **changes: Any) -> None:
    """Changes arguments in a configuration, and its two hashes in the record."""
    config = yaml.safe_load(entry.config_path.read_text())
    config[part]["init_args"] |= changes
    _write_config(entry, config)
    _edit(entry, task__config_sha256=run_config.sha256(config))


def _other_protocol_in_config(entry: results_folder.Entry) -> None:
    config = yaml.safe_load(entry.config_path.read_text())
    config["trainer"]["init_args"]["protocol"] = "scratch"
    _write_config(entry, config)


def _unsafe_config(entry: results_folder.Entry) -> None:
    entry.config_path.write_text("a: !!python/object/apply:os.abort []\n")


def _write_config(entry: results_folder.Entry, config: dict[str, Any]) -> None:
    content = yaml.safe_dump(config).encode()
    entry.config_path.write_bytes(content)
    _edit(entry, config__sha256=hashlib.sha256(content).hexdigest())


class _Tampering(NamedTuple):
    """What is done to a good result, and the fault that must be found."""

    name: str
    change: Callable[[results_folder.Entry], object]
    file: str
    where: str
    message: str


_TAMPERINGS = [
    _Tampering("changed metric", _change_metric, ".json", "metrics.dice", "is 0.99, but the case"),
    _Tampering("changed row", _change_row, ".json", "cases.sha256", "but the hash of seed_0.cases"),
    _Tampering("and its hash", _change_row_and_hash, ".cases.csv", "line 3", "which 3 voxels of"),
    _Tampering("dice above 1", _raise_dice, ".cases.csv", "line 3", "is 1.25, but lies in 0 to 1"),
    _Tampering("missing case", _drop_case, ".cases.csv", "", "lacks cases of the split: img00"),
    _Tampering("missing row", _drop_row, ".cases.csv", "case img0", "has no dice of left_adrenal"),
    _Tampering("missing class", _drop_class, ".cases.csv", "column class", "has the classes"),
    _Tampering("duplicate row", _repeat_row, ".cases.csv", "", "is twice"),
    _Tampering("wrong count", _count_wrong, ".json", "cases.rows", "is 5, but the case table has"),
    _Tampering(
        "wrong hash",
        lambda entry: _edit(entry, cases__sha256="5" * 64),
        ".json",
        "cases.sha256",
        "take the file as the run has written it",
    ),
    _Tampering(
        "no hash",
        lambda entry: _edit(entry, cases__sha256="5"),
        ".json",
        "cases.sha256",
        "should match pattern",
    ),
    _Tampering("another split", _other_split, ".json", "split.name", "split v1@1"),
    _Tampering("other cases", _other_cases, ".json", "split.ids_sha256", "on all 9 test cases"),
    _Tampering(
        "validation cases",
        lambda entry: _edit(entry, split__part="val"),
        ".json",
        "split.part",
        "is val, but btcv under protocol frozen is scored on all 9 test cases",
    ),
    _Tampering("duplicate", _copy_as_seed_7, "seed_7.json", "", "is of the same model, revision,"),
    _Tampering("wrong folder", _move, ".json", "", "by its content it belongs to lab__net/unver"),
    _Tampering("NaN", _nan, ".json", "", "NaN is no value in JSON"),
    _Tampering(
        "NaN in the table", _nan_in_table, ".cases.csv", "", "is nan, but a value is finite"
    ),
    _Tampering(
        "future schema",
        lambda entry: _edit(entry, schema_version=99),
        ".json",
        "",
        "has schema version 99.*upgrade eva-coralbay",
    ),
    _Tampering(
        "extra field",
        lambda entry: _edit(entry, surprise=1),
        ".json",
        "surprise",
        "Extra inputs are not permitted",
    ),
    _Tampering("truncated", _truncate, ".json", "line 7", "no JSON"),
    _Tampering("repeated key", _repeat_key, ".json", "", "`seed` is twice"),
    _Tampering(
        "path traversal in a name",
        lambda entry: _edit(entry, model__id="lab/../../net"),
        ".json",
        "model.id",
        "without two underscores in a row",
    ),
    _Tampering(
        "path traversal in a revision",
        lambda entry: _edit(entry, model__revision="../main"),
        ".json",
        "model.revision",
        "does not begin with a dot",
    ),
    _Tampering(
        "path traversal to a table",
        lambda entry: _edit(entry, cases__file="../../../etc/passwd"),
        ".json",
        "cases.file",
        "is to be called seed_0.cases.csv",
    ),
    _Tampering(
        "HTML in a name",
        lambda entry: _edit(entry, model__id="lab/<script>alert(1)</script>"),
        ".json",
        "model.id",
        "named <organization>/<model>",
    ),
    _Tampering(
        "large record", lambda entry: _fill(entry.path), ".json", "", "has 100,000,000 bytes"
    ),
    _Tampering(
        "large table", lambda entry: _fill(entry.cases_path), ".cases.csv", "", "it was not read"
    ),
    _Tampering(
        "missing table",
        lambda entry: entry.cases_path.unlink(),
        ".cases.csv",
        "",
        "is missing: it belongs to the record",
    ),
    _Tampering(
        "missing record",
        lambda entry: entry.path.unlink(),
        ".cases.csv",
        "",
        "belongs to no record: seed_0.json is missing",
    ),
    _Tampering("link", _link, ".cases.csv", "", "is a link"),
    _Tampering("linked folder", _link_folder, "lab__other", "", "is a link"),
    _Tampering("pipe", _pipe, ".cases.csv", "", "is no regular file"),
    _Tampering(
        "other file",
        lambda entry: entry.path.with_name("model.pt").touch(),
        "model.pt",
        "",
        "is none of a result's files",
    ),
    _Tampering(
        "unknown task",
        lambda entry: _edit(entry, task__id="phantom"),
        ".json",
        "task.id",
        "there is no task 'phantom'.*kind `demo`",
    ),
    _Tampering(
        "unknown version",
        lambda entry: _edit(entry, task__version="77"),
        ".json",
        "task.version",
        "no version '77' of this task",
    ),
    _Tampering(
        "unknown protocol",
        lambda entry: _edit(entry, protocol="easy"),
        ".json",
        "protocol",
        "there is no protocol 'easy'",
    ),
    _Tampering(
        "best checkpoint",
        lambda entry: _edit(entry, checkpoint__selection="best"),
        ".json",
        "checkpoint.selection",
        "submit record_.*_last.json",
    ),
    _Tampering(
        "no seed", lambda entry: _edit(entry, seed=None), ".json", "seed", "a result has one from 0"
    ),
    _Tampering(
        "no configuration",
        lambda entry: _edit(entry, config=None),
        ".json",
        "config",
        "nobody can repeat the run",
    ),
    _Tampering("other settings", _swap_config, ".config.yaml", "", "defines another task than"),
    _Tampering(
        "other protocol",
        _other_protocol_in_config,
        ".config.yaml",
        "trainer.init_args.protocol",
        "is 'scratch', but the record is of 'frozen'",
    ),
    _Tampering(
        "other model in the config",
        lambda entry: _edit_config(entry, "trainer", model="lab/other"),
        ".config.yaml",
        "trainer.init_args.model",
        "is 'lab/other', but the record is of 'lab/net'",
    ),
    _Tampering(
        "other seed in the config",
        lambda entry: _edit_config(entry, "model", seed=1),
        ".config.yaml",
        "model.init_args.seed",
        "is '1', but the record is of '0'",
    ),
    _Tampering(
        "config of several runs",
        lambda entry: _edit_config(entry, "trainer", n_runs=5),
        ".config.yaml",
        "trainer.init_args.n_runs",
        "is '5', but the record is of '1'",
    ),
    _Tampering(
        "fewer steps than the task",
        lambda entry: _edit_config(entry, "trainer", max_steps=6),
        ".config.yaml",
        "trainer.max_steps",
        "is 6, but 20000 in btcv@1 under protocol frozen: run the task's config as it is",
    ),
    _Tampering(
        "a run that was cut short",
        lambda entry: _edit(entry, checkpoint__step=6),
        ".json",
        "checkpoint.step",
        "is 6, but the run was to have 20000 steps",
    ),
    _Tampering("unsafe YAML", _unsafe_config, ".config.yaml", "", "is no YAML file|no YAML file"),
    _Tampering(
        "robustness above 1",
        lambda entry: _edit(entry, robustness={"flip": {"dice": 2.0, "dice_x": 0.5}}),
        ".json",
        "robustness.flip.dice",
        "is 2.0, which no dice can be",
    ),
]
"""The faults of which one must be found; others may follow from the same change."""


@pytest.fixture(scope="module")
def _good(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A results folder of two models, protocols, kinds and seeds."""
    root = tmp_path_factory.mktemp("good")
    for seed in (0, 1):
        result_files.write(root, seed=seed)
        result_files.write(root, seed=seed, task="openkbp_oar", kind="demo")
    result_files.write(root, seed=3, protocol="frozen-eva")
    result_files.write(root, model="lab/a/b", seed=1)
    (root / "README.md").write_text("What this is.")
    return root


@pytest.fixture
def folder(_good: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the good folder."""
    return pathlib.Path(shutil.copytree(_good, tmp_path / "results"))


def _entry_path(root: pathlib.Path) -> pathlib.Path:
    return root / "lab__net" / "unversioned" / "btcv@1" / "frozen" / "seed_0.json"


def _entry(root: pathlib.Path) -> results_folder.Entry:
    return results_folder.Entry(_entry_path(root), record.Record.read(_entry_path(root)))


def test_a_good_folder_has_no_faults(folder: pathlib.Path) -> None:
    assert validation.validate(folder) == []
    assert validation.validate(folder / "lab__net") == []
    assert validation.validate(_entry(folder).path) == []
    assert len(results_folder.find(folder)) == 6


@pytest.mark.parametrize("tampering", _TAMPERINGS, ids=lambda tampering: tampering.name)
def test_every_tampering_is_found(folder: pathlib.Path, tampering: _Tampering) -> None:
    """The fault is named with file, place and remedy; the command then fails."""
    tampering.change(_entry(folder))
    faults = validation.validate(folder)
    assert any(
        fault.path.name.endswith(tampering.file)
        and fault.where.startswith(tampering.where)
        and bool(fault.where) == bool(tampering.where)
        and re.search(tampering.message, fault.message)
        and not fault.is_warning
        for fault in faults
    ), "\n".join(map(str, faults))
    untouched = {"lab__a__b", "openkbp_oar@1", "frozen-eva", "seed_1.json"}
    assert not any(untouched & set(fault.path.parts) for fault in faults)


def test_mixed_versions_are_a_warning(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the records of a task, the one is named that is not like the others."""
    entry = _entry(folder)
    _edit(entry, environment__packages={"eva-coralbay": "0.1.0", "monai": "1.6.0"})
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
    entry = _entry(folder)
    _edit_config(entry, "trainer", max_steps=6)
    _edit(entry, kind="demo", checkpoint__step=6)
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


def test_other_weights_of_a_model_are_a_warning(folder: pathlib.Path) -> None:
    entry = result_files.write(folder, task="lits17")
    other = result_files.write(folder, task="word")
    _edit(other, model__weights_sha256="2" * 64)
    (fault,) = validation.validate(folder)
    assert (fault.path, fault.where) == (other.path, "model.weights_sha256")
    assert entry.record.model.weights_sha256 in fault.message and fault.is_warning


def test_verified_records_are_there_and_as_they_were(folder: pathlib.Path) -> None:
    """The list that the page reads is one that the validation takes."""
    entry, verified = _entry(folder), folder / results_folder.VERIFIED
    digest = hashlib.sha256(entry.path.read_bytes()).hexdigest()
    line = f"{digest}  {entry.path.relative_to(folder)}\n"
    verified.write_text(line)
    assert validation.validate(folder) == []
    track, *_ = gathering.gather(results_folder.find(folder), {}, [], folder).tracks
    assert sum(row.n_verified for row in track.rows) == 1

    verified.write_text(line + f"{digest}  ../elsewhere.json\n" + f"{digest}  lab__a/x.json\n")
    faults = validation.validate(folder)
    assert [fault.where for fault in faults] == ["../elsewhere.json", "lab__a/x.json"]
    assert all("is no record of this folder" in fault.message for fault in faults)
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
    entry = _entry(folder)
    _swap_config(entry)
    _edit(entry, task__config_sha256="0" * 64)
    where = [fault.where for fault in validation.validate(folder) if fault.is_warning]
    assert where == ["task.config_sha256"]


def test_all_faults_are_told(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not only the first one; and the exit code is that of a failure."""
    _change_metric(_entry(folder))
    _edit(_entry(folder), surprise=1, protocol=3)
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
    assert f"error: {_entry_path(folder)}: surprise: Extra inputs are not permitted" in output
    assert "3 errors, 0 warnings" in output


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
    _edit(entry, cases=table.model_dump())
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
    """The limit of its trainer is no number of steps that it was to do."""
    entry = result_files.write(tmp_path, model="lab/net", task="openkbp", protocol="probe")
    _edit(entry, checkpoint__step=step)
    places = [fault.where for fault in validation.validate(tmp_path)]
    assert ("checkpoint.step" in places) == is_refused
