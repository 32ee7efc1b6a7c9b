"""Reads what a sweep is to run, and lists its cells: a model on a task with a seed."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pydantic

from eva_coralbay import _hashes
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.leaderboard import submission
from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import foreign_files

_MACHINE_VARIABLES = (
    "ACCELERATOR",
    "LOG_EVERY_N_STEPS",
    "N_DATA_WORKERS",
    "OUTPUT_ROOT",
    "PREPARED_ROOT",
    "TQDM_REFRESH_RATE",
)
"""The variables that do not change what a cell is."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
"""What a model or a task may be called."""

_MAX_BYTES = 1_000_000
"""The most bytes of a sweep or of a config."""


class _Part(pydantic.BaseModel):
    """A part of the file, without unknown fields."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    env: dict[str, Any] = {}
    """Values of the variables that configs read."""

    args: dict[str, Any] = {}
    """Values that no variable sets, by their name on the command line of `eva fit`."""


class _Task(_Part):
    """A task of a sweep."""

    config: str
    """The path of its config."""


class Plan(_Part):
    """What to run: every model on every task with every seed."""

    output: str
    """The folder that the runs write to."""

    seeds: list[pydantic.NonNegativeInt]
    """The seeds."""

    models: dict[str, _Part]
    """The models, by the name that their records will have."""

    tasks: dict[str, _Task]
    """The tasks, by name."""

    @pydantic.field_validator("seeds")
    @classmethod
    def _check_seeds(cls, seeds: list[int]) -> list[int]:
        """Checks that no seed is there twice, as its runs would share a folder."""
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is there twice")
        return seeds

    @pydantic.field_validator("models", "tasks")
    @classmethod
    def _check_names(cls, parts: dict[str, Any]) -> dict[str, Any]:
        """Checks that every name can be that of a folder."""
        for name in parts:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not a name: it has letters, digits, dots, underscores and hyphens"
                )
        return parts


@dataclasses.dataclass(frozen=True)
class Cell:
    """A model on a task with a seed."""

    model: str
    task: str
    seed: int

    folder: pathlib.Path
    """Where its runs write; another for other settings."""

    environment: dict[str, str]
    """The variables that it sets, `OUTPUT_ROOT` included."""

    arguments: list[str]
    """The arguments of `eva`."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.model} on {self.task}, seed {self.seed}"

    @property
    def command(self) -> str:
        """The command for a POSIX shell."""
        variables = [f"{key}={shlex.quote(value)}" for key, value in self.environment.items()]
        return " ".join([*variables, shlex.join(["eva", *self.arguments])])

    def find_record(self) -> results_folder.Entry | None:
        """Finds the record that its protocol ranks, of a session that came to its end."""
        finished = filter(submission.is_finished, submission.find_ranked([self.folder]))
        return next(iter(finished), None)


def read(path: str | os.PathLike[str]) -> Plan:
    """Reads a sweep.

    Args:
        path: The path of the YAML file.

    Raises:
        EvaCoralbayError: If the file is not a sweep, naming the field.
    """
    try:
        plan = Plan.model_validate(foreign_files.read_yaml(path, max_bytes=_MAX_BYTES))
    except pydantic.ValidationError as error:
        raise EvaCoralbayError(f"{path} is not a sweep: {error}") from error
    for name, task in plan.tasks.items():
        if not pathlib.Path(task.config).is_file():
            raise EvaCoralbayError(
                f"{path}: the config of the task '{name}' is not a file: '{task.config}'. Its path "
                "starts at the folder that the command is run in."
            )
    return plan


def list_cells(
    plan: Plan,
    *,
    models: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Cell]:
    """Lists the cells of a sweep, task by task and seed by seed.

    What the configs read of the variables that are set in this process belongs to the cells too.

    Args:
        plan: The sweep.
        models: The models to run, all if None.
        tasks: The tasks to run, all if None.
        seeds: The seeds to run, those of the sweep if None.

    Raises:
        EvaCoralbayError: If a model or task is not in the sweep, or a config cannot be read.
    """
    # cells share their files: each is read once
    read_config, hash_weights = functools.cache(_read_config), functools.cache(_hash_weights)
    return [
        _build_cell(plan, model, task, seed, read_config=read_config, hash_weights=hash_weights)
        for task in _select(plan.tasks, tasks, "task")
        for seed in (plan.seeds if seeds is None else seeds)
        for model in _select(plan.models, models, "model")
    ]


def _select(known: Mapping[str, Any], names: Sequence[str] | None, kind: str) -> list[str]:
    """Returns the chosen names, all if none is."""
    for name in names or ():
        if name not in known:
            raise EvaCoralbayError(
                f"There is no {kind} {name} in the sweep: it has {', '.join(known)}."
            )
    return list(known if names is None else names)


def _build_cell(
    plan: Plan,
    model: str,
    task: str,
    seed: int,
    *,
    read_config: Callable[[str], tuple[Any, list[str]]],
    hash_weights: Callable[[str], str | None],
) -> Cell:
    """Builds a cell, with all that it depends on in the name of its folder."""
    parts = (plan, plan.tasks[task], plan.models[model])
    config = plan.tasks[task].config
    content, variables = read_config(config)
    ambient = {name: os.environ[name] for name in variables if name in os.environ}
    chosen = {"MODEL_NAME": model, "TASK": task}
    arguments: dict[str, Any] = {"trainer.init_args.model": model}
    for part in parts:
        chosen |= {name: _format(value) for name, value in part.env.items()}
        arguments |= part.args
    environment = {**ambient, **chosen, "SEED": str(seed), "N_RUNS": "1"}
    identity = {
        "config": content,
        "arguments": arguments,
        "environment": {
            name: value for name, value in environment.items() if name not in _MACHINE_VARIABLES
        },
        "checkpoint": hash_weights(environment.get("CHECKPOINT", "")),
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
    folder = pathlib.Path(plan.output, model.replace("/", "__"), task.replace("/", "__"))
    folder /= f"seed_{seed}-{digest[:12]}"
    return Cell(
        model=model,
        task=task,
        seed=seed,
        folder=folder,
        environment={**environment, "OUTPUT_ROOT": str(folder)},
        arguments=[
            *("fit", "--config", config),
            *(f"--{name}={_format(value)}" for name, value in arguments.items()),
        ],
    )


def _read_config(path: str) -> tuple[Any, list[str]]:
    """Reads a config, and the names of the variables that it reads."""
    text = foreign_files.read_text(path, max_bytes=_MAX_BYTES)
    content = foreign_files.read_yaml(path, max_bytes=_MAX_BYTES)
    return content, sorted(set(re.findall(r"\$\{oc\.env:\s*(\w+)", text)))


def _hash_weights(checkpoint: str) -> str | None:
    """Hashes a file of weights or the files of a folder; None if it is none, e.g. a Hub id."""
    path = pathlib.Path(checkpoint)
    if not checkpoint or not path.exists():
        return None
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(bytes.fromhex(_hashes.hash_file(file)))
    return digest.hexdigest()


def _format(value: Any) -> str:
    """Writes a value as the configs read it from a variable."""
    return value if isinstance(value, str) else json.dumps(value)
