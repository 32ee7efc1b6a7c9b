"""Checks a results folder, as a submission is: everything that can be known without the data.

Nothing in a submitted file is executed, and no link is followed. A file is read only if it is
where and as large as a result's files are.
"""

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pydantic

from eva_coralbay.leaderboard import cards as model_cards
from eva_coralbay.leaderboard import reported
from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import record, run_config, scores
from eva_coralbay.tasks import catalog, protocols
from eva_coralbay.tasks import splits as splits_lib

TOLERANCE: Final = 1e-9
"""How far a metric may be from that of the case table."""

_SIZES: Mapping[str, int] = {
    ".cases.csv": 20_000_000,
    ".config.yaml": 100_000,
    ".json": 1_000_000,
}
"""The most bytes of a file by the end of its name."""

_OTHERS = ("README.md", results_folder.VERIFIED)
"""The files that may lie in the folder beside the models."""

_FACTS_SIZE = 100_000
"""The most bytes of a model card, or of a file of reported numbers."""

_VERSIONS = ("1",)
"""The versions that the configs of the tasks have had."""

_DEPTH = 5
"""The number of parts of a record's path below the results folder."""

_ROUNDING = 1e-3
"""How far a number of voxels that follows from a Dice value may be from a whole one."""

_SHOWN_CASES = 5
"""The most case ids that a message lists."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that is wrong with a results folder."""

    path: pathlib.Path
    """The file or folder."""

    where: str
    """The field of a record or a line of a table; empty if it is the file as a whole."""

    message: str
    """What is wrong and what to do."""

    is_warning: bool = False
    """Whether the results can be shown nevertheless."""

    def __str__(self) -> str:
        """Returns it in one line."""
        level = "warning" if self.is_warning else "error"
        return printable(": ".join(filter(None, (level, str(self.path), self.where, self.message))))

    def as_dict(self) -> dict[str, str]:
        """Returns it as JSON has it."""
        return {
            "level": "warning" if self.is_warning else "error",
            "path": str(self.path),
            "where": self.where,
            "message": self.message,
        }


@dataclasses.dataclass(frozen=True)
class _Registered:
    """What is known of a task of the leaderboard."""

    kind: str
    classes: list[str]
    split_version: str
    default_scheme: str
    schemes: dict[str, dict[str, list[str]]]


def validate(path: str | os.PathLike[str]) -> list[Fault]:
    """Checks a results folder, a part of it, or one record with its files.

    Of a results folder, the model cards and the reported numbers beside it are checked too.

    Args:
        path: The folder or the record.

    Returns:
        All faults, sorted by path; empty if there are none.

    Raises:
        ValueError: If there is no such file or folder.
    """
    root = pathlib.Path(os.path.abspath(path))
    if not root.exists():
        raise ValueError(f"There is no file or folder {path}.")
    found = _walk(root) if root.is_dir() else _files_of(root)
    faults: list[Fault] = []
    readable: set[pathlib.Path] = set()
    for file in found:
        problem = _find_problem(file, root)
        if problem is None:
            readable.add(file)
        else:
            faults.append(Fault(file, "", problem))

    entries = []
    for file in sorted(readable):
        if file.suffix == ".json":
            try:
                entries.append(results_folder.Entry(file, record.Record.read(file)))
            except ValueError as error:
                faults += _explain(file, error)
    if not any(file.suffix == ".json" for file in found):
        faults.append(Fault(root, "", "there is no record (seed_<s>.json) in it."))

    for entry in entries:
        faults += _check_names(entry, root)
        faults += _check_task(entry)
        faults += _check_config(entry, readable)
        faults += _check_table(entry, readable)
    faults += _check_cells(entries)
    faults += _check_weights(entries)
    faults += _check_orphans(readable)
    faults += _check_versions(entries)
    if root.is_dir():
        faults += _check_verified(root)
        faults += _check_facts(root)
    return sorted(faults, key=lambda fault: str(fault.path))


def printable(text: str) -> str:
    """Escapes the characters that end a line or that a terminal would obey.

    Args:
        text: What others have written.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _walk(root: pathlib.Path) -> list[pathlib.Path]:
    """Returns all files and links below a folder; links are not followed."""
    found = []
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [pathlib.Path(folder, name) for name in (*names, *links)]
    return sorted(found)


def _files_of(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns a record and the files beside it that are there."""
    names = (f"{path.name.removesuffix('.json')}{suffix}" for suffix in _SIZES)
    files = (path.with_name(name) for name in names)
    return sorted({path, *(file for file in files if os.path.lexists(file))})


def _find_problem(path: pathlib.Path, root: pathlib.Path) -> str | None:
    """Returns why a file is not read, `None` if it is."""
    if (problem := _find_kind_problem(path)) is not None:
        return problem
    if path.parent == root and path.name in _OTHERS:
        return None
    suffix = next((suffix for suffix in _SIZES if path.name.endswith(suffix)), None)
    if suffix is None:
        return (
            "is none of a result's files (seed_<s>.json, seed_<s>.cases.csv, "
            "seed_<s>.config.yaml): remove it."
        )
    return _find_size_problem(path, suffix, _SIZES[suffix])


def _find_kind_problem(path: pathlib.Path) -> str | None:
    """Returns why something is not read that is no file, `None` if it is one."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "is a link: put the file itself in its place."
    return None if stat.S_ISREG(mode) else "is no regular file: remove it."


def _find_size_problem(path: pathlib.Path, suffix: str, limit: int) -> str | None:
    """Returns why a file is not read that is too large, `None` if it is not."""
    size = path.lstat().st_size
    if size <= limit:
        return None
    return (
        f"has {size:,} bytes, but a file that ends in {suffix} has at most {limit:,}: it was not "
        "read."
    )


def _check_facts(root: pathlib.Path) -> Iterator[Fault]:
    """Checks the model cards and the numbers of others, which lie beside the results folder."""
    readers = {("models", ".yaml"): model_cards.read, ("reported", ".json"): reported.read}
    for (folder, suffix), read in readers.items():
        for path in sorted((root.parent / folder).glob(f"*{suffix}")):
            problem = _find_kind_problem(path) or _find_size_problem(path, suffix, _FACTS_SIZE)
            if problem is not None:
                yield Fault(path, "", problem)
                continue
            try:
                read(path)
            except model_cards.CardError as error:
                yield from (Fault(path, where, message) for where, message in error.faults)
            except ValueError as error:
                yield from _explain(path, error)


def _check_verified(root: pathlib.Path) -> Iterator[Fault]:
    """Checks that the records that are said to be verified are there, and have not changed."""
    path = root / results_folder.VERIFIED
    try:
        verified = results_folder.read_verified(root)
    except ValueError as error:
        yield Fault(path, "", _without_path(error, path))
        return
    for record_path, digest in verified.items():
        name = os.path.relpath(record_path, root)
        if name.startswith(os.pardir) or not record_path.is_file():
            yield Fault(path, name, "is no record of this folder: remove the line.")
        elif hashlib.sha256(record_path.read_bytes()).hexdigest() != digest:
            yield Fault(path, name, "has changed since it was verified: verify it again.")


def _explain(path: pathlib.Path, error: ValueError) -> Iterator[Fault]:
    """Yields why a record cannot be read, each field apart."""
    cause = error.__cause__
    if isinstance(cause, pydantic.ValidationError):
        for detail in cause.errors(include_url=False):
            where = ".".join(map(str, detail["loc"]))
            yield Fault(path, where, f"{detail['msg']}, got {str(detail['input'])[:50]!r}.")
    elif isinstance(cause, json.JSONDecodeError):
        yield Fault(path, f"line {cause.lineno}", f"no JSON: {cause.msg}.")
    else:
        yield Fault(path, "", _without_path(error, path))


def _without_path(error: Exception, path: pathlib.Path) -> str:
    """Returns a message without the path that it begins with."""
    return str(error).removeprefix(str(path)).lstrip(",: ")


def _check_names(entry: results_folder.Entry, root: pathlib.Path) -> Iterator[Fault]:
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


def _check_task(entry: results_folder.Entry) -> Iterator[Fault]:
    """Checks task, version, protocol, checkpoint and split."""
    result = entry.record
    if result.task.version not in _VERSIONS:
        yield Fault(
            entry.path,
            "task.version",
            f"there is no version {result.task.version!r} of a task: known are "
            f"{', '.join(_VERSIONS)}.",
        )
    protocol = protocols.PROTOCOLS.get(result.protocol)  # type: ignore[reportArgumentType]
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
    registered = _registered(result.task.id)
    if registered is not None:
        if protocol is not None:
            yield from _check_split(entry, registered, protocol)
            if protocol.mode == "offline" and registered.kind == "segmentation":
                yield Fault(
                    entry.path,
                    "protocol",
                    f"is {result.protocol}, which only a classification has: take another.",
                )
    elif result.kind != "demo":
        yield Fault(
            entry.path,
            "task.id",
            f"there is no task {result.task.id!r}: `eva-coralbay tasks` lists them. A result on "
            "other data is of kind `demo`.",
        )


def _check_split(
    entry: results_folder.Entry, registered: _Registered, protocol: protocols.Protocol
) -> Iterator[Fault]:
    """Checks that the split is the one that the protocol scores."""
    split = entry.record.split
    scheme, part = _choose_split(registered, protocol)
    name = f"{scheme}@{registered.split_version}"
    cases = registered.schemes[scheme][part]
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


def _choose_split(registered: _Registered, protocol: protocols.Protocol) -> tuple[str, str]:
    """Returns the scheme and the part of it that a protocol scores."""
    schemes = (name for name in protocol.split_schemes if name in registered.schemes)
    scheme = next(schemes, registered.default_scheme)
    # a checkpoint that the validation cases select is reported on them, as eva does
    is_tested = protocol.checkpoint == "last" and "test" in registered.schemes[scheme]
    return scheme, "test" if is_tested else "val"


def _check_config(entry: results_folder.Entry, readable: set[pathlib.Path]) -> Iterator[Fault]:
    """Checks that the configuration is there, and that of the record."""
    path, stated = entry.config_path, entry.record.config
    if stated is None:
        yield Fault(
            entry.path, "config", "there is none, but without it nobody can repeat the run."
        )
        return
    yield from _check_file(entry, "config", path, stated.file, stated.sha256, readable)
    if path not in readable:
        return
    try:
        config = run_config.read(path)
    except ValueError as error:
        yield Fault(path, "", _without_path(error, path))
        return
    if run_config.sha256(config) != entry.record.task.config_sha256:
        yield Fault(
            path,
            "",
            "defines another task than the record's `task.config_sha256` says: take the "
            "config.yaml of the same run.",
        )
    yield from _check_run(path, config, entry.record)
    protocol = protocols.PROTOCOLS.get(entry.record.protocol)  # type: ignore[reportArgumentType]
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
    last = config["trainer"]["init_args"].get("max_steps")
    if result.checkpoint.selection == "last" and result.checkpoint.step != last:
        yield Fault(
            entry.path,
            "checkpoint.step",
            f"is {result.checkpoint.step}, but the run was to have {last} steps: let it come to "
            "its end.",
        )


def _check_table(entry: results_folder.Entry, readable: set[pathlib.Path]) -> Iterator[Fault]:
    """Checks the case table, and the metrics by it."""
    path, stated = entry.cases_path, entry.record.cases
    yield from _check_file(entry, "cases", path, stated.file, stated.sha256, readable)
    if path not in readable:
        return
    try:
        rows = entry.rows
    except ValueError as error:
        yield Fault(path, "", _without_path(error, path))
        return
    counts = {"rows": len(rows), "excluded": sum(row.value is None for row in rows)}
    for field, count in counts.items():
        if getattr(stated, field) != count:
            yield Fault(
                entry.path,
                f"cases.{field}",
                f"is {getattr(stated, field)}, but the case table has {count}.",
            )
    yield from _check_cases(entry, rows)
    yield from _check_values(path, rows)
    yield from _check_metrics(entry, rows)


def _check_file(
    entry: results_folder.Entry,
    field: str,
    path: pathlib.Path,
    name: str,
    sha256: str,
    readable: set[pathlib.Path],
) -> Iterator[Fault]:
    """Checks name, presence and hash of a file beside the record."""
    if name != path.name:
        yield Fault(
            entry.path, f"{field}.file", f"is {name!r}, but the file is to be called {path.name}."
        )
    if path in readable:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != sha256:
            yield Fault(
                entry.path,
                f"{field}.sha256",
                f"is {sha256}, but the hash of {path.name} is {digest}: take the file as the run "
                "has written it.",
            )
    elif not os.path.lexists(path):
        yield Fault(path, "", "is missing: it belongs to the record beside it.")


def _check_cases(entry: results_folder.Entry, rows: Sequence[record.Row]) -> Iterator[Fault]:
    """Checks that the rows are of all cases of the split, each with all classes."""
    path, split = entry.cases_path, entry.record.split
    registered = _registered(entry.record.task.id)
    cases = list(dict.fromkeys(row.case for row in rows))
    known = None if registered is None else _cases_of(registered, entry.record)
    if known is not None:
        missing, surplus = sorted(set(known) - set(cases)), sorted(set(cases) - set(known))
        if missing:
            yield Fault(path, "", f"lacks cases of the split: {_names(missing)}.")
        if surplus:
            yield Fault(path, "", f"has cases that are not in the split: {_names(surplus)}.")
    elif len(cases) != split.n or record.ids_sha256(cases) != split.ids_sha256:
        yield Fault(
            path,
            "",
            f"has {len(cases)} cases, which are not the {split.n} of the split: their ids have "
            "another hash than `split.ids_sha256`.",
        )

    classes = list(dict.fromkeys(row.class_name for row in rows))
    if registered is not None and classes != registered.classes:
        yield Fault(
            path,
            "column class",
            f"has the classes {classes[:200]}, but the {registered.kind} {entry.record.task.id} "
            f"has {registered.classes}.",
        )
        return
    wanted = {(name, metric) for name in classes for metric in {row.metric for row in rows}}
    by_case: dict[str, set[tuple[str, str]]] = {case: set() for case in cases}
    for row in rows:
        by_case[row.case].add((row.class_name, row.metric))
    for case, found in by_case.items():
        for name, metric in sorted(wanted - found):
            yield Fault(path, f"case {case}", f"has no {metric} of {name}, but other cases have.")


def _check_values(path: pathlib.Path, rows: Sequence[record.Row]) -> Iterator[Fault]:
    """Checks that each row has values that can be."""
    for line, row in enumerate(rows, start=2):
        problem = _find_bad_value(row)
        if problem is not None:
            yield Fault(
                path, f"line {line}", f"{row.metric} of {row.class_name} in {row.case} {problem}"
            )


def _find_bad_value(row: record.Row) -> str | None:
    """Returns what is wrong with a row, `None` if nothing is."""
    is_bounded = row.metric not in results_folder.LOWER_IS_BETTER
    if row.value is not None and (row.value < 0 or (is_bounded and row.value > 1)):
        return f"is {row.value}, but lies {'in 0 to 1' if is_bounded else 'at 0 or above'}."
    if isinstance(row, record.PredictionRow):
        return "is empty, but every class has a probability." if row.value is None else None

    both = row.truth_voxels + row.predicted_voxels
    if row.truth_voxels < 0 or row.predicted_voxels < 0:
        return "is of a negative number of voxels."
    if (row.value is None) != (both == 0):
        return (
            f"is {'empty' if row.value is None else row.value} with {both} voxels in truth and "
            "prediction, but it is empty exactly if there are none."
        )
    if row.metric == "dice" and row.value is not None:
        common = row.value * both / 2
        is_whole = abs(common - round(common)) <= _ROUNDING
        if not is_whole or round(common) > min(row.truth_voxels, row.predicted_voxels):
            return (
                f"is {row.value}, which {row.truth_voxels} voxels of the truth and "
                f"{row.predicted_voxels} of the prediction cannot give."
            )
    return None


def _check_metrics(entry: results_folder.Entry, rows: Sequence[record.Row]) -> Iterator[Fault]:
    """Checks that the metrics are those of the case table."""
    try:
        found = scores.summarize(rows)
    except ValueError as error:
        yield Fault(entry.cases_path, "", str(error))
        return
    stated = entry.record.metrics
    for name in sorted(found.keys() | stated.keys()):
        if name not in found:
            yield Fault(entry.path, f"metrics.{name}", "does not follow from the case table.")
        elif name not in stated:
            yield Fault(entry.path, f"metrics.{name}", f"is missing: it is {found[name]}.")
        elif not scores.is_close(stated[name], found[name], TOLERANCE):
            yield Fault(
                entry.path,
                f"metrics.{name}",
                f"is {stated[name]}, but the case table gives {found[name]}.",
            )
    for perturbation, values in (entry.record.robustness or {}).items():
        for name, value in values.items():
            where = f"robustness.{perturbation}.{name}"
            if name not in found:
                yield Fault(entry.path, where, "is no metric of this task.")
            elif value is not None and not 0 <= value <= 1:
                yield Fault(entry.path, where, f"is {value}, but lies in 0 to 1.")


def _check_cells(entries: Sequence[results_folder.Entry]) -> Iterator[Fault]:
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


def _check_weights(entries: Sequence[results_folder.Entry]) -> Iterator[Fault]:
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


def _check_orphans(readable: set[pathlib.Path]) -> Iterator[Fault]:
    """Checks that every table and configuration belongs to a record."""
    for path in readable:
        stem = path.name
        for suffix in _SIZES:
            stem = stem.removesuffix(suffix)
        is_record = path.suffix == ".json"
        if not is_record and stem != path.name:
            if not os.path.lexists(path.with_name(f"{stem}.json")):
                yield Fault(path, "", f"belongs to no record: {stem}.json is missing beside it.")


def _check_versions(entries: Sequence[results_folder.Entry]) -> Iterator[Fault]:
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


def _cases_of(registered: _Registered, result: record.Record) -> list[str] | None:
    """Returns the ids of the cases that a record is to be of, `None` if that is not known."""
    protocol = protocols.PROTOCOLS.get(result.protocol)  # type: ignore[reportArgumentType]
    if protocol is None:
        return None
    scheme, part = _choose_split(registered, protocol)
    return registered.schemes[scheme][part]


def _registered(task_id: str) -> _Registered | None:
    """Returns what is known of a task, `None` if it is none of the leaderboard's."""
    if task_id not in catalog.TASKS:
        return None
    task, splits = catalog.TASKS[task_id], splits_lib.read_splits(task_id)
    return _Registered(
        kind=task.kind,
        classes=list(task.classes),
        split_version=splits.version,
        default_scheme=splits.default,
        schemes=splits.schemes,
    )


def _names(cases: Sequence[str]) -> str:
    """Lists case ids, the first few of many."""
    rest = len(cases) - _SHOWN_CASES
    return ", ".join(cases[:_SHOWN_CASES]) + (f" and {rest} more" if rest > 0 else "")
