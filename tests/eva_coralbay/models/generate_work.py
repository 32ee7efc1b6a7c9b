"""Writes what each model of the zoo takes: operations and memory, counted without weights.

Run it after an entry was added or changed, by `nox -s generate`. Networks and inputs are tensors
without values (PyTorch's device "meta"), so that it needs neither weights nor memory.
"""

import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from eva_coralbay import _tensor_meter
from eva_coralbay.evaluation import segmentation
from eva_coralbay.models import loading, work, zoo

FILE = pathlib.Path(work.__file__).with_name("work.json")
"""The file."""

_CLASSES = 14
"""The classes of the decoder: about those of the abdominal tasks."""

_DECODER = "eva.vision.models.networks.decoders.segmentation.SwinUNETRDecoderWithProjection"


def main() -> None:
    """Writes the file."""
    FILE.write_text(render(zoo.ENTRIES.values()), encoding="utf-8")


def render(entries: Iterable[zoo.Entry]) -> str:
    """Returns the content of the file for some entries."""
    counted = {
        entry.name: {
            "decoder": count_decoder(entry),
            **{str(edge): count(entry, edge) for edge in work.EDGES},
        }
        for entry in entries
    }
    return json.dumps(counted, indent=2) + "\n"


def count_decoder(entry: zoo.Entry) -> int:
    """Counts the parameters of the decoder."""
    decoder = _build(entry, work.EDGES[0]).decoder
    return sum(weight.numel() for weight in decoder.parameters())


def count(entry: zoo.Entry, edge: int) -> dict[str, dict[str, float]]:
    """Counts the work on one cube of voxels.

    Returns:
        TFLOP and GiB of the encoder and of encoder and decoder without gradients, and of a training
        step of the decoder and of both. Memory is that of the tensors beside the weights.
    """
    module = _build(entry, edge)
    crop = torch.empty(1, 1, edge, edge, edge, device="meta")
    labels = torch.empty(1, 1, edge, edge, edge, dtype=torch.uint8, device="meta")

    def step() -> None:
        # as `training_step`, which reads values of the labels first
        module.criterion(module(crop, to_size=(edge,) * 3), labels).backward()

    with torch.no_grad():
        module.encoder(crop)  # some keep tables from their first call
        encode = _measure(module, lambda: module.encoder(crop))
        segment = _measure(module, lambda: module(crop, to_size=(edge,) * 3))
    module.encoder.requires_grad_(False)
    train_decoder = _measure(module, step)
    module.encoder.requires_grad_(True)
    train = _measure(module, step)
    return {"encode": encode, "segment": segment, "train_decoder": train_decoder, "train": train}


def _build(entry: zoo.Entry, edge: int) -> Any:
    """Builds the encoder with the decoder that a task gives it, without values."""
    with torch.device("meta"):
        encoder = loading.build(entry, random_weights=True, out_indices=len(entry.maps) or 6)
        module: Any = segmentation.SegmentationModule(
            encoder=encoder,
            decoder={"class_path": _DECODER, "init_args": {"feature_size": work.width(entry)}},
            roi_size=(edge,) * 3,
        )
        module.classes = [str(index) for index in range(_CLASSES)]
        module.build_networks()
    module = module.to("meta")
    for weight in module.parameters():
        # gradients are counted with the weights
        weight.register_post_accumulate_grad_hook(_forget_gradient)
    return module


def _measure(module: nn.Module, do: Callable[[], object]) -> dict[str, float]:
    known = [*module.parameters(), *module.buffers()]
    meter = _tensor_meter.TensorMeter("meta", ignored=known)
    with _tensor_meter.fused_attention(), meter:
        do()
    return {"tflop": round(meter.flops / 1e12, 4), "gib": round(meter.peak / 2**30, 3)}


def _forget_gradient(weight: torch.Tensor) -> None:
    weight.grad = None


if __name__ == "__main__":
    main()
