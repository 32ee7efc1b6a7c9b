"""Steps of a self-distillation without Lightning: for benchmarks and experiments."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import optim

from eva_coralbay.pretraining import distillation
from eva_coralbay.pretraining import views as views_lib


class PlainLoop:
    """Trains on one device, a step a call; a step is that of the trainer.

        module = Distillation(feature_size=24, num_prototypes=1024)
        module.build(num_scans=47)
        loop = PlainLoop(module, views=views, batch_size=64, steps=500, device="cuda")
        loop.start(batch)  # of some samples, for the scale of the heads
        for batch in batches:
            losses = loop.step(batch)

    The batches are those of `PretrainingData`: `Regions.read`, collated. There are no checkpoints,
    no logs and no other ranks. A gradient that is not finite is left out.
    """

    def __init__(
        self,
        module: distillation.SelfDistillation,
        *,
        views: views_lib.Views,
        batch_size: int,
        steps: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Moves the networks to the device and makes the optimizer.

        Args:
            module: The self-distillation, whose networks are built.
            views: The views of a sample.
            batch_size: The number of samples of a step.
            steps: The number of all steps, which the schedules are for.
            device: Where to compute.
            dtype: What to compute in; if not float32, by autocast.

        Raises:
            EvaCoralbayError: If the steps are too few for the encoder to be trained.
        """
        module.settle_warm_up(steps)
        self.module = module.to(device).train()
        self.optimizer: optim.Optimizer = module.configure_optimizers()
        self.step_number = 0
        self._views = views
        self._batch_size = batch_size
        self._steps = steps
        self._device = torch.device(device)
        self._dtype = dtype
        self._set_progress()

    def start(self, batch: dict[str, Any]) -> None:
        """Scales the heads to samples, as a training does before its first step.

        Args:
            batch: The samples; 16 are enough.
        """
        with self._autocast():
            self.module.standardize_heads(to_device(batch, self._device))

    def step(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Does a step of student and teacher.

        Args:
            batch: The samples of the step, on any device.

        Returns:
            `loss`, `kl` and the other parts of the loss, and `grad_norm`: scalars on the device.
        """
        self._set_progress()
        self.module.set_rates(self.optimizer)
        with self._autocast():
            losses = self.module.compute_losses(to_device(batch, self._device))
        losses.total.backward()
        norm = self.module.clip_gradient()
        is_taken = bool(norm.isfinite())
        if is_taken:
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.module.end_step(is_taken=is_taken)
        self.step_number += 1
        return {**losses.named, "grad_norm": norm}

    def run(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, torch.Tensor]]:
        """Does all steps that are left, and yields what each comes to."""
        while self.step_number < self._steps:
            yield self.step(next(batches))

    def _set_progress(self) -> None:
        self.module.progress = distillation.Progress(
            self.step_number, self._steps, self._batch_size, self._views
        )

    def _autocast(self) -> torch.autocast:
        is_enabled = self._dtype != torch.float32
        return torch.autocast(self._device.type, dtype=self._dtype, enabled=is_enabled)


def to_device(batch: dict[str, Any], device: torch.device | str) -> dict[str, Any]:
    """Moves the regions of a batch, and what makes their views, to a device."""
    moved = dict(batch)
    moved["hu"] = batch["hu"].to(device, non_blocking=True)
    for name in ("globals", "locals"):
        parts = (part.to(device, non_blocking=True) for part in batch[name])
        moved[name] = views_lib.Drawn(*parts)
    return moved
