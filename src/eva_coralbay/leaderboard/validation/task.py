"""Checks that a record is of a task, protocol and split of the leaderboard, with their settings."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from eva_coralbay.leaderboard.validation.fault import Fault
from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import record, run_config
from eva_coralbay.tasks import catalog, protocols, settings
from eva_coralbay.tasks import splits as splits_lib

_DEPTH = 5
"""The number of parts of a record's path below the results folder."""


def check_names(entry: results_folder.Entry, root: pathlib.Path) -> Iterator[Fault]:
    """Checks that the record lies where its content says."""
    problems = results_folder.find_bad_names(entry.record)
    for field, problem in problems.items():
        yield Fault(entry.path, field, problem)
    if problems:
        return
    place = results_folder.relative_path(entry.record)
    depth = len(entry.path.relative_to(root).parts)
    if entry.path.parts[-_DEPTH:] != place.parts or depth > _DEPTH:
        yield Fault(entry.path, "", f"by its content it belongs to {place}: move its files there.")


def check_task(entry: results_folder.Entry) -> Iterator[Fault]:
    """Checks task, version, protocol, checkpoint and split."""
    result = entry.record
    versions = _list_versions(result.task.id)
    if result.task.version not in versions:
        yield Fault(
            entry.path,
            "task.version",
            f"there is no version {result.task.version!r} of this task: known are "
            f"{', '.join(versions)}.",
        )
    protocol = protocols.PROTOCOLS.get(str(result.protocol))
    if protocol is None:
        known = ", ".join(protocols.PROTOCOLS)
        yield Fault(
            entry.path, "protocol", f"there is no protocol {result.protocol!r}: choose of {known}."
        )
    elif result.checkpoint.selection != protocol.checkpoint:
        yield Fault(
            entry.path,
            "checkpoint.selection",
            f"is {result.checkpoint.selection}, but of protocol {result.protocol} the "
            f"{protocol.checkpoint} checkpoint counts: submit record_*_{protocol.checkpoint}.json.",
        )
    if result.task.id in catalog.TASKS:
        if protocol is not None:
            yield from _check_split(entry, protocol)
            yield from _check_kind(entry, protocol)
    elif result.kind != "demo":
        yield Fault(
            entry.path,
            "task.id",
            f"there is no task {result.task.id!r}: `eva-coralbay tasks` lists them. A result on "
            "other data is of kind `demo`.",
        )


def _check_kind(entry: results_folder.Entry, protocol: protocols.Protocol) -> Iterator[Fault]:
    """Checks that the kind of the task has the protocol."""
    if catalog.TASKS[entry.record.task.id].kind == "segmentation":
        is_other, only = protocol.mode == "offline", "a classification"
    else:
        is_other = protocol.has_native_input or protocol.mode == "external"
        only = "a segmentation"
    if is_other:
        name = entry.record.protocol
        yield Fault(entry.path, "protocol", f"is {name}, which only {only} has: take another.")


def _check_split(entry: results_folder.Entry, protocol: protocols.Protocol) -> Iterator[Fault]:
    """Checks that the split is the one that the protocol scores."""
    split = entry.record.split
    splits = splits_lib.read_splits(entry.record.task.id)
    scheme, part = _choose_split(splits, protocol)
    name = f"{scheme}@{splits.version}"
    cases = splits.schemes[scheme][part]
    expected = {
        "name": name,
        "part": part,
        "n": len(cases),
        "ids_sha256": record.ids_sha256(cases),
    }
    for field, value in expected.items():
        if getattr(split, field) != value:
            yield Fault(
                entry.path,
                f"split.{field}",
                f"is {getattr(split, field)}, but {entry.record.task.id} under protocol "
                f"{entry.record.protocol} is scored on all {len(cases)} {part} cases of split "
                f"{name}, where it is {value}.",
            )


def _choose_split(splits: splits_lib.Splits, protocol: protocols.Protocol) -> tuple[str, str]:
    """Returns the scheme and the part of it that a protocol scores."""
    schemes = (name for name in protocol.split_schemes if name in splits.schemes)
    scheme = next(schemes, splits.default)
    # a checkpoint that the validation cases select is reported on them, as eva does
    is_tested = protocol.checkpoint == "last" and "test" in splits.schemes[scheme]
    return scheme, "test" if is_tested else "val"


def _list_versions(task_id: str) -> list[str]:
    """Returns the versions that a task has had; of a task of others, those of any."""
    known = [task_id] if task_id in catalog.TASKS else [*catalog.TASKS]
    return sorted({version for task in known for version in settings.list_versions(task)})


def check_config(entry: results_folder.Entry, config: Mapping[str, Any]) -> Iterator[Fault]:
    """Checks that the configuration is that of the record."""
    if run_config.sha256(config) != entry.record.task.config_sha256:
        yield Fault(
            entry.config_path,
            "",
            "defines another task than the record's `task.config_sha256` says: take the "
            "config.yaml of the same run.",
        )
    yield from _check_run(entry.config_path, config, entry.record)
    protocol = protocols.PROTOCOLS.get(str(entry.record.protocol))
    if entry.record.kind == "measured" and protocol is not None:
        yield from _check_settings(entry, config, protocol)


def _check_run(
    path: pathlib.Path, config: Mapping[str, Any], result: record.Record
) -> Iterator[Fault]:
    """Checks that a configuration is of the same run as the record."""
    trainer, module = (config[part]["init_args"] for part in ("trainer", "model"))
    expected = {
        "trainer.init_args.model": (trainer.get("model"), result.model.id),
        "trainer.init_args.n_runs": (trainer.get("n_runs"), 1),
        "trainer.init_args.protocol": (trainer.get("protocol"), result.protocol),
        "trainer.init_args.task": (trainer.get("task"), result.task.id),
        "trainer.init_args.task_version": (trainer.get("task_version"), result.task.version),
        "model.init_args.protocol": (module.get("protocol"), result.protocol),
        "model.init_args.seed": (module.get("seed"), result.seed),
    }
    for where, (found, value) in expected.items():
        if str(found) != str(value):
            yield Fault(
                path,
                where,
                f"is {str(found)[:100]!r}, but the record is of {str(value)!r}: take the "
                "config.yaml of the same run, as `eva-coralbay leaderboard submit` writes it.",
            )


def _check_settings(
    entry: results_folder.Entry, config: Mapping[str, Any], protocol: protocols.Protocol
) -> Iterator[Fault]:
    """Checks that a run had the settings of the task, and came to its end."""
    result = entry.record
    name = f"{result.task.id}@{result.task.version} under protocol {result.protocol}"
    changes = run_config.find_changes(config, result.task.id, result.task.version, protocol)
    for where, (found, value) in changes.items():
        yield Fault(
            entry.config_path,
            where,
            f"is {str(found)[:100]}, but {str(value)[:100]} in {name}: run the task's config as it "
            "is. A result of other settings is of kind `demo`.",
        )
    # a probe solves for its classifier, whatever the trainer's limit is
    is_probe = protocol.mode == "probe"
    last = 0 if is_probe else config["trainer"]["init_args"].get("max_steps")
    if result.checkpoint.selection == "last" and result.checkpoint.step != last:
        yield Fault(
            entry.path,
            "checkpoint.step",
            f"is {result.checkpoint.step}, but the run was to have {last} steps: let it come to "
            "its end.",
        )


def cases_of(result: record.Record) -> list[str] | None:
    """Returns the ids of the cases that a record is to be of, `None` if that is not known."""
    protocol = protocols.PROTOCOLS.get(str(result.protocol))
    if protocol is None or result.task.id not in catalog.TASKS:
        return None
    splits = splits_lib.read_splits(result.task.id)
    scheme, part = _choose_split(splits, protocol)
    return splits.schemes[scheme][part]
