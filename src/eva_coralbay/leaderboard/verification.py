"""Verifies a record: computes its metrics again, and on request repeats the run."""

import dataclasses
import math
import os
import pathlib
import subprocess  # nosec B404  # starts eva and SLURM's own commands
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import yaml

from eva_coralbay import _hashes, _messages
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.leaderboard import validation
from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import record, run_config, scores
from eva_coralbay.tasks import catalog

RERUN_TOLERANCE: Final = 0.01
"""How far a metric in [0, 1] of a repeated run may be from the recorded one, by default.

Other devices and versions add up the same numbers in another order; 0.01 is a point of Dice. On
the same CPU with the same versions, a run repeats exactly. Distances, in mm, have no tolerance:
a single voxel can move them by centimeters, so they are compared with the case table only.
"""

_MACHINE: Mapping[str, tuple[str, ...]] = {
    "ACCELERATOR": ("trainer", "init_args", "accelerator"),
    "CHECKPOINT": ("model", "init_args", "encoder", "init_args", "model_kwargs", "checkpoint"),
    "DATA_ROOT": ("data", "init_args", "dataset", "init_args", "root"),
    "N_DATA_WORKERS": ("data", "init_args", "num_workers"),
    "PREPARED_ROOT": ("data", "init_args", "dataset", "init_args", "prepared_root"),
}
"""Where the configuration has what differs between machines, by environment variable."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Something that a record states and that was found to be otherwise."""

    source: Literal["case table", "rerun"]
    """Where the other value is from."""

    where: str
    """The field of the record."""

    recorded: Any
    """What the record states."""

    found: Any
    """The other value."""

    def __str__(self) -> str:
        """Returns it in one line."""
        return _messages.printable(
            f"{self.where}: {self.recorded} recorded, {self.found} by {self.source}"
        )


def recompute(entry: results_folder.Entry) -> dict[str, record.Score]:
    """Computes the metrics from the case table.

    Args:
        entry: The record with its case table.

    Returns:
        The value over the cases by metric; `None` where it is not defined.

    Raises:
        EvaCoralbayError: If the case table cannot be read, or is not the one that the record
            states.
    """
    _check_beside(entry.cases_path, entry.record.cases.sha256)
    found = scores.summarize(entry.rows, catalog.scoring_unit(entry.record.task.id))
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def verify(
    entry: results_folder.Entry, *, rerun: bool = False, tolerance: float = RERUN_TOLERANCE
) -> list[Difference]:
    """Compares a record with its case table, and with a repetition of its run.

    A repetition builds what the configuration beside the record names, so it executes code of
    the model's authors: read that configuration first. It reads the folders of the data from the
    environment variables DATA_ROOT and PREPARED_ROOT, the weights from CHECKPOINT, and the
    device from ACCELERATOR and N_DATA_WORKERS; what is not set is as the configuration has it.
    Its output goes to a temporary folder, its progress to standard error.

    Args:
        entry: The record with its files.
        rerun: Whether to repeat the run of this seed.
        tolerance: How far a metric in [0, 1] of the repetition may be from the recorded one.

    Returns:
        The differences: metrics of the case table beyond 1e-9; of the repetition metrics in [0, 1]
        beyond the tolerance, and other weights, data, cases or settings or another encoder.
        Distances, in mm, of the repetition are not compared: see :data:`RERUN_TOLERANCE`.

    Raises:
        EvaCoralbayError: If a file is missing or is not the record's, or the run fails.
    """
    found = recompute(entry)
    differences = _compare(entry.record, found, "case table", validation.TOLERANCE)
    if rerun:
        repeated = _repeat(entry)
        differences += [
            difference
            for difference in _compare(entry.record, repeated.metrics, "rerun", tolerance)
            if not _is_distance(difference.where)
        ]
        differences += [
            Difference("rerun", where, recorded, value)
            for (where, recorded), (_, value) in zip(
                _identity(entry.record), _identity(repeated), strict=True
            )
            if recorded != value and not (where == "encoder" and recorded is None)
        ]
    return differences


def _compare(
    result: record.Record,
    found: Mapping[str, record.Score],
    source: Literal["case table", "rerun"],
    tolerance: float,
) -> list[Difference]:
    """Compares the metrics of a record with others."""
    stated = result.metrics
    names = dict.fromkeys((*stated, *found))
    return [
        Difference(source, f"metrics.{name}", stated.get(name), found.get(name))
        for name in names
        if (name in stated) != (name in found)
        or not scores.is_close(stated[name], found[name], tolerance)
    ]


def _is_distance(where: str) -> bool:
    """Whether a field of the metrics is a distance in mm, of all classes or of one."""
    name = where.removeprefix("metrics.")
    return any(name == known or name.startswith(f"{known}_") for known in scores.LOWER_IS_BETTER)


def _identity(result: record.Record) -> Iterator[tuple[str, Any]]:
    """Yields the fields that a repetition has in common with its run."""
    yield "task.config_sha256", result.task.config_sha256
    yield "model.weights_sha256", result.model.weights_sha256
    yield "dataset.checksums", result.dataset.checksums
    yield "split.ids_sha256", result.split.ids_sha256
    yield "seed", result.seed
    yield "encoder", result.encoder


def _repeat(entry: results_folder.Entry) -> record.Record:
    """Repeats the run of a record.

    Returns:
        The record of the repetition, of the same cases and kind of checkpoint.
    """
    config = _read_config(entry)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        command = _adapt(config, entry.record, folder)
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        run = subprocess.run(  # nosec B603  # a list of words, no shell
            [sys.executable, "-m", "eva", command, "--config", str(path)], stdout=2, check=False
        )
        if run.returncode:
            raise EvaCoralbayError(f"The run of {entry.config_path} failed: see its output.")
        split, checkpoint = entry.record.split.part, entry.record.checkpoint.selection
        found = sorted(folder.rglob(f"record_{split}_{checkpoint}.json"))
        if len(found) != 1:
            raise EvaCoralbayError(
                f"The run of {entry.config_path} has left {len(found)} records of the {split} "
                f"cases and the {checkpoint} checkpoint, not one: see its output."
            )
        return record.Record.read(found[0])


def _read_config(entry: results_folder.Entry) -> dict[str, Any]:
    """Reads the configuration that the record states."""
    path, stated = entry.config_path, entry.record.config
    if stated is None:
        raise EvaCoralbayError(
            f"{entry.path} states no configuration, so its run cannot be repeated."
        )
    _check_beside(path, stated.sha256)
    return run_config.read(path)


def _check_beside(path: pathlib.Path, sha256: str) -> None:
    """Checks that a file beside the record is there, and is the one that the record states."""
    try:
        found = _hashes.hash_file(path)
    except OSError as error:
        raise EvaCoralbayError(
            f"{path} cannot be read ({error.strerror}): put the file that the run has written "
            "there, beside its record."
        ) from error
    if found != sha256:
        raise EvaCoralbayError(
            f"{path} is not the file that the record states: its SHA-256 is {found}, not {sha256}. "
            "Take the file as the run has written it."
        )


def _adapt(config: dict[str, Any], result: record.Record, folder: pathlib.Path) -> str:
    """Changes a configuration so that it repeats one run on this machine.

    Args:
        config: The configuration, which is changed.
        result: The record of the run.
        folder: Where the run is to write.

    Returns:
        The command of eva that runs it.
    """
    config["trainer"]["init_args"] |= {"default_root_dir": str(folder / "logs"), "n_runs": 1}
    config["model"]["init_args"]["seed"] = result.seed
    for variable, (*parents, key) in _MACHINE.items():
        if variable in os.environ:
            part = config
            for parent in parents:
                part = part.get(parent) or {}
            if key in part:
                part[key] = yaml.safe_load(os.environ[variable])

    command = run_config.command(config)
    if command == "fit":
        return command
    embeddings = str(folder / "embeddings")
    config["data"]["init_args"]["embeddings_root"] = embeddings
    for callback in config["trainer"]["init_args"].get("callbacks") or []:
        if "output_dir" in callback.get("init_args", {}):
            callback["init_args"]["output_dir"] = embeddings
    return command
