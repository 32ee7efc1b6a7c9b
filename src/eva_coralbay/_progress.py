"""Progress bars of long work, which are drawn where a program asks for them.

The library says how far it is; the commands and `eva fit` show it. From Python nothing is drawn
unless `show` is called. Where standard error is no terminal but a pipe or a file, work of less than
a minute draws nothing, and longer work draws once a minute.
"""

import contextlib
import sys
import threading
from collections.abc import Iterable
from typing import Any, BinaryIO

import tqdm

is_shown = False
"""Whether bars are drawn."""


SECONDS_IN_A_LOG = 60.0
"""The seconds before a bar is first drawn, and between two times, if there is no terminal."""


def show() -> None:
    """Lets this process draw the progress bars from now on."""
    global is_shown
    is_shown = True


def bar(items: Iterable[Any] | None = None, **options: Any) -> "tqdm.tqdm[Any]":
    """Makes a progress bar.

    Args:
        items: What to count, if the bar is iterated over.
        options: Those of `tqdm.tqdm`, such as `desc`, `total` and `unit`.

    Returns:
        The bar, which counts without drawing if nobody has called `show`.
    """
    return tqdm.tqdm(items, **_when(), **options)


def read(file: BinaryIO, **options: Any) -> contextlib.AbstractContextManager[Any]:
    """Makes a progress bar of what is read from a file.

    Args:
        file: The file.
        options: As for `bar`.

    Returns:
        A context with the file, whose `read` moves the bar.
    """
    return tqdm.tqdm.wrapattr(file, "read", **_when(), **options)


class ScanBar:
    """A progress bar of scans that also moves within a scan, by its windows.

    A scan counts in parts as its windows are done, so that from the first window on the bar has a
    rate and the time that is left. Several threads may move it.
    """

    def __init__(self, total: int, *, done: int) -> None:
        """Initializes the bar.

        Args:
            total: The number of scans.
            done: How many of them were done before.
        """
        self._bar = bar(
            total=total,
            initial=done,
            unit="scan",
            # by time alone, and the mean rate: scans differ more than the speed of the machine
            miniters=0,
            smoothing=0.0,
            bar_format="{l_bar}{bar}| {n:.2f}/{total} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
        )
        self._done = done
        self._parts: dict[str, float] = {}
        self._lock = threading.Lock()

    def move(self, scan: str, part: float, note: str) -> None:
        """Says how far a scan is.

        Args:
            scan: The id of the scan.
            part: Which part of it is done, from 0 to 1.
            note: What is shown at the end of the line.
        """
        with self._lock:
            self._parts[scan] = part
            self._bar.set_postfix_str(note, refresh=False)
            self._draw()

    def finish(self, scan: str) -> None:
        """Says that a scan is over, done or not.

        Args:
            scan: The id of the scan.
        """
        with self._lock:
            self._parts.pop(scan, None)
            self._done += 1
            self._draw()

    def close(self) -> None:
        """Ends the line of the bar."""
        self._bar.set_postfix_str("", refresh=False)
        self._bar.close()

    def _draw(self) -> None:
        self._bar.update(self._done + sum(self._parts.values()) - self._bar.n)


def _when() -> dict[str, Any]:
    """Returns the options of tqdm that say when a bar is drawn."""
    if not is_shown:
        return {"disable": True}
    if sys.stderr.isatty():
        return {}
    return dict.fromkeys(("delay", "mininterval", "maxinterval"), SECONDS_IN_A_LOG)
