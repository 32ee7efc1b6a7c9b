"""Checks records against each other."""

import collections
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from eva_coralbay.leaderboard.validation.fault import Fault
from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import record


def check_cells(entries: Sequence[results_folder.Entry]) -> Iterator[Fault]:
    """Checks that there is one record a model, revision, task, version, protocol and seed."""
    first: dict[Any, pathlib.Path] = {}
    for entry in entries:
        result = entry.record
        model, task = result.model, result.task
        cell = (model.id, model.revision, task.id, task.version, result.protocol, result.seed)
        if cell in first:
            yield Fault(
                entry.path,
                "",
                f"is of the same model, revision, task, version, protocol and seed as "
                f"{first[cell]}: keep one of them.",
            )
        first.setdefault(cell, entry.path)


def check_weights(entries: Sequence[results_folder.Entry]) -> Iterator[Fault]:
    """Warns of a model that had other weights on one task than on another, for one seed."""
    groups: dict[Any, list[results_folder.Entry]] = {}
    for entry in entries:
        model = entry.record.model
        groups.setdefault((model.id, model.revision, entry.record.seed), []).append(entry)
    for group in groups.values():
        hashes = [entry.record.model.weights_sha256 for entry in group]
        (usual, count), *_ = collections.Counter(hashes).most_common(1)
        for entry, digest in zip(group, hashes, strict=True):
            if digest != usual:
                yield Fault(
                    entry.path,
                    "model.weights_sha256",
                    f"is {digest}, but {usual} in {count} of the {len(group)} records of "
                    f"{entry.record.model.id} with this seed: give other weights a name or a "
                    "revision of their own.",
                    is_warning=True,
                )


def check_versions(entries: Sequence[results_folder.Entry]) -> Iterator[Fault]:
    """Warns of records of one task that come from different software, settings or data."""
    groups: dict[Any, list[results_folder.Entry]] = {}
    for entry in entries:
        result = entry.record
        key = (result.kind, result.task.id, result.task.version, result.split.ids_sha256)
        groups.setdefault(key, []).append(entry)
    for group in groups.values():
        origins = [_origin(entry.record) for entry in group]
        for field in dict.fromkeys(field for origin in origins for field in origin):
            values = [origin.get(field) for origin in origins]
            (usual, count), *_ = collections.Counter(values).most_common(1)
            for entry, value in zip(group, values, strict=True):
                if value != usual:
                    yield Fault(
                        entry.path,
                        field,
                        f"is {value}, but {usual} in {count} of the {len(group)} records of "
                        f"{entry.record.task.id}@{entry.record.task.version}: the values may not "
                        "be comparable.",
                        is_warning=True,
                    )


def _origin(result: record.Record) -> dict[str, str | None]:
    """Returns what should be the same for all records of a task."""
    packages = result.environment.packages
    return {
        **{f"environment.packages.{name}": version for name, version in packages.items()},
        "task.config_sha256": result.task.config_sha256,
        **{f"dataset.checksums.{k}": v for k, v in (result.dataset.checksums or {}).items()},
    }
