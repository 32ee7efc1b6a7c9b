"""Files that are there as a whole or not at all."""

import contextlib
import os
import pathlib
import re
import time
import uuid
from collections.abc import Iterator
from typing import BinaryIO

from eva_coralbay import _processes

_TEMPORARY = re.compile(r"\..+?~(?P<writer>[^~]*~\d+(~\d+)?)~[0-9a-f]{32}\.tmp", re.DOTALL)
"""The names of files that are being written; older versions named no start of the process."""

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
    writer = f"{_processes.name_this_process()}~{uuid.uuid4().hex}"
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

    A file is removed if its process is gone, as far as that can be told from here (see
    `eva_coralbay._processes`), or if nothing was written to it for a day.

    Args:
        folder: The folder.
    """
    for path in pathlib.Path(folder).iterdir():
        found = _TEMPORARY.fullmatch(path.name)
        if found and (_processes.is_gone(found["writer"]) or _is_old(path)):
            path.unlink(missing_ok=True)


def _is_old(path: pathlib.Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _SECONDS_OF_A_DAY
    except FileNotFoundError:
        return False
