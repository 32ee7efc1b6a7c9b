"""Processes that load data: what they do with signals, and the shared memory that they need.

PyTorch's workers hand each batch over in shared memory, where it waits until it is used.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import threading

import torch

from eva_coralbay import _processes
from eva_coralbay.errors import EvaCoralbayError

PREFETCHED = 2
"""How many batches each worker of an evaluation has ready (`prefetch_factor`)."""


def check_shared_memory(need: float, *, made_of: str, remedy: str) -> None:
    """Checks that the batches that wait for the processes of this machine fit.

    Without the check a worker is killed by a bus error in the middle of a run.

    Args:
        need: How many bytes they take.
        made_of: What that is made of, for the error message.
        remedy: The variables that lower it, for the error message.

    Raises:
        EvaCoralbayError: If they do not fit.
    """
    if not _processes.SHARED_MEMORY.is_dir():
        return
    free = shutil.disk_usage(_processes.SHARED_MEMORY).free
    if need > free:
        raise EvaCoralbayError(
            f"The data workers need about {need / 2**30:.2f} GiB of shared memory "
            f"({_processes.SHARED_MEMORY}): {made_of}; {free / 2**30:.2f} GiB are free. Start the "
            f"container with more (`docker run --shm-size=...` or `--ipc=host`), or lower {remedy}."
        )


def init_worker(worker_id: int) -> None:
    """Prepares a worker of a data loader; to be used as its `worker_init_fn`.

    SLURM and torchrun send SIGUSR1 and SIGTERM to all processes. The trainer then finishes its
    step, for which it needs its workers: they end when the trainer tells them to.

    Args:
        worker_id: The number of the worker.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if sys.platform == "linux":
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        threading.Thread(target=_leave_when_the_parent_says, daemon=True).start()


def _leave_when_the_parent_says() -> None:
    """Ends this process on a SIGTERM of its parent, which waits for that when it exits."""
    parent = multiprocessing.parent_process()
    while parent is not None and signal.sigwaitinfo((signal.SIGTERM,)).si_pid != parent.pid:
        pass
    os._exit(0)
