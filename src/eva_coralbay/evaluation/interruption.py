"""Runs that are interrupted by a signal, and go on as if they had not been."""

import os
import pathlib
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch import callbacks as pl_callbacks
from loguru import logger
from typing_extensions import override

from eva_coralbay import _preemption
from eva_coralbay.evaluation import rescoring, sessions

_FOLDER = "checkpoints"
"""Where the checkpoints of a run are, below its folder."""


class ModelCheckpoint(pl_callbacks.ModelCheckpoint):
    """Lightning's, but with its files in the folder of the run, whatever the first logger is.

    Lightning asks that logger, and those of W&B and MLflow name folders that no later call finds.
    The class has the name of Lightning's, by which checkpoints name the state of a callback.
    """

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.dirpath = os.path.join(str(trainer.log_dir), _FOLDER)
        super().setup(trainer, pl_module, stage)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        sessions.keep()
        super().on_train_start(trainer, pl_module)


class SaveOnSignal(pl_callbacks.Checkpoint):
    """Saves the last checkpoint and ends the program when SIGUSR1 or SIGTERM arrives.

    In the training it is saved at the end of the step, unless a validation follows: then at the
    end of that, where it is saved anyway. A scoring is not saved: it begins anew, with the same
    result. After SIGUSR1 a SLURM job goes into the queue again.
    """

    def __init__(self) -> None:
        """Initializes the callback."""
        super().__init__()
        self.signal: int | None = None

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if sessions.is_resumable():
            _preemption.on_signal(self._receive)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, idx: int
    ) -> None:
        is_step = (idx + 1) % trainer.accumulate_grad_batches == 0
        if self.signal is None or not is_step or self._is_validated(trainer):
            return
        path = last_checkpoint(pathlib.Path(str(trainer.log_dir)))
        trainer.save_checkpoint(path)
        logger.info(f"Signal {self.signal}: step {trainer.global_step} is saved in '{path}'.")
        # a training that is told to stop would validate once more, and may take that for the best
        _preemption.leave(self.signal)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.signal is not None and not rescoring.is_scoring(trainer):
            _preemption.leave(self.signal)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._leave_at_once(trainer)

    @override
    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._leave_at_once(trainer)

    def _leave_at_once(self, trainer: pl.Trainer) -> None:
        """Ends the program on a signal while a checkpoint is scored."""
        if rescoring.is_scoring(trainer) and sessions.is_resumable():
            _preemption.on_signal(_preemption.leave)

    def _is_validated(self, trainer: pl.Trainer) -> bool:
        """Whether a validation follows the step that has just been done."""
        done = trainer.fit_loop.total_batch_idx + 1
        return done % int(trainer.val_check_interval) == 0

    def _receive(self, number: int) -> None:
        self.signal = number


def last_checkpoint(run: pathlib.Path) -> pathlib.Path:
    """Returns the path of the checkpoint that a run goes on from, whether or not it is there.

    Args:
        run: The folder of the run.
    """
    return run / _FOLDER / "last.ckpt"
