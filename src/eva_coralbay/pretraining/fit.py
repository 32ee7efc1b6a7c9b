"""Trains as a config says, or says what that training takes."""

from typing import Sequence

import jsonargparse

from eva_coralbay.pretraining import data as data_lib
from eva_coralbay.pretraining import module, trainer


def fit(arguments: Sequence[str]) -> None:
    """Trains, in the folder of the config and from where a training in it stopped.

    Args:
        arguments: Those of `eva fit`, such as `--config FILE --trainer.max_steps 100`.
    """
    _call(_fit, arguments)


def _call(function, arguments: Sequence[str]) -> None:
    """Calls a function with what a config builds."""
    jsonargparse.CLI(
        function, args=list(arguments), parser_mode="omegaconf", fail_untyped=False
    )


def _fit(
    trainer: trainer.Trainer, model: module.Distillation, data: data_lib.PretrainingData
) -> None:
    """Trains."""
    trainer.fit(model, datamodule=data)
