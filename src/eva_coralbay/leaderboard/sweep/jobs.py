"""Runs the cells of a sweep as jobs of submitit, here or on SLURM, and says what became of each."""

import collections
import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess  # nosec B404  # starts eva and SLURM's own commands
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from eva_coralbay import _atomic_files
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.leaderboard.sweep.plan import DRY_RUN, Cell
from eva_coralbay.results import record, scores

Cluster = Literal["local", "slurm"]
"""Where cells run."""

_FAILURE = "failed.txt"
"""A file in the folder of a cell whose last attempt has failed, with the path of its log."""

_LOG_LINES = 15
"""The last lines of a log that are shown."""

_POLL_SECONDS = 1.0
"""How often the running cells are looked at."""

_LATENCY_SECONDS: Mapping[Cluster, float] = {"local": 0.0, "slurm": 60.0}
"""How long a record may take to be seen that a job has written."""

_CANCEL_SECONDS = 30.0
"""How long canceled jobs have to end."""

_MINUTES: Mapping[Cluster, int] = {"local": 60 * 24 * 365, "slurm": 60 * 24}
"""The time limit of a cell, unless a parameter sets it; locally one that it does not reach."""


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
        return self.result.metrics.get(scores.headline_metric(self.result.metrics))

    @property
    def seconds(self) -> float | None:
        """How long it trained, if it is done and that is known."""
        return None if self.result is None else self.result.cost.fit_seconds


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
    canceled; the same call goes on later.

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
                    # eva does not go on with embeddings, nor does it overwrite them
                    shutil.rmtree(outcome.cell.embeddings, ignore_errors=True)
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
            report(f"interrupted: canceling {len(running)} running cells")
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
    # such a run would leave no record
    unset = ["-u", DRY_RUN]
    command = ["env", *unset, *variables, sys.executable, "-m", "eva", *cell.arguments]
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
