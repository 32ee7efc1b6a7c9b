"""Trains as a config says, or says what that training takes."""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jsonargparse
from lightning.fabric.utilities import exceptions

from eva_coralbay import _notices
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.pretraining import dry_run as dry_run_lib
from eva_coralbay.pretraining import module as module_lib
from eva_coralbay.pretraining import samples as data_lib
from eva_coralbay.pretraining import trainer as trainer_lib
from eva_coralbay.pretraining import views as views_lib

_NOISE = (
    "Does not validate",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Given value",
    "Subtypes:",
)
"""What lines of a message of jsonargparse begin with that say nothing of the mistake."""

_Built = tuple[trainer_lib.Trainer, module_lib.Distillation, data_lib.PretrainingData]


def fit(arguments: Sequence[str]) -> None:
    """Trains, in the folder of the config and from where a training in it stopped.

    Args:
        arguments: Those of `eva fit`, such as `--config FILE`, and overrides.

    Raises:
        EvaCoralbayError: If the config is wrong, or a job of SLURM has not started its tasks.
    """
    trainer_lib.check_launch()
    trainer, model, data = build(arguments)
    trainer.fit(model, datamodule=data)


def build(arguments: Sequence[str]) -> _Built:
    """Builds what a training is made of.

    Args:
        arguments: As for `fit`.

    Returns:
        The trainer, the module and the data module.

    Raises:
        EvaCoralbayError: If the config is wrong.
    """
    _notices.silence()
    return _parse(_collect, arguments)


def dry_run(arguments: Sequence[str], *, tflops: float | None = None) -> dry_run_lib.Report:
    """States what the training takes; the folder of the config is left as it is.

    Args:
        arguments: As for `fit`.
        tflops: The TFLOP/s that a device reaches, to state the hours.

    Raises:
        EvaCoralbayError: If the config is wrong.
    """
    # TensorBoard's thread may still write while the folder is removed
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        elsewhere = {"default_root_dir": folder, "loggers": "csv"}
        overrides = [f"--trainer.init_args.{name}={value}" for name, value in elsewhere.items()]
        trainer, model, data = build([*arguments, *overrides])
        return dry_run_lib.describe(trainer, model, data, tflops=tflops)


def read_views(config: str) -> views_lib.Views:
    """Reads the views of a config.

    Args:
        config: The path of the config.

    Raises:
        EvaCoralbayError: If the config is wrong.
    """
    return _parse(_build_views, ["--config", config])


def _collect(
    trainer: trainer_lib.Trainer, model: module_lib.Distillation, data: data_lib.PretrainingData
) -> _Built:
    return trainer, model, data


def _build_views(
    trainer: dict[str, Any], model: dict[str, Any], data: data_lib.PretrainingData
) -> views_lib.Views:
    return data.views


def _parse(function: Callable[..., Any], arguments: Sequence[str]) -> Any:
    """Calls a function with what a config builds, and returns what it returns.

    Raises:
        EvaCoralbayError: If the config is wrong.
    """
    try:
        return jsonargparse.CLI(
            function,
            as_positional=False,
            args=list(arguments),
            exit_on_error=False,
            parser_mode="omegaconf",
        )
    except (
        argparse.ArgumentError,
        exceptions.MisconfigurationException,
        TypeError,
        ValueError,
    ) as error:
        raise EvaCoralbayError(f"The config is wrong: {_summarize(str(error))}") from error


def _summarize(message: str) -> str:
    """Returns the part of a message of jsonargparse that says what is wrong, in one line."""
    lines = [line.strip(" -") for line in message.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(_NOISE))
