"""Tests of locks, on file systems that have them and that do not."""

import errno
import fcntl
import multiprocessing
import os
import pathlib
from typing import Any, NoReturn

import pytest

from eva_coralbay import _file_locks, _processes
from eva_coralbay.errors import EvaCoralbayError

_FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=[None, errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """What the file system answers to `flock`."""
    if request.param is not None:

        def flock(*_: Any) -> NoReturn:
            raise OSError(request.param, os.strerror(request.param))

        monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(_file_locks, "POLL_S", 0.01)
    return request.param


@pytest.mark.usefixtures("file_system")
def test_one_process_at_a_time(tmp_path: pathlib.Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count() -> None:
        for _ in range(20):
            with _file_locks.locked(tmp_path / "lock", on_busy=lambda: None):
                number = int(counter.read_text())
                counter.write_text(str(number + 1))

    processes = [_FORK.Process(target=count) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert counter.read_text() == "60"


@pytest.mark.usefixtures("file_system")
def test_who_does_not_want_to_wait_is_told(tmp_path: pathlib.Path) -> None:
    def refuse() -> NoReturn:
        raise EvaCoralbayError("busy")

    with (
        _file_locks.locked(tmp_path / "lock", on_busy=refuse),
        pytest.raises(EvaCoralbayError, match="busy"),
        _file_locks.locked(tmp_path / "lock", on_busy=refuse),
    ):
        pass
    with _file_locks.locked(tmp_path / "lock", on_busy=refuse):
        pass


def test_a_lock_that_a_killed_process_left_is_named(
    tmp_path: pathlib.Path, file_system: int | None
) -> None:
    machine = _processes.name_this_process().split("~")[0]
    (tmp_path / "lock.held").write_text(f"{machine}~{2**30}~1")

    if file_system is None:
        with _file_locks.locked(tmp_path / "lock", on_busy=lambda: None):
            return
    with (
        pytest.raises(EvaCoralbayError, match="lock.held' was left by a process .* Delete it"),
        _file_locks.locked(tmp_path / "lock", on_busy=lambda: None),
    ):
        pass
