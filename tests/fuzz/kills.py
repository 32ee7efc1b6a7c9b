"""Commands that are killed or fail while they write, and run again.

A command runs in a process that ends, as by `kill -9`, at one of its file operations or at any
moment; or one of its file operations fails as on a full disk, or it is interrupted there as by
Ctrl-C, which it must report in a few lines. It is run again, and must leave what it leaves
undisturbed, and nothing of the first process: not in its folder, and not in that of temporary
files.
"""

import errno
import hashlib
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from loguru import logger

from eva_coralbay.cli import main
from eva_coralbay.inference import embedding_job, segmenting_job, trained
from eva_coralbay.pretraining import export, view_sheet
from tests.fuzz import kill_folder, kill_inputs, mutations
from tests.fuzz.campaign import Kind

_IMPORTED = (embedding_job, segmenting_job, trained, export, view_sheet)
"""What commands import, which takes long: the processes that are forked have it."""

_EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"})
"""Audit events of Python that are file operations."""


class _Command(NamedTuple):
    """A command that writes `out`, or files whose names begin so."""

    arguments: str
    """Its arguments."""

    inputs: Sequence[str]
    """What it reads, in the folder `in`."""


COMMANDS: Mapping[str, _Command] = {
    "phantom": _Command("phantom out --cases 2 --val-cases 1", ()),
    "config": _Command("config btcv --copy out", ()),
    "prepare": _Command("prepare nnunet --root in/own --prepared-root out --workers 1", ("own",)),
    "inspect": _Command("inspect nnunet --root in/own --case case_0 --out out.png", ("own",)),
    "intake": _Command("pretrain prepare in/scans --out out --workers 1", ("scans",)),
    "views": _Command(
        "pretrain views in/pretrained/store --case case_0 --out out.png", ("pretrained",)
    ),
    "export": _Command(
        "pretrain export in/pretrained/run/checkpoints/step=1.ckpt --out out", ("pretrained",)
    ),
    "embed": _Command(
        "embed in/scans in/scans/more.zip --model radiology/coralbay_random --kwarg feature_size=12"
        " --window 64 32 32 --spacing 3 3 3 --maps 1 --workers 1 --devices cpu --out out.parquet",
        ("scans",),
    ),
    "segment": _Command(
        "segment in/scans in/scans/more.zip --run in/probe/session/run_0 --overlay --probabilities"
        " --device cpu --out out",
        ("scans", "probe"),
    ),
    "curves": _Command("curves in/probe/session --out out.png", ("probe",)),
    "build": _Command("leaderboard build --results in/results --out out", ("results",)),
    "compare": _Command(
        "leaderboard compare lab/net lab/other --task openkbp_oar --results in/results --out "
        "out.svg",
        ("results",),
    ),
    "submit": _Command("leaderboard submit in/logs --out out/results", ("logs",)),
}
"""The commands that write, by name. Those that train have tests of their own."""


SAID = kill_folder.FOLDER / "said.txt"
"""Where the commands say what they say."""

_STATUSES: Mapping[str, Sequence[int]] = {
    "kill": (-signal.SIGKILL,),
    "kill later": (-signal.SIGKILL, 0),
    "full disk": (1, 0),
    "interrupt": (130, 0),
}
"""The exit statuses of a command by what is done to it: 0 if it did not matter, or was over."""


class _Stop(NamedTuple):
    """What is done to a command at one of its file operations."""

    what: str
    """A key of `_STATUSES`."""

    operation: int
    """The number of the operation."""

    def do(self) -> None:
        """Does it, in the process of the command."""
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "full disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise KeyboardInterrupt


class _Undisturbed(NamedTuple):
    """What a command does if nothing happens to it."""

    tree: dict[str, str]
    """The hash of every file that it leaves."""

    operations: int
    """The number of its file operations."""

    seconds: float
    """How long it takes."""


def _write_kill(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    return _write(random, folder, mutations.choose(random, ("kill", "kill", "kill later")))


def _write_failure(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    return _write(random, folder, mutations.choose(random, ("full disk", "interrupt")))


def _write(random: np.random.Generator, folder: pathlib.Path, what: str) -> pathlib.Path:
    path = folder / "plan.json"
    command = mutations.choose(random, list(COMMANDS))
    plan = {"command": command, "what": what, "part": float(random.random())}
    path.write_text(json.dumps(plan))
    return path


def _read(path: pathlib.Path) -> list[dict[str, str]]:
    """Returns what the command leaves undisturbed, and after it was stopped and run again."""
    plan = json.loads(path.read_text())
    command = COMMANDS[plan["command"]]
    expected = find_undisturbed(plan["command"])
    folder = make_folder(command)
    if plan["what"] == "kill later":
        status = run(command, folder, killed_after=plan["part"] * expected.seconds)
    else:
        stop = _Stop(plan["what"], 1 + int(plan["part"] * expected.operations))
        status = run(command, folder, stop=stop)
    said = SAID.read_text(errors="replace")
    if status not in _STATUSES[plan["what"]] or "Traceback" in said:
        raise AssertionError(f"the command ends with {status}: {plan}\n{said}")
    # what clears up may be interrupted as well
    if plan["what"] == "full disk" and list(folder.rglob("*.tmp")):
        left = sorted(map(str, folder.rglob("*.tmp")))
        raise AssertionError(f"the command leaves temporary files: {plan}\n{left}\n{said}")
    is_whole = hash_tree(folder) == expected.tree
    # `export` refuses what is there as a whole
    if run(command, folder) != 0 and not is_whole:
        raise AssertionError(f"the command fails when it is run again: {plan}\n{SAID.read_text()}")
    return [expected.tree, hash_tree(folder)]


def find_undisturbed(name: str) -> _Undisturbed:
    """Returns what a command does if nothing happens to it, which is found out once."""
    known = kill_folder.FOLDER / f"{name}.json"
    if not known.exists():
        command = COMMANDS[name]
        folder = make_folder(command)
        counted = kill_folder.FOLDER / "operations"
        start = time.monotonic()
        if run(command, folder, count_in=counted) != 0:
            raise AssertionError(f"the command fails: {command.arguments}")
        found = _Undisturbed(hash_tree(folder), int(counted.read_text()), time.monotonic() - start)
        known.write_text(json.dumps(found))
    return _Undisturbed(*json.loads(known.read_text()))


def make_folder(command: _Command) -> pathlib.Path:
    """Makes the folder that a command runs in, always the same one, as files name it."""
    folder, inputs = kill_folder.FOLDER / "work", kill_folder.FOLDER / "in"
    inputs.mkdir(exist_ok=True)
    for name in command.inputs:
        kill_inputs.make(name, inputs)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    (folder / "in").symlink_to(inputs)
    return folder


def run(
    command: _Command,
    folder: pathlib.Path,
    *,
    stop: _Stop | None = None,
    killed_after: float | None = None,
    count_in: pathlib.Path | None = None,
) -> int:
    """Runs a command in a process of its own, and returns its exit status."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            _redirect_output()
            os.chdir(folder)
            tempfile.tempdir = str(folder / "tmp")
            counter = _Counter(folder, stop)
            status = main.main(command.arguments.split())
            if count_in is not None:
                count_in.write_text(str(counter.count))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    killer = None
    if killed_after is not None:
        killer = threading.Timer(killed_after, os.kill, (process, signal.SIGKILL))
        killer.start()
    # the process may be killed until it is waited for: nobody else has its id before
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    if killer is not None:
        killer.cancel()
        killer.join()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _redirect_output() -> None:
    """Makes the output of this process a file, whatever a test has made of it."""
    file = SAID.open("w", encoding="utf-8", errors="replace")
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = file
    logger.remove()
    logger.add(file)


class _Counter:
    """Counts the operations of this process on files in a folder, and stops it at one of them."""

    def __init__(self, folder: pathlib.Path, stop: _Stop | None) -> None:
        self.count = 0
        self._place = f"{folder}/"
        self._stop = stop
        self._is_stopped = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, values: tuple[Any, ...]) -> None:
        if event not in _EVENTS or not self._is_ours(event, values):
            return
        self.count += 1
        stop = self._stop
        if stop is None or (stop.what == "full disk" and not _takes_space(event, values)):
            return
        if self.count >= stop.operation and not self._is_stopped:
            self._is_stopped = True
            stop.do()

    def _is_ours(self, event: str, values: tuple[Any, ...]) -> bool:
        path = os.fsdecode(values[0]) if isinstance(values[0], str | bytes | os.PathLike) else ""
        # `shutil.rmtree` names files relative to their folder
        relative_to = values[-1] if event in ("os.remove", "os.rmdir") else -1
        if relative_to != -1:
            path = str(pathlib.Path(f"/proc/self/fd/{relative_to}").readlink() / path)
        return path.startswith(("out", ".out", self._place))


def _takes_space(event: str, values: tuple[Any, ...]) -> bool:
    """Returns whether an operation may fail where the disk is full."""
    if event == "open":
        return bool(int(values[2]) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event not in ("os.remove", "os.rmdir")


def hash_tree(folder: pathlib.Path) -> dict[str, str]:
    """Returns the hash of every file that a command left, and the folders that are empty."""
    return {
        path.relative_to(folder).as_posix(): _hash(path)
        for path in sorted(folder.rglob("*"))
        if path != folder / "tmp"
        and not path.is_relative_to(folder / "in")
        and (path.is_file() or not any(path.iterdir()))
    }


def _hash(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "an empty folder"


def _check(_: pathlib.Path, trees: list[dict[str, str]]) -> str | None:
    undisturbed, again = trees
    if undisturbed.keys() != again.keys():
        return f"other files: {sorted(undisturbed.keys() ^ again.keys())}"
    different = [name for name in undisturbed if undisturbed[name] != again[name]]
    return f"other content: {different}" if different else None


# a command runs up to three times, and its inputs are made: more on a busy machine
_LIMITS: Any = {"inputs": 110, "max_seconds": 300.0, "max_growth": 512 * 2**20}

KILLS = Kind("kills", _write_kill, _read, _check, **_LIMITS)

FAILURES = Kind("failures", _write_failure, _read, _check, **{**_LIMITS, "inputs": 60})
