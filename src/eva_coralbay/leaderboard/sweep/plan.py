"""Reads what a sweep is to run, and lists its cells: a model on a task with a seed."""

import dataclasses
import difflib
import functools
import hashlib
import json
import os
import pathlib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pydantic

from eva_coralbay import _hashes, _invalid_fields
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.leaderboard import submission
from eva_coralbay.models import work, zoo
from eva_coralbay.results import bounded_reading, run_config
from eva_coralbay.results import folder as results_folder

_MACHINE_VARIABLES = (
    "ACCELERATOR",
    "DOWNLOAD_DATA",
    "EMBEDDINGS_ROOT",
    "LOGGERS",
    "LOG_EVERY_N_STEPS",
    "NUM_DEVICES",
    "N_DATA_WORKERS",
    "OUTPUT_ROOT",
    "PREDICT_BATCH_SIZE",
    "PREPARED",
    "PREPARED_ROOT",
    "SW_BATCH_SIZE",
    "TQDM_REFRESH_RATE",
)
"""The variables that do not change what a cell is."""

DRY_RUN = "DRY_RUN"
"""The variable that makes a run end without a record, which therefore no cell has."""

_EMBEDDINGS = "data.init_args.embeddings_root"
"""The key of a config that says where embeddings lie, if they are computed first."""

_PRETRAINING = "eva_coralbay.pretraining."
"""How the class of the trainer begins in the configs of a pre-training."""

_ALL = "all"
"""What stands for all models of the zoo."""

_VARIABLE = re.compile(r"\$\{oc\.env:\s*(?P<name>\w+)\s*(?:,\s*(?P<default>[^${}]*))?\}")
"""A value of a config that a variable sets, with what counts where it is not set."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
"""What a model or a task may be called."""

_SHELL_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
"""What a variable of a POSIX shell may be called."""

_WIDTH = "IN_FEATURES"
"""The variable of the feature size."""

_OF_ONE_MODEL = (_WIDTH, "CHECKPOINT")
"""The variables that are right for a single model of the zoo."""

_MAX_BYTES = 1_000_000
"""The most bytes of a sweep or of a config."""


class _Part(pydantic.BaseModel):
    """A part of the file, without unknown fields."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    env: dict[str, Any] = {}
    """Values of the variables that configs read."""

    args: dict[str, Any] = {}
    """Values that no variable sets, by their name on the command line of `eva fit`."""

    @pydantic.field_validator("env")
    @classmethod
    def _check_variables(cls, env: dict[str, Any]) -> dict[str, Any]:
        """Checks that every variable can be set by a shell, and is nothing else to it."""
        for name in env:
            if not _SHELL_VARIABLE.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not a variable: it has letters, digits and underscores"
                )
        if DRY_RUN in env:
            raise ValueError(
                f"{DRY_RUN} is not for a sweep, as it leaves no record: set it before one of the "
                "printed commands"
            )
        return env


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
        """Checks that no seed appears twice, as its runs would share a folder."""
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed appears twice")
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

    values: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    """The values of its config by their dotted keys, with what variables and arguments set."""

    @property
    def embeddings(self) -> pathlib.Path:
        """The folder of its embeddings, if its config has them computed first."""
        return self.folder / "embeddings"

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
    content = bounded_reading.read_yaml(path, max_bytes=_MAX_BYTES)
    if not isinstance(content, dict):
        raise EvaCoralbayError(
            f"{path} is not a sweep: a sweep needs `models` and `tasks`; see docs/submit.md."
        )
    try:
        plan = Plan.model_validate(content)
    except pydantic.ValidationError as error:
        why = _invalid_fields.explain(error)
        raise EvaCoralbayError(f"{path} is not a sweep: {why}.") from error
    for name, task in plan.tasks.items():
        if not pathlib.Path(task.config).is_file():
            raise EvaCoralbayError(
                f"{path}: the config of the task '{name}' is not a file: '{task.config}'. Its path "
                "starts at the folder that the command is run in."
            )
    return plan


def plan_config(
    path: str | os.PathLike[str], *, name: str, models: Sequence[str], seeds: Sequence[int] = (0,)
) -> Plan:
    """Plans a sweep of models of the zoo over the task of one config.

    Args:
        path: The path of the config.
        name: Its name, which the folder of the runs gets.
        models: Names of the zoo; only "all" stands for all of them.
        seeds: The seeds.

    Raises:
        EvaCoralbayError: If a model is not in the zoo, or the shell sets IN_FEATURES or CHECKPOINT,
            which would be those of all models.
    """
    for variable in filter(os.environ.get, _OF_ONE_MODEL):
        raise EvaCoralbayError(
            f"The shell sets {variable}, which would be that of all models: unset it, as each gets "
            "its own, or set it for some in a sweep's YAML file."
        )
    names = list(zoo.ENTRIES) if list(models) == [_ALL] else list(models)
    unknown = [model for model in names if model not in zoo.ENTRIES]
    if unknown:
        close = difflib.get_close_matches(unknown[0], zoo.ENTRIES, n=3)
        hint = f"Did you mean {' or '.join(close)}? " if close else ""
        raise EvaCoralbayError(
            f"There is no model {unknown[0]}. {hint}`eva-coralbay models` lists all that need "
            "nothing but their name; other models need a sweep's YAML file."
        )
    return Plan(
        output=f"logs/sweep/{name}",
        seeds=list(seeds),
        models={model: _Part(env={_WIDTH: work.width(zoo.ENTRIES[model])}) for model in names},
        tasks={name.rpartition("/")[2]: _Task(config=str(path))},
    )


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
        EvaCoralbayError: If a model or task is not in the sweep, or a config cannot be read or is
            that of a pre-training.
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
    read_config: Callable[[str], "_Config"],
    hash_weights: Callable[[str], str | None],
) -> Cell:
    """Builds a cell, with all that it depends on in the name of its folder."""
    parts = (plan, plan.tasks[task], plan.models[model])
    config = plan.tasks[task].config
    contents = read_config(config)
    ambient = {
        name: os.environ[name]
        for name in contents.variables
        if name in os.environ and name != DRY_RUN
    }
    chosen = {"MODEL_NAME": model, "TASK": task}
    arguments: dict[str, Any] = {"trainer.init_args.model": model}
    for part in parts:
        chosen |= {name: _format(value) for name, value in part.env.items()}
        arguments |= part.args
    environment = {**ambient, **chosen, "SEED": str(seed), "N_RUNS": "1"}
    identity = {
        "config": contents.own,
        "arguments": arguments,
        "environment": {
            name: value for name, value in environment.items() if name not in _MACHINE_VARIABLES
        },
        "checkpoint": hash_weights(environment.get("CHECKPOINT", "")),
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
    folder = pathlib.Path(plan.output, model.replace("/", "__"), task.replace("/", "__"))
    folder /= f"seed_{seed}-{digest[:12]}"
    environment = {**_fixed_width(chosen["MODEL_NAME"]), **environment, "OUTPUT_ROOT": str(folder)}
    values = {
        **_fill(contents.shared, environment),
        **_fill(contents.own, environment),
        **arguments,
    }
    embeddings = {"embeddings_root": values.get(_EMBEDDINGS)}
    command = run_config.command({"data": {"init_args": embeddings}})
    cell = Cell(
        model=model,
        task=task,
        seed=seed,
        folder=folder,
        environment=environment,
        arguments=[
            *(command, "--config", config),
            *(f"--{name}={_format(value)}" for name, value in arguments.items()),
        ],
        values=values,
    )
    if command != "fit":
        environment["EMBEDDINGS_ROOT"] = str(cell.embeddings)
    return cell


def _fixed_width(model: str) -> dict[str, str]:
    """Returns the variable of the feature size for weights that fix it.

    No other feature size can run, so it is not part of what a cell is.
    """
    entry = zoo.ENTRIES.get(model)
    if entry is None or "feature_size" not in entry.arguments:
        return {}
    return {_WIDTH: str(work.width(entry))}


class _Config(NamedTuple):
    """A config and the file that it takes."""

    own: Any
    """What it says itself."""

    shared: Any
    """What the file says that it takes by its key `config`; None if it takes none."""

    variables: list[str]
    """The variables that both read."""


def _read_config(path: str) -> _Config:
    """Reads a config and the file that it takes.

    Raises:
        EvaCoralbayError: If it cannot be read, or is that of a pre-training.
    """
    text = bounded_reading.read_text(path, max_bytes=_MAX_BYTES)
    own, shared = bounded_reading.read_yaml(path, max_bytes=_MAX_BYTES), None
    if isinstance(own, dict) and isinstance(own.get("config"), str):
        shared_path = pathlib.Path(path).parent / own["config"]
        text += bounded_reading.read_text(shared_path, max_bytes=_MAX_BYTES)
        shared = bounded_reading.read_yaml(shared_path, max_bytes=_MAX_BYTES)
    if str(_fill(own, {}).get("trainer.class_path")).startswith(_PRETRAINING):
        raise EvaCoralbayError(
            f"{path} is the config of a pre-training, which a sweep does not compare: run it by "
            "`eva-coralbay pretrain fit --config`."
        )
    return _Config(own, shared, sorted(set(re.findall(r"\$\{oc\.env:\s*(\w+)", text))))


def _fill(content: Any, environment: Mapping[str, str]) -> dict[str, Any]:
    """Returns the values of a config by their dotted keys, the variables in them replaced."""
    if not isinstance(content, dict):
        return {}
    values: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            values |= {f"{key}.{name}": leaf for name, leaf in _fill(value, environment).items()}
        elif isinstance(value, str) and (variable := _VARIABLE.fullmatch(value)):
            text = environment.get(variable["name"], variable["default"] or "null")
            values[key] = _parse(text)
        else:
            values[key] = value
    return values


def _parse(text: str) -> Any:
    """Parses the value of a variable; what is not YAML is text."""
    try:
        return bounded_reading.parse_yaml(text)
    except ValueError:
        return text


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
