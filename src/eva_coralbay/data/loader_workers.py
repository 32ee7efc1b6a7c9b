"""What a process that loads data does with signals: the trainer decides when a run ends."""

import multiprocessing
import os
import signal
import sys
import threading

import torch


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
