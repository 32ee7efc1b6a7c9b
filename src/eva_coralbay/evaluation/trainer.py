"""eva's trainer with what all tasks of the leaderboard share."""

import os
import sys
from typing import Any, Literal

import eva
from lightning.pytorch import callbacks as pl_callbacks
from lightning.pytorch import loggers as pl_loggers

from eva_coralbay.evaluation import config_files, eva_variables, figures, recorder
from eva_coralbay.evaluation.probe import label_curve
from eva_coralbay.tasks import protocols


class Trainer(eva.Trainer):
    """Trains, monitors, keeps the last and the best checkpoint, scores and records both.

    It is eva's trainer; what it adds are the callbacks and loggers that every task needs, so that
    the config of a task has to name none.
    """

    def __init__(
        self,
        *,
        task: str,
        task_version: str = "1",
        model: str | None = None,
        protocol: protocols.ProtocolName = "frozen",
        monitor: str = "val/dice",
        default_root_dir: str = "logs",
        n_runs: int = 5,
        max_steps: int = 20000,
        val_check_interval: int = 500,
        log_every_n_steps: int = 50,
        refresh_rate: int = 1,
        robustness: bool | Literal[0, 1] = False,
        callbacks: list[pl_callbacks.Callback] | None = None,
        **kwargs: Any,
    ) -> None:
        """Initializes the trainer.

        Args:
            task: The id of the task, for the record.
            task_version: The version of the task: values of two versions are not compared.
            model: The name of the model, for the record.
            protocol: Decides which checkpoint is the one that counts.
            monitor: The metric that says which checkpoint is the best; higher is better.
            default_root_dir: The folder of the results.
            n_runs: The number of runs.
            max_steps: The number of training steps.
            val_check_interval: The number of steps between two validations.
            log_every_n_steps: The number of steps between two lines of the log.
            refresh_rate: The number of steps between two updates of the progress bar, 0 for none.
            robustness: Whether the checkpoint that counts is scored on perturbed scans too: see
                :mod:`eva_coralbay.evaluation.robustness`.
            callbacks: Callbacks to use beside those of every task.
            kwargs: Further arguments of :class:`eva.Trainer` and :class:`lightning.Trainer`.

        Raises:
            EvaCoralbayError: If an environment variable is set that only eva's own configs read,
                or a config sets a value that the file it takes sets differently.
        """
        eva_variables.check(os.environ)
        config_files.check(sys.argv)
        rules = protocols.PROTOCOLS[protocol]
        in_steps = rules.mode != "probe"
        super().__init__(
            default_root_dir=default_root_dir,
            n_runs=n_runs,
            checkpoint_type=rules.checkpoint,
            # a closed form reads every training case once, and validates nothing on the way
            max_steps=max_steps if in_steps else -1,
            max_epochs=None if in_steps else 1,
            val_check_interval=val_check_interval if in_steps else 1.0,
            check_val_every_n_epoch=None if in_steps else 2,
            num_sanity_val_steps=0,
            log_every_n_steps=log_every_n_steps,
            callbacks=[
                pl_callbacks.TQDMProgressBar(refresh_rate=refresh_rate),
                *(_monitors(monitor) if in_steps else []),
                pl_callbacks.ModelCheckpoint(filename="last"),
                recorder.Recorder(
                    task=task,
                    task_version=task_version,
                    model=model,
                    robustness=bool(robustness),
                ),
                figures.CaseFigures(),
                *([] if in_steps else [label_curve.LabelCurve()]),
                *(callbacks or []),
            ],
            logger=[
                pl_loggers.TensorBoardLogger(save_dir=default_root_dir, name=""),
                pl_loggers.CSVLogger(save_dir=default_root_dir, name=""),
            ],
            **kwargs,
        )


def _monitors(metric: str) -> list[pl_callbacks.Callback]:
    """Returns what only a training by steps has."""
    return [
        pl_callbacks.LearningRateMonitor(logging_interval="step"),
        pl_callbacks.ModelCheckpoint(filename="best", monitor=metric, mode="max"),
    ]
