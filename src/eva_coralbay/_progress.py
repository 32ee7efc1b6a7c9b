"""Progress bars of long work, which are drawn where a program asks for them.

The library says how far it is; the commands and `eva fit` show it. From Python nothing is drawn
unless `show` is called.
"""

import contextlib
from collections.abc import Iterable
from typing import Any, BinaryIO

import tqdm

_is_shown = False
"""Whether bars are drawn."""


def show() -> None:
    """Lets this process draw the progress bars from now on."""
    global _is_shown
    _is_shown = True


def bar(items: Iterable[Any] | None = None, **options: Any) -> "tqdm.tqdm[Any]":
    """Makes a progress bar.

    Args:
        items: What to count, if the bar is iterated over.
        options: Those of `tqdm.tqdm`, such as `desc`, `total` and `unit`.

    Returns:
        The bar, which counts without drawing if nobody has called `show`.
    """
    return tqdm.tqdm(items, disable=not _is_shown, **options)


def read(file: BinaryIO, **options: Any) -> contextlib.AbstractContextManager[Any]:
    """Makes a progress bar of what is read from a file.

    Args:
        file: The file.
        options: As for `bar`.

    Returns:
        A context with the file, whose `read` moves the bar.
    """
    return tqdm.tqdm.wrapattr(file, "read", disable=not _is_shown, **options)
