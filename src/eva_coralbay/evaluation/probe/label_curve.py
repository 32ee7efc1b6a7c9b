"""Writes the label-efficiency curve of a run: see :mod:`eva_coralbay.results.label_curves`."""

import pathlib
from typing import Literal

import lightning.pytorch as pl
from typing_extensions import override

from eva_coralbay.evaluation import rescoring
from eva_coralbay.results import label_curves


class LabelCurve(pl.Callback):
    """Writes the curve whenever the validation or the test cases have been scored."""

    def __init__(self) -> None:
        """Initializes the callback."""
        super().__init__()

        self._curve: label_curves.Curve | None = None

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._keep(pl_module, "val")

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._keep(pl_module, "test")

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, "val")

    @override
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, "test")

    def _keep(self, pl_module: pl.LightningModule, part: Literal["val", "test"]) -> None:
        """Takes the curve before the module resets its metrics."""
        self._curve = getattr(rescoring.case_metric(pl_module, part), "curve", None)

    def _write(self, trainer: pl.Trainer, part: Literal["val", "test"]) -> None:
        curve, self._curve = self._curve, None
        if curve is not None and curve.points:
            folder = pathlib.Path(str(trainer.log_dir))
            label_curves.write(folder / f"curve_{part}.csv", curve)
            label_curves.draw(folder / f"curve_{part}.png", {"": curve})
