"""The memory that a piece of work takes."""

import gc
import threading
from collections.abc import Callable

import psutil
import torch

_SAMPLE_SECONDS = 0.002
"""How often the memory of the process is looked at."""


def peak_growth(work: Callable[[], object]) -> int:
    """Returns by how many bytes the process grows at most while it does some work.

    Args:
        work: The work, to be measured in a process that has done nothing of the kind before.
    """
    gc.collect()
    process = psutil.Process()
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(_SAMPLE_SECONDS):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return max(peak, process.memory_info().rss) - before


def gpu_peak_growth(work: Callable[[], object]) -> int:
    """Returns by how many bytes the tensors on the GPU grow at most while it does some work."""
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
