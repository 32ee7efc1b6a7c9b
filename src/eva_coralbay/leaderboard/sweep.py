"""Runs models on tasks with several seeds, from one file; what is finished is not run again.

    output: logs/sweep              # where the runs write
    seeds: [0, 1]
    env: {MAX_STEPS: 20000}         # variables of the configs, for all cells
    models:
      radiology/voco_b: {}          # a name of eva's registry needs nothing else
      my-lab/my-encoder:
        env: {IN_FEATURES: 32}
        args:                       # what no variable sets, as on the command line of `eva fit`
          model.init_args.encoder: {class_path: my_package.MyEncoder, init_args: {out_indices: 6}}
    tasks:
      btcv:
        config: configs/vision/radiology/online/segmentation/btcv.yaml
        env: {DATA_ROOT: data/btcv}

A file, as a model is more than a name (weights, feature size, encoder), and as others repeat a
sweep from it. Where several set the same variable, the model's value counts, then the task's.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess  # nosec B404  # starts eva and SLURM's own commands
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import (
    Any,
    Literal,
)

import pydantic

from eva_coralbay import _atomic_files, _hashes
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.leaderboard import submission
from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import foreign_files, record

Cluster = Literal["local", "slurm"]
"""Where cells run."""

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

_FAILURE = "failed.txt"
"""A file in the folder of a cell whose last attempt has failed, with the path of its log."""

_LOG_LINES = 15
"""The last lines of a log that are shown."""

_POLL_SECONDS = 1.0
"""How often the running cells are looked at."""

_LATENCY_SECONDS: Mapping[Cluster, float] = {"local": 0.0, "slurm": 60.0}
"""How long a record may take to be seen that a job has written."""

_CANCEL_SECONDS = 30.0
"""How long cancelled jobs have to end."""

_MINUTES: Mapping[Cluster, int] = {"local": 60 * 24 * 365, "slurm": 60 * 24}
"""The time limit of a cell, unless a parameter sets it; locally one that it does not reach."""


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

    @pydantic.field_validator("models", "tasks")
    @classmethod
    def _check_names(cls, parts: dict[str, Any]) -> dict[str, Any]:
        """Checks that every name can be that of a folder."""
        for name in parts:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is no name: it has letters, digits, dots, underscores and hyphens"
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


@dataclasses.dataclass
class Outcome:
    """What became of a cell."""

    cell: Cell

    state: Literal["to do", "done", "skipped", "failed", "interrupted"]
    """Skipped is what was done before; what was interrupted, or is running elsewhere, is to do."""

    result: record.Record | None = None
    """Its record, if it is done."""

    log: pathlib.Path | None = None
    """The log of its last attempt, if it ran."""

    @property
    def score(self) -> float | None:
        """The value that its task is ranked by, if it is done."""
        if self.result is None:
            return None
        values = [self.result.metrics.get(name) for name in ("dice", "balanced_accuracy")]
        return next((value for value in values if value is not None), None)

    @property
    def seconds(self) -> float | None:
        """How long it trained, if it is done and that is known."""
        return None if self.result is None else self.result.cost.fit_seconds


def read(path: str | os.PathLike[str]) -> Plan:
    """Reads a sweep.

    Args:
        path: The path of the YAML file.

    Raises:
        EvaCoralbayError: If the file is no sweep, naming the field.
    """
    try:
        return Plan.model_validate(foreign_files.read_yaml(path, max_bytes=_MAX_BYTES))
    except pydantic.ValidationError as error:
        raise EvaCoralbayError(f"{path} is no sweep: {error}") from error


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
    return [
        _build_cell(plan, model, task, seed)
        for task in _select(plan.tasks, tasks, "task")
        for seed in (plan.seeds if seeds is None else seeds)
        for model in _select(plan.models, models, "model")
    ]


def look_up(cells: Sequence[Cell]) -> list[Outcome]:
    """Looks up what has become of cells so far, without running any.

    Args:
        cells: The cells.

    Returns:
        The outcomes, in the order of the cells: done, failed (the last attempt of a sweep, with
        its log) or to do.

    Raises:
        EvaCoralbayError: If a record cannot be read, naming the file.
    """
    return [_look_up(cell) for cell in cells]


def run(
    cells: Sequence[Cell],
    cluster: Cluster,
    *,
    folder: str | os.PathLike[str],
    at_once: int,
    parameters: Mapping[str, Any] | None = None,
    retries: int = 0,
    report: Callable[[str], None] = print,
) -> list[Outcome]:
    """Runs cells as jobs of submitit, and waits for them.

    A cell with a finished record of the same settings is skipped. On SIGINT the running jobs are
    cancelled; the same call goes on later.

    Args:
        cells: The cells.
        cluster: Where to run them.
        folder: Where submitit keeps its files and the logs.
        at_once: The most jobs that are submitted at the same time.
        parameters: Parameters of :class:`submitit.AutoExecutor`, e.g. `slurm_partition`.
        retries: How often a failed cell is tried again.
        report: Is called with a line whenever something happens.

    Returns:
        The outcomes, in the order of the cells.

    Raises:
        EvaCoralbayError: If submitit is not installed, a parameter is unknown, or there is no
            SLURM.
    """
    executor = _make_executor(cluster, folder, parameters or {})
    outcomes = look_up(cells)
    for outcome in outcomes:
        outcome.state = "skipped" if outcome.state == "done" else "to do"
    waiting = collections.deque((each, 1) for each in outcomes if each.state != "skipped")
    report(f"{len(waiting)} cells to run, {len(cells) - len(waiting)} are done already")

    running: dict[Any, tuple[Outcome, int]] = {}
    with _interruptible():
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    outcome, attempt = waiting.popleft()
                    (outcome.cell.folder / _FAILURE).unlink(missing_ok=True)
                    job = _submit(executor, outcome.cell, cluster)
                    outcome.log = pathlib.Path(job.paths.stdout)
                    running[job] = (outcome, attempt)
                    report(f"started: {outcome.cell.name} (log: {outcome.log})")
                for job in [job for job in running if job.done()]:
                    outcome, attempt = running.pop(job)
                    _settle(outcome, cluster)
                    if outcome.state == "failed" and attempt <= retries:
                        waiting.append((outcome, attempt + 1))
                    progress = f"[{len(cells) - len(waiting) - len(running)}/{len(cells)}]"
                    report(f"{progress} {outcome.state}: {outcome.cell.name}")
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            report(f"interrupted: cancelling {len(running)} running cells")
            _cancel(running)
            for outcome, _ in (*running.values(), *waiting):
                outcome.state = "interrupted"
    return outcomes


def describe_failure(outcome: Outcome) -> str:
    """Says which cell failed, with its log and the last lines of it."""
    lines: list[str] = []
    if outcome.log is not None and outcome.log.is_file():
        # a progress bar overwrites its line
        text = outcome.log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
        lines = [line for line in text.splitlines() if line.strip()][-_LOG_LINES:]
    return "\n".join(
        [
            f"failed: {outcome.cell.name}",
            f"  log: {outcome.log}",
            *(f"  | {line}" for line in lines),
        ]
    )


def _select(known: Mapping[str, Any], names: Sequence[str] | None, kind: str) -> list[str]:
    """Returns the chosen names, all if none is."""
    for name in names or ():
        if name not in known:
            raise EvaCoralbayError(
                f"There is no {kind} {name} in the sweep: it has {', '.join(known)}."
            )
    return list(known if names is None else names)


def _build_cell(plan: Plan, model: str, task: str, seed: int) -> Cell:
    """Builds a cell, with all that it depends on in the name of its folder."""
    parts = (plan, plan.tasks[task], plan.models[model])
    config = plan.tasks[task].config
    content, variables = _read_config(config)
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
        "checkpoint": _hash_weights(environment.get("CHECKPOINT", "")),
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


@functools.lru_cache
def _read_config(path: str) -> tuple[Any, list[str]]:
    """Reads a config, and the names of the variables that it reads."""
    text = foreign_files.read_text(path, max_bytes=_MAX_BYTES)
    content = foreign_files.read_yaml(path, max_bytes=_MAX_BYTES)
    return content, sorted(set(re.findall(r"\$\{oc\.env:\s*(\w+)", text)))


@functools.lru_cache
def _hash_weights(checkpoint: str) -> str | None:
    """Hashes a file of weights or the files of a folder; None if it is none, e.g. a Hub id."""
    path = pathlib.Path(checkpoint)
    if not checkpoint or not path.exists():
        return None
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(bytes.fromhex(_hashes.sha256_of_file(file)))
    return digest.hexdigest()


def _format(value: Any) -> str:
    """Writes a value as the configs read it from a variable."""
    return value if isinstance(value, str) else json.dumps(value)


def _look_up(cell: Cell) -> Outcome:
    """Looks up what has become of a cell."""
    entry = cell.find_record()
    if entry is not None:
        return Outcome(cell, "done", entry.record)
    failure = cell.folder / _FAILURE
    if failure.is_file():
        log = failure.read_text(encoding="utf-8").strip()
        return Outcome(cell, "failed", log=pathlib.Path(log))
    return Outcome(cell, "to do")


def _make_executor(
    cluster: Cluster, folder: str | os.PathLike[str], parameters: Mapping[str, Any]
) -> Any:
    """Makes what jobs are submitted to."""
    try:
        import submitit
    except ImportError as error:
        raise EvaCoralbayError(
            "`--local` and `--slurm` need submitit: pip install 'eva-coralbay[sweep]'. Without "
            "it, `--print` gives the commands."
        ) from error
    # ids of processes recur, and submitit names its files by them
    path = pathlib.Path(folder) / datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    try:
        executor = submitit.AutoExecutor(path, cluster=cluster)
        executor.update_parameters(
            **{
                "name": "sweep",
                "stderr_to_stdout": True,
                "timeout_min": _MINUTES[cluster],
                **parameters,
            }
        )
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
        raise EvaCoralbayError(f"submitit cannot use {cluster}: {error}") from error
    return executor


def _submit(executor: Any, cell: Cell, cluster: Cluster) -> Any:
    """Submits a cell, and returns its job."""
    variables = [f"{name}={value}" for name, value in cell.environment.items()]
    if cluster == "local":
        # submitit hides the GPUs from local jobs
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        unhidden = f"CUDA_VISIBLE_DEVICES={visible}"
        gpus = ["-u", "CUDA_VISIBLE_DEVICES"] if visible is None else [unhidden]
        variables = [*gpus, *variables]
    command = ["env", *variables, sys.executable, "-m", "eva", *cell.arguments]
    return executor.submit(subprocess.run, command, check=False)


def _settle(outcome: Outcome, cluster: Cluster) -> None:
    """Looks what became of a cell whose job has ended; only its record counts."""
    deadline = time.monotonic() + _LATENCY_SECONDS[cluster]
    while (entry := outcome.cell.find_record()) is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    outcome.state = "failed" if entry is None else "done"
    outcome.result = None if entry is None else entry.record
    if outcome.state == "failed":
        _atomic_files.write_atomically(outcome.cell.folder / _FAILURE, f"{outcome.log}\n".encode())


def _cancel(jobs: Iterable[Any]) -> None:
    """Cancels jobs, and waits for the end of them."""
    for job in jobs:
        job.cancel(check=False)
    deadline = time.monotonic() + _CANCEL_SECONDS
    while not all(job.done() for job in jobs) and time.monotonic() < deadline:
        time.sleep(0.1)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt on SIGTERM too, and in jobs, which inherit what is ignored."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
