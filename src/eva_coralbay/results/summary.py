"""Summarizes runs: for each model, task, protocol and part the mean over the seeds."""

import dataclasses
import datetime
import os
import pathlib
import statistics
from collections.abc import Sequence

from loguru import logger

from eva_coralbay import _messages
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.results import record
from eva_coralbay.tasks import protocols

_DIGITS = 8
"""How many digits of a hash are shown."""


@dataclasses.dataclass(frozen=True)
class Found:
    """The records below a folder."""

    records: list[tuple[pathlib.Path, record.Record]]
    """The path of each record and the record, sorted by path."""

    unreadable: list[str]
    """For each other file what is wrong with it; it begins with its path."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A metric over several runs."""

    mean: float | None
    """The mean over the runs that have a value; `None` if none has."""

    deviation: float | None
    """The standard deviation over them; `None` of fewer than two."""

    n_runs: int
    """The number of runs that have a value."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """The runs of a model on a task by a protocol, scored on one part of its split."""

    model: str
    """The name of the model, with its revision if it has one."""

    task: str
    """The task as `<id>@<version>`."""

    protocol: str
    part: str
    """`val` or `test`."""

    checkpoint: str
    """Which checkpoint was scored: `last` or `best`."""

    settings: str | None
    """The first digits of the hash of what defines the task, such as its steps and its spacing;
    `None` if it is not known."""

    seeds: tuple[int | None, ...]
    """The seed of each run."""

    weights: tuple[str | None, ...]
    """The first digits of the hash of the encoder's weights of each run, `None` if not known. They
    differ between seeds if the encoder is random, or was pre-trained once for each seed."""

    n_cases: int
    """The number of cases that each run was scored on."""

    metrics: dict[str, Value]
    """The values by the name of the metric."""


def find(folder: str | os.PathLike[str]) -> Found:
    """Reads every record that `eva fit` has left below a folder.

    Args:
        folder: The output folder of one or more runs.

    Returns:
        The records, and what is wrong with files that cannot be read.

    Raises:
        EvaCoralbayError: If there is no record.
    """
    paths = sorted(pathlib.Path(folder).rglob("record_*.json"))
    if not paths:
        raise EvaCoralbayError(
            f"There is no record (record_*.json) below {folder}. Name the folder that a finished "
            "`eva fit` wrote to (OUTPUT_ROOT)."
        )
    records, unreadable = [], []
    for path in paths:
        try:
            records.append((path, record.Record.read(path)))
        except ValueError as error:
            unreadable.append(str(error))
    return Found(records, unreadable)


def summarize(records: Sequence[record.Record]) -> list[Summary]:
    """Summarizes runs over their seeds.

    Of a run that was scored at several checkpoints, the one that its protocol ranks counts. Values
    of other models, tasks, versions, settings, protocols, parts, cases or files of the data are
    never averaged, nor are those of a demonstration and of a measurement, nor those of other
    weights of one seed under one name. A copy of a record counts once, and so does a seed that was
    run several times: by its newest run, with a warning. There is a warning, too, if the weights
    differ between the seeds of a model, as their deviation is then part of what is shown.

    Args:
        records: The records, of any runs.

    Returns:
        The summaries, sorted by task, part, protocol and model.
    """
    unique = list({result.model_dump_json(): result for result in records}.values())
    ambiguous, changed = _find_ambiguous(unique), _find_changed_data(unique)
    is_mixed = len({result.kind for result in unique}) > 1
    groups: dict[tuple[str, ...], list[record.Record]] = {}
    for result in unique:
        name = _name(result.model)
        if name in ambiguous:
            name = f"{name} ({_shorten(result.model.weights_sha256) or 'weights unknown'})"
        if _cases(result) in changed:
            name = f"{name} (data {_describe_data(result)})"
        if is_mixed and result.kind == "demo":
            name = f"{name} (demo)"
        groups.setdefault(_key(result, name), []).append(result)
    summaries = [_summarize(groups[key], key[-1]) for key in sorted(groups)]
    _warn_of_weights(summaries)
    return summaries


def _find_ambiguous(records: Sequence[record.Record]) -> set[str]:
    """Returns the names of models that stand for several weights.

    Weights are compared for one seed, as random ones differ between seeds.
    """
    known: dict[tuple[str, int | None], str | None] = {}
    ambiguous = set()
    for result in records:
        name, weights = _name(result.model), result.model.weights_sha256
        if known.setdefault((name, result.seed), weights) != weights:
            ambiguous.add(name)
    return ambiguous


def _find_changed_data(records: Sequence[record.Record]) -> set[tuple[str, ...]]:
    """Returns the cases that stand for several files, such as labels from before a correction."""
    known: dict[tuple[str, ...], str] = {}
    changed = set()
    for result in records:
        cases, data = _cases(result), _describe_data(result)
        if known.setdefault(cases, data) != data:
            changed.add(cases)
    return changed


def _cases(result: record.Record) -> tuple[str, ...]:
    return result.task.id, result.task.version, result.split.part, result.split.ids_sha256


def _describe_data(result: record.Record) -> str:
    """Returns the first digits of the hashes of the files, as "images 0123abcd, labels ..."."""
    checksums = result.dataset.checksums or {}
    known = [f"{kind} {_shorten(checksum)}" for kind, checksum in sorted(checksums.items())]
    return ", ".join(known) or "unknown"


def _key(result: record.Record, name: str) -> tuple[str, ...]:
    """Returns what the records of a summary have in common, the name of the model last."""
    task, split = result.task, result.split
    return (
        f"{task.id}@{task.version}",
        split.part,
        split.ids_sha256,
        result.protocol or "unknown",
        task.config_sha256 or "",
        "" if result.encoder is None else result.encoder.sha256,
        name,
    )


def _shorten(sha256: str | None) -> str | None:
    return None if sha256 is None else sha256[:_DIGITS]


def _summarize(results: list[record.Record], name: str) -> Summary:
    """Summarizes the runs of a group."""
    first = results[0]
    protocol = protocols.PROTOCOLS.get(str(first.protocol))
    selections = {result.checkpoint.selection for result in results}
    ranked = "last" if protocol is None else protocol.checkpoint
    selection = ranked if ranked in selections else min(selections)
    counted = _take_newest(
        [result for result in results if result.checkpoint.selection == selection], name
    )
    metrics = dict.fromkeys(metric for result in counted for metric in result.metrics)
    return Summary(
        model=name,
        task=f"{first.task.id}@{first.task.version}",
        protocol=first.protocol or "unknown",
        part=first.split.part,
        checkpoint=selection,
        settings=_shorten(first.task.config_sha256),
        seeds=tuple(result.seed for result in counted),
        weights=tuple(_shorten(result.model.weights_sha256) for result in counted),
        n_cases=first.split.n,
        metrics={
            metric: _average([result.metrics.get(metric) for result in counted])
            for metric in metrics
        },
    )


def _take_newest(results: Sequence[record.Record], name: str) -> list[record.Record]:
    """Returns the newest run of each seed, and says which were run several times."""
    newest: dict[tuple[int | None, int], record.Record] = {}
    repeated = set()
    for index, result in enumerate(results):
        # runs of an unknown seed may be of different ones
        key = result.seed, index if result.seed is None else 0
        if key in newest:
            repeated.add(str(result.seed))
        if key not in newest or _day(result) >= _day(newest[key]):
            newest[key] = result
    if repeated:
        logger.warning(
            f"{name} has several runs of the seed {_messages.list_names(sorted(repeated))} on "
            f"{results[0].task.id}: the newest counts."
        )
    return list(newest.values())


def _warn_of_weights(summaries: Sequence[Summary]) -> None:
    """Says once of each model which seeds had which weights, if they are not all the same."""
    lines = dict.fromkeys(
        f"{each.model} has different weights for different seeds "
        f"({_messages.list_names(_pair_with_seeds(each))}): the mean and the deviation are over "
        "these weights, too. If the weights should be the same, check which checkpoint each run "
        "loaded, and give others a model id of their own."
        for each in summaries
        if len({known for known in each.weights if known is not None}) > 1
    )
    for line in lines:
        logger.warning(line)


def _pair_with_seeds(each: Summary) -> list[str]:
    """Returns the weights of each seed, as "seed 0: 0123abcd"."""
    pairs = zip(each.seeds, each.weights, strict=True)
    return [f"seed {seed}: {weights or 'unknown'}" for seed, weights in pairs]


def _day(result: record.Record) -> datetime.date:
    return result.date or datetime.date.min


def _name(model: record.Model) -> str:
    """Returns the name of a model, with its revision if it has one."""
    name = model.id or "unnamed"
    return name if model.revision is None else f"{name}@{model.revision}"


def _average(values: Sequence[float | None]) -> Value:
    """Averages a metric over runs."""
    known = [value for value in values if value is not None]
    return Value(
        mean=statistics.fmean(known) if known else None,
        deviation=statistics.stdev(known) if len(known) > 1 else None,
        n_runs=len(known),
    )
