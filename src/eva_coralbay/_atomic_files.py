"""Files that are written completely or not at all."""

import contextlib
import ctypes
import errno
import functools
import glob
import os
import pathlib
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from typing import BinaryIO

from eva_coralbay import _processes

_TEMPORARY = re.compile(r"\..+?~(?P<writer>[^~]*~\d+(~\d+)?)~[0-9a-f]{32}\.tmp", re.DOTALL)
"""The names of files that are being written; older versions named no start of the process."""

_SECONDS_OF_A_DAY = 24 * 60 * 60

_EXCHANGE = 2
"""Linux: the flag of `renameat2` that lets two paths trade places (`RENAME_EXCHANGE`)."""

_AT_CWD = -100
"""Linux: paths are relative to the working folder (`AT_FDCWD`)."""

_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV)
"""What a kernel or a file system answers that cannot."""


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file atomically: completely or not at all.

    What killed processes have left of the same file is removed. For one file of very many in a
    folder, which that takes long to look through, use `open_atomically` and `remove_leftovers`.

    Args:
        path: The path of the file; missing parent folders are made.
        content: The content.
    """
    with open_atomically(path) as file:
        file.write(content)
    remove_leftovers_of(path)


@contextlib.contextmanager
def open_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a file for atomic writing: it appears completely or not at all.

    Args:
        path: The path of the file; missing parent folders are made.

    Yields:
        Where to write. The file is at its path when the block has ended without an error.
    """
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_path(target)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def temporary_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Makes a folder to write in, which `remove_leftovers` knows if this process is killed.

    Args:
        path: The path of the folder that it will become; the parent folder must be there.

    Yields:
        The folder, beside that path. It is removed at the end, unless it was moved away.
    """
    temporary = _temporary_path(pathlib.Path(path))
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def private_folder() -> Iterator[pathlib.Path]:
    """Makes a folder for temporary files of minutes that only this user can read.

    It lies in the system's folder of temporary files (TMPDIR). Those that killed processes have
    left there are removed first, once a process, and so are those in which nothing was written for
    a day.

    Yields:
        The folder, which is removed at the end.
    """
    place = pathlib.Path(tempfile.gettempdir(), "eva-coralbay")
    _remove_leftovers_once(place)
    temporary = _temporary_path(place)
    temporary.mkdir(mode=0o700)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@functools.cache
def _remove_leftovers_once(place: pathlib.Path) -> None:
    """Removes leftovers at the first call of a process: the folder may hold very many files."""
    remove_leftovers_of(place)


def _temporary_path(target: pathlib.Path) -> pathlib.Path:
    writer = f"{_processes.name_this_process()}~{uuid.uuid4().hex}"
    return target.with_name(f".{target.name}~{writer}.tmp")


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Removes the files and folders that killed processes were writing.

    One is removed if its process is gone, as far as that can be told from here (see
    `eva_coralbay._processes`), or if nothing was written in it for a day.

    Args:
        folder: The folder.
    """
    for path in pathlib.Path(folder).iterdir():
        _remove_if_left(path)


def remove_leftovers_of(path: str | os.PathLike[str]) -> None:
    """Removes what killed processes have left of one file or folder, beside it.

    Args:
        path: The path of the file or folder, which need not be there.
    """
    target = pathlib.Path(path)
    for temporary in target.parent.glob(f".{glob.escape(target.name)}~*.tmp"):
        _remove_if_left(temporary)


def _remove_if_left(path: pathlib.Path) -> None:
    found = _TEMPORARY.fullmatch(path.name)
    if found is None:
        return
    # that of another user stays, and so does what another process has removed meanwhile
    with contextlib.suppress(OSError):
        if _processes.is_gone(found["writer"]) or _is_old(path):
            _remove(path)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _is_old(path: pathlib.Path) -> bool:
    return time.time() - path.stat().st_mtime > _SECONDS_OF_A_DAY


def exchange(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Lets two files or folders of one file system trade places at once.

    Args:
        first: The one path.
        second: The other path. Both are there at every moment.

    Returns:
        Whether they did; False where the system or the file system cannot (macOS, NFS).

    Raises:
        OSError: If one is not there, or may not be moved.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_CWD, os.fsencode(first), _AT_CWD, os.fsencode(second), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), os.fspath(first), None, os.fspath(second))
