"""Feeds malformed inputs to the readers and counts what comes of each.

Inputs are written and read in processes of their own. Each must come out as *refused* (an error of
ours, in a few lines, that names the file) or as *right* (it is read, and the result is what an
independent reader or the generator says). All other outcomes are faults:

- *traceback*: any other exception; *hang*: no end after `MAX_SECONDS`; *killed*: the process died;
- *memory*: reading it took more than `MAX_GROWTH` beyond what was taken before, which is generous,
  as no input of the campaign holds more than a few MB by its own account (weights: 14 MB, and
  512 MiB);
- *wrong*: it is read, but as something else; *unnamed*: an error that does not name the file.
"""

import collections
import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import resource
import shutil
import tempfile
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from eva_coralbay.errors import EvaCoralbayError

MAX_SECONDS = 10.0
"""How long an input may take."""

MAX_GROWTH = 128 * 2**20
"""How much memory, in bytes, the reading of an input may take beyond what was taken before."""

BATCH = 20
"""How many inputs are read in one process, which takes longer to start than most inputs."""

MAX_LINES = 30
"""How many lines an error may have."""

FINE = ("refused", "right")
"""The outcomes that are not faults."""

FAULTS = ("unnamed", "wrong", "traceback", "memory", "hang", "killed")
"""Those that are."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of input."""

    name: str
    """Its name in the table."""

    write: Callable[[np.random.Generator, pathlib.Path], pathlib.Path]
    """Writes an input below a folder and returns the path that an error must name."""

    read: Callable[[pathlib.Path], Any]
    """Reads it as a command would."""

    check: Callable[[pathlib.Path, Any], str | None] = lambda path, result: None
    """Returns what is wrong with what was read, if it was."""

    inputs: int = 300
    """How many inputs a campaign has, unless said otherwise."""

    max_seconds: float = MAX_SECONDS
    """How long an input may take."""

    max_growth: int = MAX_GROWTH
    """How much memory, in bytes, the reading of an input may take beyond what was taken before."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of an input."""

    kind: str
    number: int
    outcome: str
    detail: str = ""
    growth: int = 0


def run(
    kinds: Iterable[Kind], *, inputs: int, seed: int, report: Callable[[Outcome], Any]
) -> list[Outcome]:
    """Runs the campaign.

    Args:
        kinds: The kinds of input.
        inputs: The number of inputs of each kind.
        seed: What all inputs follow from; each can be made again alone by `run_numbers`.
        report: Called with each outcome.

    Returns:
        All outcomes.
    """
    outcomes = []
    for kind in kinds:
        for outcome in run_numbers(kind, range(inputs), seed=seed):
            outcomes.append(outcome)
            report(outcome)
    return outcomes


def run_numbers(kind: Kind, numbers: Sequence[int], *, seed: int) -> Iterator[Outcome]:
    """Writes and reads some inputs in processes of their own, `BATCH` in each.

    Args:
        kind: The kind of the inputs.
        numbers: Their numbers.
        seed: The seed of the campaign.

    Yields:
        The outcome of each.
    """
    waiting = list(numbers)
    while waiting:
        done = list(_run_batch(kind, waiting[:BATCH], seed))
        waiting = waiting[len(done) :]
        yield from done


def _run_batch(kind: Kind, numbers: Sequence[int], seed: int) -> Iterator[Outcome]:
    """Runs inputs in one process, up to the first that ends it."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    folder = tempfile.TemporaryDirectory(prefix="fuzz-")
    arguments = (kind, numbers, seed, pathlib.Path(folder.name), theirs)
    process = context.Process(target=_in_process, args=arguments, daemon=True)
    process.start()
    theirs.close()
    try:
        for number in numbers:
            if not ours.poll(kind.max_seconds):
                yield Outcome(kind.name, number, "hang")
                return
            try:
                outcome = ours.recv()
            except EOFError:
                outcome = Outcome(kind.name, number, "killed")
            yield outcome
            if outcome.outcome in ("killed", "memory"):
                return
    finally:
        process.kill()
        process.join()
        folder.cleanup()


def _in_process(
    kind: Kind, numbers: Sequence[int], seed: int, folder: pathlib.Path, pipe: Any
) -> None:
    # what the readers print is none of the campaign
    with pathlib.Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
    for number in numbers:
        random = np.random.default_rng([seed, zlib.crc32(kind.name.encode()), number])
        place = folder / str(number)
        place.mkdir()
        outcome, detail, growth = _read(kind, kind.write(random, place))
        shutil.rmtree(place)
        if growth > kind.max_growth:
            outcome, detail = "memory", f"{growth / 2**20:.0f} MiB, then {outcome}: {detail}"
        pipe.send(Outcome(kind.name, number, outcome, detail, growth))


def _read(kind: Kind, path: pathlib.Path) -> tuple[str, str, int]:
    """Returns the outcome of an input, its detail, and the memory that the reader took."""
    # what was written and what checks the result count for nothing
    _forget_peak()
    before = _peak()
    try:
        result = kind.read(path)
    except EvaCoralbayError as error:
        growth, message = _peak() - before, str(error)
        is_named = path.name in message and len(message.splitlines()) <= MAX_LINES
        return ("refused" if is_named else "unnamed"), message, growth
    except BaseException:  # also SystemExit and the like, which no reader may raise
        return "traceback", traceback.format_exc(), _peak() - before
    growth = _peak() - before
    problem = kind.check(path, result)
    return ("right" if problem is None else "wrong"), problem or "", growth


def _forget_peak() -> None:
    """Makes the peak of the memory what it is now, where that can be done."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tabulate(outcomes: Sequence[Outcome]) -> str:
    """Returns the table of outcomes as text: a row a kind, a column an outcome."""
    counts = collections.Counter((one.kind, one.outcome) for one in outcomes)
    kinds = list(dict.fromkeys(one.kind for one in outcomes))
    width = max(map(len, (*kinds, "kind")))
    columns = (*FINE, *FAULTS, "most MiB")
    lines = [" ".join([f"{'kind':{width}}", *(f"{column:>9}" for column in columns)])]
    for kind in kinds:
        growth = max(one.growth for one in outcomes if one.kind == kind) / 2**20
        cells = [*(str(counts[kind, outcome]) for outcome in (*FINE, *FAULTS)), f"{growth:.0f}"]
        lines.append(" ".join([f"{kind:{width}}", *(f"{cell:>9}" for cell in cells)]))
    return "\n".join(lines)
