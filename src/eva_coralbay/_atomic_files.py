"""Files that are there as a whole or not at all."""

import contextlib
import os
import pathlib
import re
import socket
import time
import uuid
from collections.abc import Iterator
from typing import BinaryIO

import psutil

_TEMPORARY = re.compile(r"\..+~(?P<host>[^~]*)~(?P<process>\d+)~[0-9a-f]{32}\.tmp")
"""The names of files that are being written."""

_SECONDS_OF_A_DAY = 24 * 60 * 60


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file such that it is there as a whole or not at all.

    Args:
        path: The path of the file; missing parent folders are made.
        content: The content.
    """
    with open_atomically(path) as file:
        file.write(content)


@contextlib.contextmanager
def open_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a file for writing such that it is there as a whole or not at all.

    Args:
        path: The path of the file; missing parent folders are made.

    Yields:
        Where to write. The file is at its path when the block has ended without an error.
    """
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{socket.gethostname()}~{os.getpid()}~{uuid.uuid4().hex}"
    temporary = target.with_name(f".{target.name}~{writer}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Removes what killed processes were writing.

    Args:
        folder: The folder. Files that are a day old, or whose process is gone, are removed.
    """
    for path in pathlib.Path(folder).iterdir():
        found = _TEMPORARY.fullmatch(path.name)
        if found and (_is_gone(found["host"], int(found["process"])) or _is_old(path)):
            path.unlink(missing_ok=True)


def _is_gone(host: str, process: int) -> bool:
    return host == socket.gethostname() and not psutil.pid_exists(process)


def _is_old(path: pathlib.Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _SECONDS_OF_A_DAY
    except FileNotFoundError:
        return False
