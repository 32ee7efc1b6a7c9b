"""What Lightning says that is no news to a user: it can neither be used nor changed."""

import logging
import warnings
from typing import Any

from loguru import logger

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
    # a pre-training validates nothing
    r"You passed in a `val_dataloader`",
)
"""Warnings of Lightning that say nothing to a user, by their first words."""

_NO_NEWS_LINES = (
    "litlogger",
    "You passed in a `val_dataloader`",
    "`Trainer.fit` stopped",
    "`Trainer(val_check_interval=1.0)` was configured",
    "TPU available",
    "`weights_only` was not set",
)
"""The same for lines of its log, by what they contain."""


def silence() -> None:
    """Leaves out of the output what a user can neither use nor change."""
    for message in _NO_NEWS:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        for known in _loggers_below(name):
            known.addFilter(_is_news)
    # says of every logger but TensorBoard's that it takes no parameters
    logger.disable("eva.core.loggers.log.utils")


def _loggers_below(name: str) -> list[logging.Logger]:
    """Returns the loggers of a package; filters of one are not those of its children."""
    known: Any = logging.root.manager.loggerDict
    names = [key for key in known if key == name or key.startswith(f"{name}.")]
    return [logging.getLogger(key) for key in {name, *names}]


def _is_news(line: logging.LogRecord) -> bool:
    return not any(text in line.getMessage() for text in _NO_NEWS_LINES)
