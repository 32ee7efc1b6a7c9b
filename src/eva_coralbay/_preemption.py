"""Signals that end a run before its time, and the queue that it goes back into.

SLURM sends SIGUSR1 ahead of the end of a job (`#SBATCH --signal=SIGUSR1@120`), and SIGTERM when it
takes a job away. Lightning's own handlers save in the middle of a step, from where no run goes on
exactly, so trainers set their own.
"""

import os
import signal
import subprocess  # nosec B404  # starts SLURM's own command
from collections.abc import Callable
from typing import Any

from loguru import logger

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
"""The signals after which a run is to be taken up again."""

_EXIT_BASE = 128
"""What is added to the number of a signal to get the exit code of a program that it ended."""


def on_signal(receive: Callable[[int], Any]) -> None:
    """Sets what is done when one of the signals arrives.

    Args:
        receive: Takes the number of the signal.
    """
    for number in SIGNALS:
        signal.signal(number, lambda received, _: receive(received))


def leave(number: int) -> None:
    """Puts the job into the queue again, if it is to go on later, and ends the program.

    Args:
        number: The signal that arrived.

    Raises:
        SystemExit: Always, with 128 and the number of the signal.
    """
    requeue(number)
    raise SystemExit(_EXIT_BASE + number)


def requeue(number: int) -> None:
    """Puts a SLURM job into the queue again that was told that its time is up.

    Args:
        number: The signal that arrived; after SIGTERM the job is left to whoever sent it.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if number != signal.SIGUSR1 or job is None:
        return
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    outcome = subprocess.run(["scontrol", "requeue", job], check=False)  # nosec B603 B607  # a list of words, no shell
    if outcome.returncode == 0:
        logger.info(f"Job {job} is in the queue again.")
    else:
        logger.error(f"Job {job} could not be put back into the queue: submit it again.")
