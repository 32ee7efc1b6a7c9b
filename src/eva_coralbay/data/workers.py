"""Processes that work on scans side by side, and that end with the one that started them."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from multiprocessing import connection as connections
from typing import Any, TypeVar

import psutil
import torch

from eva_coralbay.data.scan_file import StoreError

_MAX_WORKERS = 8
"""How many processes prepare scans, unless said otherwise."""

_BYTES_PER_WORKER = 64 * 2**20
"""How much there must be to read for another process, which takes seconds to start."""

_MEMORY_PER_WORKER = 3 * 2**30
"""The memory that must be free for each process: a large scan takes some times its own size."""

KILLED = "the process that worked on it was killed"
"""What the problem of a scan says when it may be none of the scan, but of the memory."""

PATIENCE_S = 10.0
"""How long processes may take to end when they are asked to, in seconds, before they are killed."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def suitable_number(paths: Iterable[str]) -> int:
    """Returns how many processes are worth their start to read some scans.

    Args:
        paths: The files of the scans.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    size = sum(map(os.path.getsize, paths))
    memory = psutil.virtual_memory().available // _MEMORY_PER_WORKER
    return max(1, min(cores or 1, _MAX_WORKERS, size // _BYTES_PER_WORKER, memory))


def in_processes(
    function: Callable[[_Item], _Result], items: Sequence[_Item], workers: int
) -> Generator[tuple[_Item, _Result | None], None, None]:
    """Calls a function in processes, which end with this one whatever ends it.

    Args:
        function: What to call; never returns None.
        items: What to call it with.
        workers: The number of processes.

    Yields:
        Each item with its result, in any order; with None if its process was killed, whose place
        another one takes.

    Raises:
        StoreError: If a process ended by itself, as others would.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(items)
    running: dict[connections.Connection, _Item] = {}
    processes: dict[connections.Connection, Any] = {}

    def start() -> connections.Connection:
        ours, theirs = context.Pipe()
        processes[ours] = context.Process(target=_serve, args=(theirs, function), daemon=True)
        processes[ours].start()
        theirs.close()
        return ours

    try:
        for _ in range(min(workers, len(waiting))):
            running[start()] = waiting.pop()
        for connection, item in running.items():
            _send(connection, item)
        while running:
            ready = connections.wait(list(running))
            for connection in [connection for connection in running if connection in ready]:
                item, result = running.pop(connection), _receive(connection)
                if result is None:
                    _check_killed(processes[connection])
                # before the result is used, so that the process works meanwhile
                if waiting:
                    free = start() if result is None else connection
                    running[free] = waiting.pop()
                    _send(free, running[free])
                yield item, result
    finally:
        for connection, process in processes.items():
            process.terminate()
            # a process does not notice a signal that comes just before it waits for work
            connection.close()
        deadline = time.monotonic() + PATIENCE_S
        for process in processes.values():
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.join()


def _send(connection: connections.Connection, item: Any) -> None:
    # that the process is gone shows when its answer is waited for
    with contextlib.suppress(ConnectionError):
        connection.send(item)


def _receive(connection: connections.Connection) -> Any:
    """Returns the answer of a process, None if it was killed."""
    try:
        return connection.recv()
    except (EOFError, ConnectionError):
        return None


def _check_killed(process: Any) -> None:
    """Checks that a process was killed, and did not end by itself or because it was asked to."""
    process.join()
    if process.exitcode >= 0:
        raise StoreError(
            f"A process that works on the scans has ended (exit code {process.exitcode}); if not "
            "by a signal, its error is above. What is prepared stays."
        )


def _serve(connection: connections.Connection, function: Callable[[Any], Any]) -> None:
    """Calls a function with what is sent, until the process that sends it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # so that a process that is ended removes what it is writing
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            connection.send(function(connection.recv()))
