"""Tests that every fault of a result is found and named."""

import dataclasses
import os
import pathlib
import re
import shutil
from collections.abc import Callable
from typing import NamedTuple

import pytest
import yaml

from eva_coralbay.leaderboard import validation
from eva_coralbay.results import case_table, record, scores
from eva_coralbay.results import folder as results_folder
from tests.eva_coralbay.leaderboard.validation import editing


def _rewrite(
    entry: results_folder.Entry, rows: list[case_table.Row], *, metrics: bool = True
) -> None:
    """Writes another case table, with a record that fits to it."""
    table = case_table.write(entry.cases_path, rows)
    editing.edit(entry, cases=table.model_dump())
    if metrics:
        found = scores.summarize(rows)
        editing.edit(entry, metrics={k: None if v != v else v for k, v in found.items()})


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
    editing.edit(entry, cases__rows=5)


def _other_split(entry: results_folder.Entry) -> None:
    editing.edit(entry, split__name="voco@1")


def _other_cases(entry: results_folder.Entry) -> None:
    rows = [dataclasses.replace(row, case=f"my_{row.case}") for row in entry.rows]
    _rewrite(entry, rows)
    editing.edit(entry, split__ids_sha256=record.ids_sha256([row.case for row in rows]))


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


def _other_protocol_in_config(entry: results_folder.Entry) -> None:
    config = yaml.safe_load(entry.config_path.read_text())
    config["trainer"]["init_args"]["protocol"] = "scratch"
    editing.write_config(entry, config)


def _unsafe_config(entry: results_folder.Entry) -> None:
    entry.config_path.write_text("a: !!python/object/apply:os.abort []\n")


class _Tampering(NamedTuple):
    """What is done to a good result, and the fault that must be found."""

    name: str
    change: Callable[[results_folder.Entry], object]
    file: str
    where: str
    message: str


_TAMPERINGS = [
    _Tampering(
        "changed metric", editing.change_metric, ".json", "metrics.dice", "is 0.99, but the case"
    ),
    _Tampering("changed row", _change_row, ".json", "cases.sha256", "but the hash of seed_0.cases"),
    _Tampering("and its hash", _change_row_and_hash, ".cases.csv", "line 3", "which 3 voxels of"),
    _Tampering("dice above 1", _raise_dice, ".cases.csv", "line 3", "is 1.25, but lies in 0 to 1"),
    _Tampering("missing case", _drop_case, ".cases.csv", "", "lacks cases of the split: img00"),
    _Tampering("missing row", _drop_row, ".cases.csv", "case img0", "has no dice of left_adrenal"),
    _Tampering("missing class", _drop_class, ".cases.csv", "column class", "has the classes"),
    _Tampering("duplicate row", _repeat_row, ".cases.csv", "", "appears twice"),
    _Tampering("wrong count", _count_wrong, ".json", "cases.rows", "is 5, but the case table has"),
    _Tampering(
        "wrong hash",
        lambda entry: editing.edit(entry, cases__sha256="5" * 64),
        ".json",
        "cases.sha256",
        "take the file as the run has written it",
    ),
    _Tampering(
        "no hash",
        lambda entry: editing.edit(entry, cases__sha256="5"),
        ".json",
        "cases.sha256",
        "should match pattern",
    ),
    _Tampering("another split", _other_split, ".json", "split.name", "split v1@1"),
    _Tampering("other cases", _other_cases, ".json", "split.ids_sha256", "on all 9 test cases"),
    _Tampering(
        "validation cases",
        lambda entry: editing.edit(entry, split__part="val"),
        ".json",
        "split.part",
        "is val, but btcv under protocol frozen is scored on all 9 test cases",
    ),
    _Tampering("duplicate", _copy_as_seed_7, "seed_7.json", "", "is of the same model, revision,"),
    _Tampering("wrong folder", _move, ".json", "", "by its content it belongs to lab__net/unver"),
    _Tampering("NaN", _nan, ".json", "", "NaN is not a value in JSON"),
    _Tampering(
        "NaN in the table", _nan_in_table, ".cases.csv", "", "is nan, but a value is finite"
    ),
    _Tampering(
        "future schema",
        lambda entry: editing.edit(entry, schema_version=99),
        ".json",
        "",
        "has schema version 99.*upgrade eva-coralbay",
    ),
    _Tampering(
        "extra field",
        lambda entry: editing.edit(entry, surprise=1),
        ".json",
        "surprise",
        "Extra inputs are not permitted",
    ),
    _Tampering("truncated", _truncate, ".json", "line 7", "is not valid JSON"),
    _Tampering("repeated key", _repeat_key, ".json", "", "`seed` appears twice"),
    _Tampering(
        "path traversal in a name",
        lambda entry: editing.edit(entry, model__id="lab/../../net"),
        ".json",
        "model.id",
        "without two underscores in a row",
    ),
    _Tampering(
        "path traversal in a revision",
        lambda entry: editing.edit(entry, model__revision="../main"),
        ".json",
        "model.revision",
        "does not begin with a dot",
    ),
    _Tampering(
        "path traversal to a table",
        lambda entry: editing.edit(entry, cases__file="../../../etc/passwd"),
        ".json",
        "cases.file",
        "is to be called seed_0.cases.csv",
    ),
    _Tampering(
        "HTML in a name",
        lambda entry: editing.edit(entry, model__id="lab/<script>alert(1)</script>"),
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
    _Tampering("pipe", _pipe, ".cases.csv", "", "is not a regular file"),
    _Tampering(
        "other file",
        lambda entry: entry.path.with_name("model.pt").touch(),
        "model.pt",
        "",
        "is not one of a result's files",
    ),
    _Tampering(
        "unknown task",
        lambda entry: editing.edit(entry, task__id="phantom"),
        ".json",
        "task.id",
        "there is no task 'phantom'.*kind `demo`",
    ),
    _Tampering(
        "unknown version",
        lambda entry: editing.edit(entry, task__version="77"),
        ".json",
        "task.version",
        "no version '77' of this task",
    ),
    _Tampering(
        "unknown protocol",
        lambda entry: editing.edit(entry, protocol="easy"),
        ".json",
        "protocol",
        "there is no protocol 'easy'",
    ),
    _Tampering(
        "best checkpoint",
        lambda entry: editing.edit(entry, checkpoint__selection="best"),
        ".json",
        "checkpoint.selection",
        "submit record_.*_last.json",
    ),
    _Tampering(
        "no seed",
        lambda entry: editing.edit(entry, seed=None),
        ".json",
        "seed",
        "a result has one from 0",
    ),
    _Tampering(
        "no configuration",
        lambda entry: editing.edit(entry, config=None),
        ".json",
        "config",
        "nobody can repeat the run",
    ),
    _Tampering(
        "other settings", editing.swap_config, ".config.yaml", "", "defines another task than"
    ),
    _Tampering(
        "other protocol",
        _other_protocol_in_config,
        ".config.yaml",
        "trainer.init_args.protocol",
        "is 'scratch', but the record is of 'frozen'",
    ),
    _Tampering(
        "other model in the config",
        lambda entry: editing.edit_config(entry, "trainer", model="lab/other"),
        ".config.yaml",
        "trainer.init_args.model",
        "is 'lab/other', but the record is of 'lab/net'",
    ),
    _Tampering(
        "other seed in the config",
        lambda entry: editing.edit_config(entry, "model", seed=1),
        ".config.yaml",
        "model.init_args.seed",
        "is '1', but the record is of '0'",
    ),
    _Tampering(
        "config of several runs",
        lambda entry: editing.edit_config(entry, "trainer", n_runs=5),
        ".config.yaml",
        "trainer.init_args.n_runs",
        "is '5', but the record is of '1'",
    ),
    _Tampering(
        "fewer steps than the task",
        lambda entry: editing.edit_config(entry, "trainer", max_steps=6),
        ".config.yaml",
        "trainer.max_steps",
        "is 6, but 20000 in btcv@1 under protocol frozen: run the task's config as it is",
    ),
    _Tampering(
        "a run that was cut short",
        lambda entry: editing.edit(entry, checkpoint__step=6),
        ".json",
        "checkpoint.step",
        "is 6, but the run was to have 20000 steps",
    ),
    _Tampering("unsafe YAML", _unsafe_config, ".config.yaml", "", "is not a YAML file"),
    _Tampering(
        "robustness above 1",
        lambda entry: editing.edit(entry, robustness={"flip": {"dice": 2.0, "dice_x": 0.5}}),
        ".json",
        "robustness.flip.dice",
        "is 2.0, which no dice can be",
    ),
]
"""The faults of which one must be found; others may follow from the same change."""


@pytest.mark.parametrize("tampering", _TAMPERINGS, ids=lambda tampering: tampering.name)
def test_every_tampering_is_found(folder: pathlib.Path, tampering: _Tampering) -> None:
    """The fault is named with file, place and remedy; the command then fails."""
    tampering.change(editing.entry(folder))
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
