"""Compares the encoder with eva's, which has MONAI's attention, on the same weights and input.

Times are interleaved, round by round, and compared by the ratio of their medians. The peak memory
is the growth of a fresh process over its input and weights; the activations are the bytes that
autograd keeps for the backward pass, each storage once, parameters and input left out.

On a GPU it times bf16 batches of 96^3 and 48^3 and takes the peak of the allocator, against MONAI
with and without its flash attention (which works without gradients only).
"""

import argparse
import dataclasses
import functools
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent import futures

import _machine
import _memory
import torch
from eva.vision.models.networks.backbones.radiology import SwinUNETREncoder
from monai.networks.nets import swin_unetr
from torch import nn

from eva_coralbay.models import CoralBayEncoder

_GPU_BATCHES = ((8, 96), (32, 48))
"""The batches on a GPU, as (number of crops, edge in voxels)."""


@dataclasses.dataclass(frozen=True)
class _Row:
    """A line of the table."""

    what: str
    reference: float
    ours: float
    unit: str
    is_speed: bool

    def __str__(self) -> str:
        ratio = self.reference / self.ours if self.is_speed else self.ours / self.reference
        sense = "x faster" if self.is_speed else "x as much"
        return (
            f"| {self.what} | {self.reference:.3g} {self.unit} | {self.ours:.3g} {self.unit} "
            f"| {ratio:.2f} {sense} |"
        )


def _build(name: str, feature_size: int) -> nn.Module:
    """Builds an encoder that returns all six maps: `eva`, `ours` or `checkpointed`."""
    torch.manual_seed(0)
    if name == "eva":
        return SwinUNETREncoder(feature_size=feature_size, out_indices=6)
    return CoralBayEncoder(
        feature_size=feature_size,
        out_indices=6,
        activation_checkpointing=name == "checkpointed",
    )


def _volume(size: int, batch_size: int = 1) -> torch.Tensor:
    """Returns a batch [B, 1, D, H, W] in [0, 1]."""
    return torch.rand((batch_size, 1, size, size, size), generator=torch.Generator().manual_seed(1))


def _forward(encoder: nn.Module, tensor: torch.Tensor) -> None:
    with torch.no_grad():
        encoder(tensor)


def _forward_backward(encoder: nn.Module, tensor: torch.Tensor) -> None:
    encoder.zero_grad(set_to_none=True)
    torch.stack([feature_map.float().mean() for feature_map in encoder(tensor)]).sum().backward()


def _interleaved(
    steps: list[Callable[[], None]], repeats: int, *, synchronize: Callable[[], None]
) -> list[float]:
    """Returns the median seconds of each step, after one round to warm up."""
    seconds: list[list[float]] = [[] for _ in steps]
    for round_ in range(repeats + 1):
        for step, times in zip(steps, seconds, strict=True):
            synchronize()
            started = time.perf_counter()
            step()
            synchronize()
            if round_ > 0:
                times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in seconds]


def _cpu_times(size: int, feature_size: int, repeats: int) -> list[_Row]:
    """Times both encoders, in fp32."""
    tensor = _volume(size)
    rows = []
    for what, step, training in (
        ("forward", _forward, False),
        ("forward and backward", _forward_backward, True),
    ):
        encoders = [_build(name, feature_size).train(training) for name in ("eva", "ours")]
        reference, ours = _interleaved(
            [functools.partial(step, encoder, tensor) for encoder in encoders],
            repeats,
            synchronize=lambda: None,
        )
        rows.append(_Row(what, reference, ours, "s", is_speed=True))
    return rows


def _peak_bytes(name: str, size: int, feature_size: int, threads: int) -> int:
    """Runs a forward pass, in a process of its own, and returns the growth of its memory."""
    torch.set_num_threads(threads)
    encoder, tensor = _build(name, feature_size).eval(), _volume(size)
    return _memory.peak_growth(lambda: _forward(encoder, tensor))


def _kept_bytes(name: str, size: int, feature_size: int) -> int:
    """Returns the bytes of the activations that are kept for the backward pass."""
    encoder, tensor = _build(name, feature_size).train(), _volume(size)
    excluded = {weight.untyped_storage().data_ptr() for weight in encoder.parameters()}
    excluded |= {buffer.untyped_storage().data_ptr() for buffer in encoder.buffers()}
    excluded.add(tensor.untyped_storage().data_ptr())
    kept: dict[int, int] = {}

    def pack(saved: torch.Tensor) -> torch.Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in excluded:
            kept[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        maps = encoder(tensor)
    total = sum(kept.values())
    del maps
    return total


def _cpu_memory(size: int, feature_size: int, threads: int) -> list[_Row]:
    """Compares the peak of a forward pass and the activations that training keeps."""
    context = multiprocessing.get_context("spawn")
    peaks = []
    for name in ("eva", "ours"):
        with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            peaks.append(
                pool.submit(_peak_bytes, name, size, feature_size, threads).result() / 2**30
            )
    eva, ours, checkpointed = (
        _kept_bytes(name, size, feature_size) / 2**30 for name in ("eva", "ours", "checkpointed")
    )
    return [
        _Row("peak memory of a forward pass", peaks[0], peaks[1], "GiB", is_speed=False),
        _Row("activations kept for backward", eva, ours, "GiB", is_speed=False),
        _Row("the same, checkpointed", eva, checkpointed, "GiB", is_speed=False),
    ]


def _flash(encoder: nn.Module) -> nn.Module:
    """Switches MONAI's flash attention on."""
    for module in encoder.modules():
        if isinstance(module, swin_unetr.WindowAttention):
            module.use_flash_attention = True
    return encoder


def _gpu(feature_size: int, repeats: int) -> list[_Row]:
    """Compares time and peak memory of bf16 batches on a GPU."""
    rows = []
    for batch_size, size in _GPU_BATCHES:
        tensor = _volume(size, batch_size).cuda()
        for what, step, training in (
            ("forward", _forward, False),
            ("forward and backward", _forward_backward, True),
        ):
            references = {"MONAI": _build("eva", feature_size)}
            if not training:
                references["MONAI flash"] = _flash(_build("eva", feature_size))
            for name, encoder in references.items():
                pair = [encoder, _build("ours", feature_size)]
                steps = [_autocast(step, e.cuda().train(training), tensor) for e in pair]
                times = _interleaved(steps, repeats, synchronize=torch.cuda.synchronize)
                peaks = [_memory.gpu_peak_growth(run) / 2**30 for run in steps]
                label = f"{what}, {batch_size} x {size}^3, against {name}"
                rows.append(_Row(label, times[0], times[1], "s", is_speed=True))
                rows.append(_Row(f"{label}, peak", peaks[0], peaks[1], "GiB", is_speed=False))
    return rows


def _autocast(
    step: Callable[[nn.Module, torch.Tensor], None], encoder: nn.Module, tensor: torch.Tensor
) -> Callable[[], None]:
    def run() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            step(encoder, tensor)

    return run


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python benchmarks/encoder.py --size 96 --repeats 5 --threads 2",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", type=int, default=96, help="edge of the input (%(default)s)")
    parser.add_argument("--feature-size", type=int, default=48, help="(%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(%(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    if arguments.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16\n")
        rows = _gpu(arguments.feature_size, arguments.repeats)
    else:
        print(
            f"{_machine.processor()}, {arguments.threads} threads, "
            f"torch {torch.__version__}, fp32\n"
        )
        print(f"{arguments.size}^3, feature_size {arguments.feature_size}\n")
        rows = _cpu_times(arguments.size, arguments.feature_size, arguments.repeats)
        rows += _cpu_memory(arguments.size, arguments.feature_size, arguments.threads)
    print("| | eva (MONAI) | ours | ratio |\n|---|---|---|---|")
    print("\n".join(map(str, rows)))


if __name__ == "__main__":
    main()
