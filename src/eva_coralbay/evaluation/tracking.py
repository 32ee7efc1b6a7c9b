"""Where a run is logged, and what of the log is no news."""

import importlib.util
import logging
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import loggers as pl_loggers
from loguru import logger

from eva_coralbay.errors import EvaCoralbayError

_BUILDERS: Mapping[str, Callable[[str, str], pl_loggers.Logger]] = {
    "tensorboard": lambda root, _: pl_loggers.TensorBoardLogger(save_dir=root, name=""),
    "csv": lambda root, _: pl_loggers.CSVLogger(save_dir=root, name=""),
    "wandb": lambda root, task: pl_loggers.WandbLogger(
        save_dir=root, project=os.environ.get("WANDB_PROJECT", task)
    ),
    "mlflow": lambda root, task: pl_loggers.MLFlowLogger(
        experiment_name=task, tracking_uri=os.environ.get("MLFLOW_TRACKING_URI"), save_dir=root
    ),
}
"""What builds each logger, from the output folder and the task."""

_PACKAGES = {"wandb": "wandb", "mlflow": "mlflow"}
"""The packages of loggers that are not installed with this one."""

_NO_NEWS = (
    # the folder is that of the run, and an interrupted run goes on in it
    r"Checkpoint directory .* exists and is not empty",
    r"Experiment logs directory .* exists and is not empty",
    # of Lightning's own use of torch
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # one core is enough for the store; N_DATA_WORKERS says how many there are
    r".*does not have many workers which may be a bottleneck",
    # the endless training data have no length, and need none
    r"Your `IterableDataset` has `__len__` defined",
    r".*called with Trainer configured with multiple `ModelCheckpoint` callbacks",
)
"""Warnings of Lightning that say nothing to the user of an evaluation, by their first words."""

_NO_NEWS_LINES = ("litlogger", "You passed in a `val_dataloader`", "`Trainer.fit` stopped")
"""The same for lines of its log, by what they contain."""


def build_loggers(names: str, root: str, task: str) -> list[pl_loggers.Logger]:
    """Builds the loggers of a trainer.

    Args:
        names: Their names, with commas between.
        root: The output folder.
        task: The task, which names the project.

    Returns:
        The loggers; none for no name.

    Raises:
        EvaCoralbayError: If a name is unknown, or its package is not installed.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in _BUILDERS:
            raise EvaCoralbayError(
                f"There is no logger '{name}' (LOGGERS): choose from {', '.join(_BUILDERS)}."
            )
        package = _PACKAGES.get(name)
        if package and importlib.util.find_spec(package) is None:
            raise EvaCoralbayError(
                f"The logger '{name}' (LOGGERS) needs its package: pip install {package}"
            )
    return [_BUILDERS[name](root, task) for name in wanted]


def keep_metrics(run: pathlib.Path) -> None:
    """Moves the metrics of an interrupted run aside, which the CSV logger would delete.

    Args:
        run: The folder of the run.
    """
    path = run / "metrics.csv"
    if path.exists():
        path.rename(path.with_name(f"metrics.{len(list(run.glob('metrics.*.csv')))}.csv"))


def silence_no_news() -> None:
    """Leaves out of the output what a user can neither use nor change."""
    for message in _NO_NEWS:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        for known in _loggers_below(name):
            known.addFilter(_is_news)
    if not sys.stderr.isatty():
        _log_without_colors()


def _loggers_below(name: str) -> list[logging.Logger]:
    """Returns the loggers of a package; filters of one are not those of its children."""
    known: Any = logging.root.manager.loggerDict
    names = [key for key in known if key == name or key.startswith(f"{name}.")]
    return [logging.getLogger(key) for key in {name, *names}]


def _is_news(line: logging.LogRecord) -> bool:
    return not any(text in line.getMessage() for text in _NO_NEWS_LINES)


def _log_without_colors() -> None:
    """Replaces the handler that eva adds, which writes codes of colors into files and pipes."""
    logger.remove()
    logger.add(
        sys.stderr,
        format="{time:HH:mm:ss} :: {level} :: {message}",
        colorize=False,
        level=os.environ.get("LOGURU_LEVEL", "INFO"),
    )
