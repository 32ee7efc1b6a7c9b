"""The space on a disk: what does not fit is refused before it is written."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator

from eva_coralbay.errors import EvaCoralbayError


def check(folder: str | os.PathLike[str], needed: int, *, what: str) -> None:
    """Checks that there is enough space.

    Args:
        folder: A folder on the disk.
        needed: The number of bytes that will be written.
        what: What they are of, for the error message.

    Raises:
        EvaCoralbayError: If there is less.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise _full(f"'{os.fspath(folder)}' has {free / 1e9:.1f} GB left", needed, what=what)


@contextlib.contextmanager
def full_disk_named(folder: str | os.PathLike[str], needed: int, *, what: str) -> Iterator[None]:
    """Says in a block what the disk has no space for when it gets full, whatever `check` found.

    Args:
        folder: A folder on the disk.
        needed: The number of bytes to be written, 0 if unknown.
        what: What they are of, for the error message.

    Raises:
        EvaCoralbayError: If the disk gets full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _full(f"The disk of '{os.fspath(folder)}' is full", needed, what=what) from error


def _full(problem: str, needed: int, *, what: str) -> EvaCoralbayError:
    size = f"{needed / 1e9:.1f} GB" if needed > 0 else "more"
    return EvaCoralbayError(
        f"{problem}, but {what} takes {size}. Free some space, or choose a folder on another disk."
    )
