"""Commands that are killed while they write, and run again.

A command runs in a process that ends, as by `kill -9`, at one of its file operations. It is run
again, and must leave what it leaves undisturbed, and nothing of the killed process.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eva_coralbay.cli import main
from tests.eva_coralbay.data.datasets import layouts
from tests.eva_coralbay.leaderboard import result_files
from tests.fuzz import mutations
from tests.fuzz.campaign import Kind

_EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"})
"""Audit events of Python that are file operations."""

_MAX_OPERATIONS = 80
"""Up to which file operation of a command it is killed."""

_COMMANDS: Mapping[str, Sequence[str]] = {
    "phantom": ("phantom", "out", "--cases", "2", "--val-cases", "1"),
    "config": ("config", "btcv", "--copy", "out"),
    "prepare": (
        "prepare", "nnunet", "--root", "in/own", "--prepared-root", "out", "--workers", "1",
    ),
    "inspect": ("inspect", "nnunet", "--root", "in/own", "--case", "case_0", "--out", "out.png"),
    "intake": ("pretrain", "prepare", "in/own/imagesTr", "--out", "out", "--workers", "1"),
    "build": ("leaderboard", "build", "--results", "in/results", "--out", "out"),
    "compare": (
        "leaderboard", "compare", "lab/net", "lab/other", "--task", "openkbp_oar",
        "--results", "in/results", "--out", "out.svg",
    ),
}  # fmt: skip
"""Commands that write `out` or a file of that name, by name."""


@functools.cache
def _inputs() -> pathlib.Path:
    """Writes what the commands read, once a process."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fuzz-in-"))
    layouts.write_nnunet(folder / "own", ["case_0", "case_1"])
    for model in ("lab/net", "lab/other"):
        for seed in (0, 1):
            result_files.write(
                folder / "results", model=model, task="openkbp_oar", kind="demo", seed=seed
            )
    return folder


def _write(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    name = mutations.choose(random, list(_COMMANDS))
    operation = int(random.integers(1, _MAX_OPERATIONS))
    path = folder / "kill.json"
    path.write_text(json.dumps({"command": name, "operation": operation}))
    return path


def _read(path: pathlib.Path) -> list[dict[str, str]]:
    """Returns what the command leaves undisturbed, and after it was killed and run again."""
    plan = json.loads(path.read_text())
    arguments = _COMMANDS[plan["command"]]
    folder = path.parent / "work"
    undisturbed = _finish(arguments, folder, plan)
    # a command of few operations is over before: try an earlier one
    operation = plan["operation"]
    while operation and not _kill(arguments, folder, operation):
        operation //= 2
    return [undisturbed, _finish(arguments, folder, plan)]


def _finish(arguments: Sequence[str], folder: pathlib.Path, plan: Any) -> dict[str, str]:
    """Runs a command, returns what it leaves, and removes that."""
    _make(folder)
    if _run(arguments, folder) != 0:
        raise AssertionError(f"the command fails: {plan}")
    tree = _hash_tree(folder)
    shutil.rmtree(folder)
    return tree


def _kill(arguments: Sequence[str], folder: pathlib.Path, operation: int) -> bool:
    """Runs a command that is killed, and returns whether it was."""
    _make(folder)
    if _run(arguments, folder, killed_at=operation) == -signal.SIGKILL:
        return True
    shutil.rmtree(folder)
    return False


def _make(folder: pathlib.Path) -> None:
    folder.mkdir(exist_ok=True)
    if not (folder / "in").is_symlink():
        (folder / "in").symlink_to(_inputs())


def _run(arguments: Sequence[str], folder: pathlib.Path, *, killed_at: int | None = None) -> int:
    """Runs a command in a process of its own, and returns its exit status."""
    process = os.fork()
    if process == 0:
        status = 1
        with contextlib.suppress(BaseException):
            os.chdir(folder)
            if killed_at is not None:
                _kill_at(killed_at, folder)
            status = main.main([*arguments])
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _kill_at(operation: int, folder: pathlib.Path) -> None:
    """Ends this process at one of its file operations in a folder."""
    count = 0
    place = str(folder)

    def hook(event: str, values: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in _EVENTS or not values:
            return
        path = str(values[0])
        if path.startswith("out") or f"{place}/" in path or path.startswith(".out"):
            count += 1
            if count == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _hash_tree(folder: pathlib.Path) -> dict[str, str]:
    """Returns the hash of every file that a command left."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_relative_to(folder / "in")
    }


def _check(_: pathlib.Path, trees: list[dict[str, str]]) -> str | None:
    undisturbed, again = trees
    if undisturbed.keys() != again.keys():
        return f"other files: {sorted(undisturbed.keys() ^ again.keys())}"
    different = [name for name in undisturbed if undisturbed[name] != again[name]]
    return f"other content: {different}" if different else None


# several commands each, as they run: an input takes seconds, and more on a busy machine
KILLS = Kind("kills", _write, _read, _check, max_seconds=120.0, max_growth=512 * 2**20)
