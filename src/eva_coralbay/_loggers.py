"""The loggers of a training, by their names: the variable LOGGERS."""

import difflib
import importlib.util
import os
import pathlib
from collections.abc import Callable, Mapping

from lightning.pytorch import loggers as pl_loggers

from eva_coralbay.errors import EvaCoralbayError

_BUILDERS: Mapping[str, Callable[[str, str], pl_loggers.Logger]] = {
    "tensorboard": lambda root, _: pl_loggers.TensorBoardLogger(save_dir=root, name=""),
    "csv": lambda root, _: pl_loggers.CSVLogger(save_dir=root, name=""),
    "wandb": lambda root, project: pl_loggers.WandbLogger(
        save_dir=root, project=os.environ.get("WANDB_PROJECT", project)
    ),
    "mlflow": lambda root, project: pl_loggers.MLFlowLogger(
        experiment_name=project,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or _local_database(root),
    ),
}
"""What builds each logger, from the output folder and the project."""

_PACKAGES = {"wandb": "wandb", "mlflow": "mlflow"}
"""The packages of loggers that are not installed with this one."""


def _local_database(root: str) -> str:
    """Returns the URI of MLflow's database in a folder, which is made.

    MLflow 3 refuses to write plain files.
    """
    folder = pathlib.Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def build(names: str, root: str, *, project: str) -> list[pl_loggers.Logger]:
    """Builds the loggers of a trainer.

    Args:
        names: Their names, with commas between.
        root: The output folder.
        project: What W&B and MLflow file the run under, such as the task.

    Returns:
        The loggers; none for no name.

    Raises:
        EvaCoralbayError: If a name is unknown, or its package is not installed.
    """
    return [_BUILDERS[name](root, project) for name in check(names)]


def check(names: str) -> list[str]:
    """Returns the names of loggers, each once, all of which can be built.

    Args:
        names: Their names, with commas between.

    Raises:
        EvaCoralbayError: If a name is unknown, or its package is not installed.
    """
    wanted = dict.fromkeys(name.strip().lower() for name in names.split(",") if name.strip())
    for name in wanted:
        if name not in _BUILDERS:
            close = difflib.get_close_matches(name, _BUILDERS, n=1)
            hint = f"did you mean {close[0]}? There are" if close else "choose from"
            raise EvaCoralbayError(
                f"There is no logger '{name}' (LOGGERS): {hint} {', '.join(_BUILDERS)}."
            )
        package = _PACKAGES.get(name)
        if package and importlib.util.find_spec(package) is None:
            raise EvaCoralbayError(
                f"The logger '{name}' (LOGGERS) needs its package: pip install {package}"
            )
    return list(wanted)
