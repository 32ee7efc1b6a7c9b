"""How the log of a run is written, and what is kept of it."""

import os
import pathlib
import sys

from eva.core.trainers import _recorder
from loguru import logger


def keep_metrics(run: pathlib.Path) -> None:
    """Moves the metrics of an interrupted run aside, which the CSV logger would delete.

    Args:
        run: The folder of the run.
    """
    path = run / "metrics.csv"
    if path.exists():
        path.rename(path.with_name(f"metrics.{len(list(run.glob('metrics.*.csv')))}.csv"))


def print_no_tables() -> None:
    """Keeps eva from printing every metric of every class, for which it has no switch."""
    _recorder._print_results = lambda results: None


def log_without_colors() -> None:
    """Replaces the handler that eva adds, which writes codes of colors into files and pipes."""
    if sys.stderr.isatty():
        return
    logger.remove()
    logger.add(
        sys.stderr,
        format="{time:HH:mm:ss} :: {level} :: {message}",
        colorize=False,
        level=os.environ.get("LOGURU_LEVEL", "INFO"),
    )
