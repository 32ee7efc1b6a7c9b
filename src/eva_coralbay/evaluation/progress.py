"""The progress bar of a training: steps of all, loss, and the time that is left."""

import pathlib
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch import callbacks as pl_callbacks
from lightning.pytorch.utilities.types import STEP_OUTPUT
from typing_extensions import override


class StepBar(pl_callbacks.TQDMProgressBar):
    """Counts the steps of a run, also of one that goes on; the data have no end to count to."""

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        bar = self.train_progress_bar
        bar.reset(total=trainer.max_steps)
        bar.initial = bar.n = bar.last_print_n = trainer.global_step
        bar.set_description(pathlib.Path(str(trainer.log_dir)).name)

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        bar, step = self.train_progress_bar, trainer.global_step
        if bar.disable or (step % self.refresh_rate and step != trainer.max_steps):
            return
        bar.update(step - bar.n)
        loss: Any = outputs["loss"] if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor):
            bar.set_postfix(loss=f"{float(loss):.3f}", refresh=False)
