"""Tests stores that several processes share on a file system without `flock`.

The processes run the commands, and a library that is loaded before libc takes `flock` away from
them, as Lustre and some mounts of NFS do.
"""

import errno
import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

import pytest

from eva_coralbay.data import phantom, task_datasets
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.pretraining import manifest
from eva_coralbay.pretraining.intake import prepare as intake

_SHIM = """
#include <errno.h>
#include <stdlib.h>
int flock(int file, int operation) { errno = atoi(getenv("FLOCK_ERRNO")); return -1; }
"""

_ERRORS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
"""What `flock` answers, one a process."""

_COMMAND = """
import os, pathlib, sys, time
from eva_coralbay.cli import main
from eva_coralbay.data import task_datasets
from eva_coralbay.pretraining.intake import prepare
folder = pathlib.Path(sys.argv[1])
(folder / f"ready_{os.getpid()}").touch()
while not (folder / "go").exists():
    time.sleep(0.01)
sys.exit(main.main(sys.argv[2:]))
"""
"""Runs a command once all processes have imported what takes long."""

_CASES = 12
_SPACING = (2.0, 2.0, 2.0)
_PATIENCE_S = 300.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("cc") is None,
        reason="The library that takes flock away is for Linux, and needs a C compiler.",
    ),
]


@pytest.fixture(name="shim", scope="module")
def _shim(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    source = tmp_path_factory.mktemp("shim") / "no_flock.c"
    source.write_text(_SHIM)
    library = source.with_suffix(".so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.fixture(name="root", scope="module")
def _root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("data")
    phantom.write_dataset(str(root), cases=_CASES, val_cases=2, shape=(48, 64, 64))
    return root


def _environment(shim: pathlib.Path, number: int) -> dict[str, str]:
    return {**os.environ, "LD_PRELOAD": str(shim), "FLOCK_ERRNO": str(number)}


def _start(
    folder: pathlib.Path, shim: pathlib.Path, number: int, arguments: Sequence[str]
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _COMMAND, str(folder), *arguments],
        env=_environment(shim, number),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _run_at_once(
    folder: pathlib.Path, shim: pathlib.Path, arguments: Sequence[str]
) -> list[tuple[int, str]]:
    """Returns the exit codes and the outputs of four processes with the same command."""
    folder.mkdir()
    processes = [_start(folder, shim, number, arguments) for number in _ERRORS]
    _wait_for(lambda: len(list(folder.glob("ready_*"))) == len(processes))
    (folder / "go").touch()
    outputs = [process.communicate(timeout=_PATIENCE_S)[0] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, outputs, strict=True)]


def _rest_of(folder: pathlib.Path) -> list[str]:
    """Returns what processes have left behind."""
    return [path.name for path in folder.rglob("*") if path.name.endswith((".tmp", ".held"))]


def test_the_library_takes_flock_away(shim: pathlib.Path) -> None:
    for number in _ERRORS:
        done = subprocess.run(
            [sys.executable, "-c", "import fcntl; fcntl.flock(0, fcntl.LOCK_EX)"],
            env=_environment(shim, number),
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"[Errno {number}]" in done.stderr


def test_four_processes_prepare_a_data_set(
    root: pathlib.Path, shim: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    store = tmp_path / "store"
    command = ("prepare", "nnunet", "--root", str(root), "--prepared-root", str(store))
    for code, text in _run_at_once(tmp_path / "gate", shim, [*command, "--workers", "1"]):
        assert code == 0, text
        assert f"All {_CASES} cases" in text
    alone = tmp_path / "alone"
    dataset = task_datasets.prepare("nnunet", str(root), workers=1, prepared_root=str(alone))

    def contents(folder: pathlib.Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert len(dataset) == _CASES
    assert contents(store) == contents(alone)


def test_four_processes_take_scans_in(
    root: pathlib.Path, shim: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """One of them does the work, and the others say so."""
    store = tmp_path / "store"
    command = ("pretrain", "prepare", str(root / "imagesTr"), "--out", str(store), "--workers", "1")
    ended = _run_at_once(tmp_path / "gate", shim, [*command, "--spacing", *map(str, _SPACING)])
    refused = [text for code, text in ended if code == 1]
    assert sum(code == 0 for code, _ in ended) + len(refused) == len(_ERRORS)
    assert 1 <= len(refused) < len(_ERRORS)
    assert all("Another process adds scans" in text for text in refused)
    _check_store(root, store)


def test_what_a_killed_process_holds_is_named(
    root: pathlib.Path, shim: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, gate = tmp_path / "store", tmp_path
    held = store / ".lock.held"
    arguments = ["pretrain", "prepare", str(root / "imagesTr"), "--out", str(store)]
    process = _start(gate, shim, errno.ENOSYS, [*arguments, "--spacing", *map(str, _SPACING)])
    (gate / "go").touch()
    _wait_for(lambda: any(store.glob("ct-*/*.scan")))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    def flock(*_: object) -> NoReturn:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(EvaCoralbayError, match=r"lock.held' was left by a process .* Delete it"):
        intake.prepare([str(root / "imagesTr")], str(store), spacing=_SPACING, workers=1)
    held.unlink()
    intake.prepare([str(root / "imagesTr")], str(store), spacing=_SPACING, workers=1)
    _check_store(root, store)


def _check_store(root: pathlib.Path, store: pathlib.Path) -> None:
    """Checks that each scan is in a store, and whole, and nothing else is."""
    content = manifest.Manifest.read(str(store))
    assert len(content.prepared) == len(list((root / "imagesTr").iterdir()))
    for case in content.prepared:
        content.open(case).check()
    files = sorted(str(path.relative_to(store)) for path in store.glob("*/*.scan"))
    assert files == sorted(str(case.path) for case in content.prepared)
    assert _rest_of(store) == []
