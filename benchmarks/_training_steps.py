"""A step of self-distillation, ours and that of a plain loop with eva's encoder and lightly's loss.

See `pretraining.py` for what is compared.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from eva.vision.models.networks.backbones.radiology import SwinUNETREncoder
from lightly import loss as lightly_loss
from lightly.models import modules as lightly_modules
from lightly.models import utils as lightly_utils
from lightning import pytorch as pl
from lightning.fabric import utilities as fabric_utilities
from torch import nn, optim
from torch.utils import flop_counter

from eva_coralbay.pretraining import Distillation, PretrainingData, views

WARM_UP_STEPS = 2
"""How many steps are not timed; the operations of the first one are counted."""

_EMBEDDING_FACTOR = 24
"""How many times its feature size the embedding of eva's encoder is wide."""

_HEAD_DIMS = (2048, 2048, 256)
"""The widths of the hidden layers and of the bottleneck of both heads."""

_CLIP_NORM = 3.0
_MOMENTUM = 0.996

Batch = dict[str, Any]


class Step(NamedTuple):
    """What is trained in a step."""

    store: str
    sizes: views.Views
    batch_size: int
    feature_size: int
    num_prototypes: int
    device: str


def render(batch: Batch, sizes: views.Views) -> tuple[torch.Tensor, torch.Tensor]:
    """Renders the views, global and local ones, each of shape [B, V, 1, G, G, G]."""
    return (
        views.render(batch["hu"], batch["globals"], size=sizes.global_size),
        views.render(batch["hu"], batch["locals"], size=sizes.local_size),
    )


class PlainDino:
    """A step of DINO with eva's encoder, as lightly's examples write it."""

    def __init__(self, step: Step) -> None:
        self._step = step
        torch.manual_seed(0)
        self._student, self._student_head = self._build()
        self._teacher, self._teacher_head = self._build()
        self._teacher.load_state_dict(self._student.state_dict())
        self._teacher_head.load_state_dict(self._student_head.state_dict())
        for network in (self._teacher, self._teacher_head):
            lightly_utils.deactivate_requires_grad(network)
        self._loss = lightly_loss.DINOLoss(step.num_prototypes).to(step.device)
        trained = (*self._student.parameters(), *self._student_head.parameters())
        self._parameters = [parameter for parameter in trained if parameter.requires_grad]
        self._optimizer = optim.AdamW(self._parameters)

    def _build(self) -> tuple[nn.Module, nn.Module]:
        step = self._step
        network = SwinUNETREncoder(feature_size=step.feature_size)
        head = lightly_modules.DINOProjectionHead(
            _EMBEDDING_FACTOR * step.feature_size,
            _HEAD_DIMS[0],
            _HEAD_DIMS[2],
            step.num_prototypes,
        )
        return network.to(step.device), head.to(step.device)

    def run(self, batch: Batch) -> None:
        """Does a step."""
        rendered = render(batch, self._step.sizes)
        global_views, local_views = (tensor.transpose(0, 1).flatten(0, 1) for tensor in rendered)
        with torch.autocast(self._step.device, dtype=torch.bfloat16, enabled=is_on_gpu(self._step)):
            with torch.no_grad():
                targets = self._teacher_head(self._teacher(global_views))
            student = [self._student(tensor) for tensor in (global_views, local_views)]
            logits = self._student_head(torch.cat(student))
            value = self._loss(
                list(targets.chunk(views.NUM_GLOBALS)),
                list(logits.chunk(views.NUM_GLOBALS + self._step.sizes.num_locals)),
            )
        self._optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(self._parameters, _CLIP_NORM)
        self._optimizer.step()
        lightly_utils.update_momentum(self._student, self._teacher, m=_MOMENTUM)
        lightly_utils.update_momentum(self._student_head, self._teacher_head, m=_MOMENTUM)


class Interleaved(pl.Callback):
    """Times the steps of a training, and one of the plain loop after each, on the same batch."""

    def __init__(self, plain: PlainDino) -> None:
        self.seconds: dict[str, list[float]] = {"plain": [], "ours": []}
        self.flops: dict[str, int] = {}
        self._plain = plain
        self._measured = contextlib.ExitStack()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._measured.enter_context(self._measure("ours", batch_idx))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._measured.close()
        with self._measure("plain", batch_idx):
            self._plain.run(batch)

    @contextlib.contextmanager
    def _measure(self, name: str, index: int) -> Iterator[None]:
        """Counts the operations of the first step, and times those after the warm-up."""
        if index == 0:
            with flop_counter.FlopCounterMode(display=False) as counter:
                yield
            self.flops[name] = counter.get_total_flops()
            return
        _synchronize()
        started = time.perf_counter()
        yield
        _synchronize()
        if index >= WARM_UP_STEPS:
            self.seconds[name].append(time.perf_counter() - started)


def is_on_gpu(step: Step) -> bool:
    return step.device == "cuda"


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _data_of(step: Step) -> PretrainingData:
    """Returns the data of a training, which are read between two steps."""
    return PretrainingData(
        store=step.store, views=step.sizes, batch_size=step.batch_size, num_workers=0
    )


def train_ours(step: Step, *, steps: int, callbacks: list[pl.Callback] | None = None) -> None:
    """Trains for some steps."""
    is_gpu = is_on_gpu(step)
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="gpu" if is_gpu else "cpu",
        devices=1,
        precision="bf16-mixed" if is_gpu else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    module = Distillation(
        feature_size=step.feature_size,
        num_prototypes=step.num_prototypes,
        head_dims=_HEAD_DIMS,
        clip_norm=_CLIP_NORM,
        drop_path_rate=0.0,
        freeze_prototypes_steps=0,
    )
    trainer.fit(module, datamodule=_data_of(step))


def train_plain(step: Step, *, steps: int) -> None:
    """Does the same with the plain loop."""
    batch = _data_of(step).probe_batch(step.batch_size)
    moved = fabric_utilities.move_data_to_device(batch, torch.device(step.device))
    plain = PlainDino(step)
    for _ in range(steps):
        plain.run(moved)
