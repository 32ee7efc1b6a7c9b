"""The boundary to files that others wrote: whatever is wrong with one, the error is one line.

Readers of scans, label maps and descriptions work inside of `reading`. What they foresee they raise
as `UnusableError`; that and everything else becomes a `DatasetError` there, which names the case
and the file, says what is wrong and what to do.
"""

import contextlib
import json
import os
import pathlib
import stat
import unicodedata
from collections.abc import Iterator
from typing import Any

from eva_coralbay.errors import DatasetError, EvaCoralbayError

DAMAGED = "It may be cut off or damaged: copy or download it again."
"""What to do about a file that cannot be read."""

_MAX_JSON_BYTES = 64 * 2**20
"""The largest description that is read."""

_MAX_NAME = 200
"""The longest name that is taken from a description."""

_MAX_CHARACTERS = 300
"""How much of the message of a library is repeated."""


class UnusableError(Exception):
    """Something is wrong with the file that is read; `reading` adds which file it is."""

    def __init__(self, what: str, fix: str) -> None:
        """Initializes the error.

        Args:
            what: What is wrong, without a full stop.
            fix: What to do, as a sentence.
        """
        super().__init__(what)
        self.what = what
        self.fix = fix


@contextlib.contextmanager
def reading(
    path: str | os.PathLike[str], *, case: str | None = None, fix: str = DAMAGED
) -> Iterator[None]:
    """Turns whatever is raised while a file is read into one error.

    Args:
        path: The file.
        case: The id of the case that it belongs to.
        fix: What to do if the file cannot be read.

    Raises:
        DatasetError: If anything is raised. An `OSError` or a `MemoryError`, which may be none of
            the file's fault, is its cause.
    """
    try:
        _check_regular(path)
        yield
    except EvaCoralbayError:
        raise
    except UnusableError as error:
        raise problem(error.what, path, case=case, fix=error.fix) from error.__cause__
    except MemoryError as error:
        raise problem(
            "there is too little memory to read it", path, case=case, fix="Free some memory."
        ) from error
    except RecursionError as error:
        raise problem("it is nested too deeply", path, case=case, fix=fix) from error
    except Exception as error:  # libraries raise almost anything for foreign bytes
        message = " ".join(str(error).split())[:_MAX_CHARACTERS]
        raise problem(
            f"the file is unreadable ({type(error).__name__}: {message})", path, case=case, fix=fix
        ) from error


def _check_regular(path: str | os.PathLike[str]) -> None:
    """Checks that a path is no pipe and no device, which might be read without an end."""
    try:
        mode = pathlib.Path(path).stat().st_mode
    except (OSError, ValueError):  # whoever reads it says it
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UnusableError(
            "it is a pipe or a device, or a link to one", "Put the file itself in its place."
        )


def problem(
    what: str, path: str | os.PathLike[str], *, case: str | None = None, fix: str
) -> DatasetError:
    """Returns the error about a file.

    Args:
        what: What is wrong with it.
        path: The file.
        case: The id of the case that it belongs to.
        fix: What to do.
    """
    place = f"File '{os.fspath(path)}'"
    if case is not None:
        place = f"Case '{case}', file '{os.fspath(path)}'"
    return DatasetError(f"{place}: {what}. {fix}")


def read_json(path: str | os.PathLike[str], *, fix: str = "Correct it.") -> Any:
    """Reads a JSON file in any encoding of Unicode, with or without a byte-order mark.

    Args:
        path: The file.
        fix: What to do if it cannot be read.

    Raises:
        DatasetError: If it is missing, larger than 64 MiB, or not JSON.
    """
    try:
        size = pathlib.Path(path).stat().st_size
    except OSError as error:
        raise DatasetError(f"File '{path}' is missing ({error.strerror}). {fix}") from error
    if size > _MAX_JSON_BYTES:
        raise problem(f"{size / 1e6:.0f} MB are too many for a description", path, fix=fix)
    with reading(path, fix=fix), pathlib.Path(path).open("rb") as file:
        return json.loads(file.read())


def check_name(value: Any, what: str) -> str:
    """Returns a name in a file in its composed form (NFC), if it is text.

    macOS stores "é" as two characters in the names of files, where others write one.

    Args:
        value: The name.
        what: What it is the name of, for the error message.

    Raises:
        UnusableError: If it is not text, is empty or very long, or holds what no name may, such as
            line breaks, or bytes of a file name that is not in UTF-8.
    """
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_NAME:
        raise UnusableError(
            f"{what} is {value!r:.100}, which is not a name", "Give it a short one in quotes."
        )
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise UnusableError(
            f"{what} is {value!a:.200}, which is not text in UTF-8", "Give it another name."
        )
    return unicodedata.normalize("NFC", value)
