"""Locks between processes, also on file systems that have none."""

import contextlib
import errno
import fcntl
import os
import pathlib
import time
from collections.abc import Callable, Iterator

from loguru import logger

from eva_coralbay import _processes
from eva_coralbay.errors import EvaCoralbayError

_NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
"""What a file system without `flock` answers, such as Lustre and some mounts of NFS."""

POLL_S = 1.0
"""How often a lock without `flock` is looked at, in seconds."""


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], *, on_busy: Callable[[], None]) -> Iterator[None]:
    """Holds a lock for the duration of a block; the system frees it when the process dies.

    On a file system without `flock` the lock is a second file, `<path>.held`, that is created if
    it does not exist, names its process, and is removed at the end. A killed process leaves it.

    Args:
        path: The file of the lock; it is created and stays.
        on_busy: Called once if another process holds the lock. It may raise; if it returns, the
            lock is waited for.

    Raises:
        EvaCoralbayError: If the process that holds a lock without `flock` has been killed.
        OSError: If the file cannot be written.
    """
    with pathlib.Path(path).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_busy()
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            with _held(pathlib.Path(f"{os.fspath(path)}.held"), on_busy):
                yield
            return
        yield


@contextlib.contextmanager
def _held(path: pathlib.Path, on_busy: Callable[[], None]) -> Iterator[None]:
    """Holds a lock that is the existence of a file."""
    is_first_try = True
    while not _create(path):
        if _processes.is_gone(_owner_of(path)):
            raise EvaCoralbayError(
                f"'{path}' was left by a process that has been killed, on a file system without "
                "locks. Delete it and try again."
            )
        if is_first_try:
            logger.warning(
                f"'{path}' is held by another process. If that was killed on another machine, "
                "which cannot be found out from here, delete the file."
            )
            on_busy()
            is_first_try = False
        time.sleep(POLL_S)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _create(path: pathlib.Path) -> bool:
    """Creates the file of a lock; returns whether it did not exist."""
    try:
        with path.open("x") as file:
            file.write(_processes.name_this_process())
    except FileExistsError:
        return False
    return True


def _owner_of(path: pathlib.Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
