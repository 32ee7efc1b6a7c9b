"""Small trainings, in this process or in one of its own (`python -m ... KEY=VALUE ...`)."""

import json
import pathlib
import sys
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch import callbacks

from eva_coralbay.pretraining import Distillation, PretrainingData, Trainer
from eva_coralbay.pretraining import module as module_lib
from eva_coralbay.pretraining.schedules import Schedule
from tests.eva_coralbay.pretraining import stores


def build(
    *,
    store: str,
    out: str,
    steps: int = 4,
    batch_size: int = 1,
    workers: int = 0,
    accumulate: int = 1,
    accelerator: str = "cpu",
    devices: int = 1,
    interval: int = 1,
    callbacks: list | None = None,
    **options: Any,
) -> tuple[Trainer, Distillation, PretrainingData]:
    """Builds a training that takes seconds a step."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    data = PretrainingData(
        store=store, views=stores.VIEWS, batch_size=batch_size, num_workers=workers
    )
    defaults = {
        "num_prototypes": 32,
        "drop_path_rate": 0.1,
        "freeze_prototypes_steps": 1,
        "lr": Schedule(0.0, 0.1, 1e-6),
    }
    module = Distillation(feature_size=12, head_dims=(16, 16, 8), **(defaults | options))
    trainer = Trainer(
        default_root_dir=out,
        max_steps=steps,
        checkpoint_interval=interval,
        keep_checkpoints=2,
        log_every_n_steps=1,
        refresh_rate=0,
        accelerator=accelerator,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        accumulate_grad_batches=accumulate,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    return trainer, module, data


def fit_heads_to_few_samples(patch: pytest.MonkeyPatch) -> None:
    """Makes the start of a training short, which fits the heads to 16 samples."""
    patch.setattr(module_lib, "NUM_STANDARDIZED", 2)


class Ranks(callbacks.Callback):
    """Writes each rank's gradient of the first step, after they shared it, and its last state."""

    def __init__(self, out: str) -> None:
        self._out = out

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        if trainer.global_step == 0:
            named = pl_module.student.named_parameters()
            found = {name: each.grad for name, each in named if each.grad is not None}
            self._write(trainer, "gradients", found)

    def on_train_end(self, trainer, pl_module) -> None:
        self._write(trainer, "state", pl_module.state_dict())

    def _write(self, trainer, name: str, tensors: dict[str, torch.Tensor]) -> None:
        torch.save(tensors, f"{self._out}/{name}_{trainer.global_rank}.pt")


def read_rank(out: pathlib.Path, name: str, rank: int = 0) -> dict[str, torch.Tensor]:
    """Returns what a rank wrote: its `gradients`, or its `state`."""
    return torch.load(out / f"{name}_{rank}.pt", weights_only=True)


def assert_same_gradient(
    found: pathlib.Path, expected: pathlib.Path, *, rank: int = 0, tolerance: float = 1e-5
) -> None:
    """Asserts that a rank has the gradient of another run.

    That is: no entry of the gradient of any parameter differs by more than `tolerance` times the
    largest entry of all of them.
    """
    gradients, references = read_rank(found, "gradients", rank), read_rank(expected, "gradients")
    assert gradients.keys() == references.keys()
    largest = max(float(value.abs().max()) for value in references.values())
    assert largest > 0.01
    for name, value in references.items():
        torch.testing.assert_close(
            gradients[name], value, rtol=0, atol=tolerance * largest, msg=name
        )


def train(**options: Any) -> Distillation:
    """Trains and returns the module."""
    trainer, module, data = build(**options)
    trainer.fit(module, datamodule=data)
    return module


def losses(out: str | pathlib.Path) -> dict[int, float]:
    """Returns the logged losses by step, those of the last start where there are several."""
    folder = pathlib.Path(out)
    parts = [pd.read_csv(path) for path in sorted(folder.glob("metrics.*.csv"))]
    parts += [pd.read_csv(folder / "metrics.csv")]
    rows = pd.concat(parts).dropna(subset=["train/loss"])
    return dict(zip(rows["step"].astype(int), rows["train/loss"], strict=True))


if __name__ == "__main__":
    pairs = (argument.split("=", 1) for argument in sys.argv[1:])
    parsed = {name: json.loads(value) for name, value in pairs}
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        fit_heads_to_few_samples(patch)
        train(**parsed, callbacks=[Ranks(parsed["out"])])
