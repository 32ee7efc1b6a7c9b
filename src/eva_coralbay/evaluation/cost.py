"""What a piece of work costs on this machine: seconds and memory, measured."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import psutil
import torch

from eva_coralbay import _tensor_meter

_LEAST, _MOST = 2, 5
"""How often the work is done; the first time warms up and is not timed."""

_SECONDS = 20.0
"""After this time the work is not repeated any more."""


class Cost(NamedTuple):
    """The cost of a piece of work."""

    seconds: float | None
    """How long it takes; None if it does not fit into the memory."""

    memory: float
    """The peak number of bytes of the tensors that it makes, or of those until it did not fit."""


def measure(
    work: Callable[[], object], device: torch.device, *, known: Iterable[torch.Tensor] = ()
) -> Cost:
    """Does a piece of work some times and measures it.

    On a CUDA device the memory is what PyTorch's allocator reports. On others the tensors are
    counted, and the work is stopped before they take more than is free.

    Args:
        work: The work.
        device: Where it is done.
        known: Tensors that are there before, whose memory does not count.
    """
    seconds: list[float] = []
    with _watch(device, known) as peak:
        try:
            while len(seconds) < _LEAST or (len(seconds) < _MOST and sum(seconds) < _SECONDS):
                seconds.append(_time(work, device))
        except (_tensor_meter.LimitError, torch.OutOfMemoryError):
            return Cost(None, peak())
        return Cost(min(seconds[1:]), peak())


def find_free_memory(device: torch.device) -> int:
    """Returns the number of bytes of memory that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _time(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - started


@contextlib.contextmanager
def _watch(device: torch.device, known: Iterable[torch.Tensor]) -> Iterator[Callable[[], float]]:
    """Watches the memory; yields what returns the peak so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: float(torch.cuda.max_memory_allocated(device) - before)
        return
    limit = find_free_memory(device)
    with _tensor_meter.TensorMeter(device.type, ignored=known, limit=limit) as meter:
        yield lambda: float(meter.peak)
