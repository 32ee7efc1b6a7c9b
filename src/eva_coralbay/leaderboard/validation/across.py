"""Checks records against each other."""

import collections
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from eva_coralbay.leaderboard.validation.fault import Fault
from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import record
from eva_coralbay.tasks import protocols


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


def check_models(entries: Sequence[results_folder.Entry]) -> Iterator[Fault]:
    """Warns of a model that had other weights, or was another function, on one task than another.

    Weights are compared for one seed, as random ones differ between seeds.
    """
    by_seed, by_model = collections.defaultdict(list), collections.defaultdict(list)
    for entry in entries:
        model = entry.record.model
        by_seed[model.id, model.revision, entry.record.seed].append(entry)
        if entry.record.encoder is not None:
            by_model[model.id, model.revision].append(entry)
    for group in by_seed.values():
        yield from _find_odd(
            group,
            "model.weights_sha256",
            [entry.record.model.weights_sha256 for entry in group],
            "with this seed: give other weights a name or a revision of their own.",
        )
    for group in by_model.values():
        yield from _find_odd(
            group,
            "encoder.sha256",
            [entry.record.encoder and entry.record.encoder.sha256 for entry in group],
            ": give another architecture or preprocessing a name or a revision of its own.",
        )


def _find_odd(
    group: Sequence[results_folder.Entry],
    field: str,
    values: Sequence[str | None],
    advice: str,
) -> Iterator[Fault]:
    """Yields a warning for each record of a model whose value is not the usual one."""
    (usual, count), *_ = collections.Counter(values).most_common(1)
    for entry, value in zip(group, values, strict=True):
        if value != usual:
            message = (
                f"is {value}, but {usual} in {count} of the {len(group)} records of "
                f"{entry.record.model.id} {advice}"
            )
            yield Fault(entry.path, field, message.replace(" :", ":"), is_warning=True)


def check_versions(entries: Sequence[results_folder.Entry]) -> Iterator[Fault]:
    """Warns of records of one task that come from different software, settings or data."""
    groups: dict[Any, list[results_folder.Entry]] = {}
    for entry in entries:
        result = entry.record
        # what else is wrong with an unknown protocol is said elsewhere
        known = protocols.PROTOCOLS.get(result.protocol or "")
        mode = known and known.mode
        key = (result.kind, result.task.id, result.task.version, mode, result.split.ids_sha256)
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
