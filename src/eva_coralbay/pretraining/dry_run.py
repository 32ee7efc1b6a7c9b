"""What a training takes, before it is begun, and the proof that its export will load."""

import copy
import math
import os
import tempfile
from typing import NamedTuple

import torch
from torch import nn

from eva_coralbay import _messages, _tensor_meter
from eva_coralbay.models import encoder as encoder_lib
from eva_coralbay.pretraining import export
from eva_coralbay.pretraining import module as module_lib
from eva_coralbay.pretraining import samples as data_lib
from eva_coralbay.pretraining import trainer as trainer_lib
from eva_coralbay.pretraining import views as views_lib

_BYTES = 4
"""The size of a number in float32, in which the weights are kept whatever the precision."""

_COPIES = 5
"""What there is of the student's size: weights, gradients, two moments of AdamW, the teacher."""

_FLOPS_OF_WEIGHT = 2
"""The operations of a weight of a linear layer on an input: a product and a sum."""

_PASSES = 3
"""The work of the student, forward and backward, as a multiple of that of its forward pass."""

_TFLOPS = (0.1, 50.0, 200.0, 400.0)
"""The speeds for which the hours are stated: a few cores of a CPU, and GPUs, in TFLOP/s."""


class Report(NamedTuple):
    """What a training takes."""

    rows: list[tuple[str, str]]
    """What is stated, and its value."""


class Cost(NamedTuple):
    """The cost of one step of the encoders on some samples, besides that of their weights."""

    flops: float
    """The operations of student and teacher; what the backward pass computes again is counted."""

    memory: float
    """The peak number of allocated bytes."""


def describe(
    trainer: trainer_lib.Trainer,
    model: module_lib.Distillation,
    data: data_lib.PretrainingData,
    *,
    tflops: float | None = None,
) -> Report:
    """States what a training takes, and proves that its export loads.

    Args:
        trainer: The trainer.
        model: The module, whose networks are built here.
        data: The data.
        tflops: The TFLOP/s that a device reaches; some speeds if None.

    Raises:
        DatasetError: If there is no store.
        CheckpointError: If the export does not load.
        EvaCoralbayError: If the steps are too few for the encoder to be trained.
    """
    scans = len(data.cases)
    model.settle_warm_up(trainer.max_steps)
    model.build(num_scans=scans, batch_size=data.batch_size * trainer.world_size)
    batch = data.batch_size * trainer.world_size * trainer.accumulate_grad_batches
    _prove_export(model, data, batch=batch, steps=trainer.max_steps)
    student = model.student
    is_half = "16" in str(trainer.precision)
    dtype = torch.bfloat16 if is_half else torch.float32
    cost = measure(student.encoder, data.views, samples=data.batch_size, dtype=dtype)
    flops = cost.flops / data.batch_size + count_head_flops(student.head, data.views)
    weights = _COPIES * _BYTES * count_parameters(student)
    rows = [
        ("encoder", f"{_messages.parameters(count_parameters(student.encoder))} parameters"),
        ("head", f"{_messages.parameters(count_parameters(student.head))} parameters"),
        ("prototypes", f"{model.num_prototypes} (ln K {math.log(int(model.num_prototypes)):.2f})"),
        (
            "effective batch",
            f"{batch} ({data.batch_size} a device x {trainer.world_size} devices x "
            f"{trainer.accumulate_grad_batches} accumulated)",
        ),
        ("scans", f"{scans}, each is seen every {scans / batch:,.1f} steps"),
        ("steps", f"{trainer.max_steps:,}, {trainer.max_steps * batch:,} samples"),
        ("memory of a device", f"about {_in_gib(weights + cost.memory)}"),
        ("- weights, gradients, AdamW, teacher", _in_gib(weights)),
        (f"- activations in {'16' if is_half else '32'} bits", _in_gib(cost.memory)),
        ("work of a sample", f"{flops / 1e12:.3f} TFLOP"),
        ("work of a step", f"{flops * batch / 1e12:,.2f} TFLOP"),
        *(
            (f"hours at {speed:g} TFLOP/s a device", f"{hours:,.1f}")
            for speed, hours in _hours(
                flops * batch / trainer.world_size * trainer.max_steps, tflops
            )
        ),
        ("export", "loads in CoralBayEncoder, eva's ModelFromRegistry and AutoModel"),
    ]
    return Report(rows)


def measure(
    encoder: encoder_lib.CoralBayEncoder,
    views: views_lib.Views,
    *,
    samples: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Cost:
    """Does a step of student and teacher on tensors that have a shape, but no values.

    It takes seconds, and no memory. Attention counts as the memory-efficient kernel of GPUs. What
    a step allocates beside tensors, and the head, of which there are some MiB, is not counted.

    Args:
        encoder: The student's encoder.
        views: The views of a sample.
        samples: The number of samples.
        dtype: What the encoder computes in.
    """
    student = _to_meta(encoder, dtype)
    teacher = _to_meta(encoder, dtype).requires_grad_(False)
    weights = [*student.parameters(), *student.buffers(), *teacher.parameters(), *teacher.buffers()]
    for parameter in student.parameters():
        # gradients are counted with the weights
        parameter.register_post_accumulate_grad_hook(_forget_gradient)
    meter = _tensor_meter.TensorMeter("meta", ignored=weights)
    with _tensor_meter.fused_attention(), meter:
        crops = [
            torch.empty(
                samples * number, encoder.in_channels, *(size,) * 3, dtype=dtype, device="meta"
            )
            for number, size in _count_crops(views)
        ]
        teacher(crops[0])
        torch.cat([student(crop) for crop in crops]).sum().backward()
    return Cost(flops=float(meter.flops), memory=float(meter.peak))


def count_parameters(network: nn.Module) -> int:
    """Counts the parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_head_flops(head: nn.Module, views: views_lib.Views) -> float:
    """Counts the operations of both heads on a sample."""
    student = _PASSES * sum(number for number, _ in _count_crops(views))
    return float(_FLOPS_OF_WEIGHT * count_parameters(head) * (student + views_lib.NUM_GLOBALS))


def _count_crops(views: views_lib.Views) -> list[tuple[int, int]]:
    """Returns how many views of a sample there are of each kind, and their edge."""
    crops = [(views_lib.NUM_GLOBALS, views.global_size), (views.num_locals, views.local_size)]
    return [(number, size) for number, size in crops if number]


def _to_meta(
    encoder: encoder_lib.CoralBayEncoder, dtype: torch.dtype
) -> encoder_lib.CoralBayEncoder:
    """Copies an encoder without its values; the copy is not compiled."""
    return copy.deepcopy(encoder).to("meta", dtype)


def _forget_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _prove_export(
    model: module_lib.Distillation, data: data_lib.PretrainingData, *, batch: int, steps: int
) -> None:
    """Exports the teacher as it begins, and loads it in all ways.

    Raises:
        CheckpointError: If it does not load.
    """
    counts = {"step": 0, "steps": steps, "batch_size": batch}
    training = {**model.describe_data(data), **counts, "summary": {}}
    with tempfile.TemporaryDirectory() as folder:
        export.write(
            copy.deepcopy(model.teacher.encoder), training, os.path.join(folder, "encoder")
        )


def _hours(flops: float, tflops: float | None) -> list[tuple[float, float]]:
    """Returns speeds of a device in TFLOP/s, and the hours that some operations take at each."""
    speeds = _TFLOPS if tflops is None else (tflops,)
    return [(speed, flops / (speed * 1e12) / 3600.0) for speed in speeds]


def _in_gib(size: float) -> str:
    return f"{size / 2**30:,.2f} GiB"
