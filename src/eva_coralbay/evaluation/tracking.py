"""Where a run is logged, and how its log is written."""

import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable, Mapping

from eva.core.trainers import _recorder
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
        experiment_name=task,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or _local_database(root),
    ),
}
"""What builds each logger, from the output folder and the task."""

_PACKAGES = {"wandb": "wandb", "mlflow": "mlflow"}
"""The packages of loggers that are not installed with this one."""


def _local_database(root: str) -> str:
    """Returns the URI of MLflow's database in a folder, which is made.

    MLflow 3 refuses to write plain files.
    """
    folder = pathlib.Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


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
