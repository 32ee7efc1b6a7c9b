"""The sections of the GPU benchmark that measure speed and memory."""

import argparse
import contextlib
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import _in_memory
import _memory
import torch
from lightning import pytorch as pl
from torch import nn
from torch.nn.attention import SDPBackend
from torch.profiler import ProfilerActivity, profile
from torch.utils import flop_counter

from eva_coralbay.models import attention
from eva_coralbay.models.encoder import CoralBayEncoder
from eva_coralbay.pretraining import Distillation, views

_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("attention", ("attention", "softmax", "bmm", "baddbmm")),
    ("convolution", ("conv", "cudnn")),
    ("norm", ("norm",)),
    ("linear", ("linear", "addmm", "aten::mm", "matmul")),
    ("optimizer", ("adam", "_foreach", "lerp", "clip_grad")),
    ("views", ("grid_sampl", "affine_grid", "normal_")),
    ("copy", ("copy", "to_copy", "memcpy", "cat", "contiguous", "clone", "index", "gather")),
)
"""The kinds of operations that the profile sums up, by what their names contain; first match."""


_EVERY_BACKEND = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
    SDPBackend.CUDNN_ATTENTION,
]


class Size(NamedTuple):
    """How large a step of the training is."""

    feature_size: int
    batch_size: int
    sizes: views.Views
    num_prototypes: int


FULL = Size(48, 8, views.Views(), 16384)
"""The recipe's size: two views of 96^3 and eight of 48^3 a sample."""

TOY = Size(
    12,
    2,
    views.Views(
        global_size=36,
        local_size=33,
        num_locals=1,
        global_edge=(36, 48),
        local_edge=(30, 40),
        region_size=48,
    ),
    64,
)
"""A size for the CPU."""


def measure_encoder(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compares the encoder with MONAI's: bf16, forward, and forward and backward."""
    batches = ((1, 40),) if arguments.toy else ((8, 96), (32, 48))
    rows = []
    for batch_size, size in batches:
        tensor = torch.rand(batch_size, 1, size, size, size, device=arguments.device)
        for is_training in (False, True):
            names = ["MONAI", *([] if is_training else ["MONAI flash"]), "torch's choice", "ours"]
            encoders = {name: _build(name, arguments).train(is_training) for name in names}
            steps = [
                functools.partial(_run_encoder, encoder, tensor, is_training=is_training)
                for encoder in encoders.values()
            ]
            seconds = _interleave(steps, repeats=1 if arguments.toy else 5)
            peaks = [_peak(step, arguments) for step in steps]
            for name, time_, peak in zip(names, seconds, peaks, strict=True):
                what = "forward and backward" if is_training else "forward"
                rows.append(
                    {
                        "what": f"{what}, {batch_size} x {size}^3",
                        "encoder": name,
                        "milliseconds": 1000 * time_,
                        "against_ours": time_ / seconds[-1],
                        "peak_gib": peak / 2**30,
                    }
                )
            del encoders, steps
    _print(rows)
    return {"rows": rows}


def measure_compile(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compiles the encoder, and compares it with itself uncompiled."""
    size, batch_size = (40, 1) if arguments.toy else (96, 8)
    tensor = torch.rand(batch_size, 1, size, size, size, device=arguments.device)
    eager, compiled = (_build("ours", arguments).train() for _ in range(2))
    backend = "aot_eager" if arguments.toy else "inductor"
    compiled.compile(backend=backend, fullgraph=True)
    steps = [
        functools.partial(_run_encoder, encoder, tensor, is_training=True)
        for encoder in (eager, compiled)
    ]
    started = time.perf_counter()
    steps[1]()
    _synchronize()
    compile_seconds = time.perf_counter() - started
    seconds = _interleave(steps, repeats=1 if arguments.toy else 5)
    row = {
        "what": f"forward and backward, {batch_size} x {size}^3",
        "compile_seconds": compile_seconds,
        "eager_milliseconds": 1000 * seconds[0],
        "compiled_milliseconds": 1000 * seconds[1],
        "speed_up": seconds[0] / seconds[1],
    }
    _print([row])
    return row


def measure_step(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures the step of self-distillation in Lightning, with data workers."""
    size = TOY if arguments.toy else FULL
    rows = []
    for checkpointing in (False, True):
        timer = _Timer(warm_up=2 if arguments.toy else 4)
        steps = 4 if arguments.toy else 14
        train = functools.partial(
            _train,
            size,
            arguments,
            steps=steps,
            callbacks=[timer],
            checkpointing=checkpointing,
        )
        peak = _peak(train, arguments)
        step, waiting = statistics.median(timer.steps), statistics.median(timer.waits)
        tera = timer.flops / 1e12
        rows.append(
            {
                "activation_checkpointing": checkpointing,
                "batch": size.batch_size,
                "step_seconds": step,
                "data_wait_seconds": waiting,
                "samples_a_second": size.batch_size / (step + waiting),
                "tflop_a_step": tera,
                "tflops": tera / step,
                "share_of_peak": tera / step / arguments.peak_tflops,
                "peak_gib": peak / 2**30,
            }
        )
    _print(rows)
    return {"rows": rows}


def measure_profile(arguments: argparse.Namespace) -> dict[str, Any]:
    """Sums up where the time of a step goes."""
    size = TOY if arguments.toy else FULL
    activities = [ProfilerActivity.CPU, *([] if arguments.toy else [ProfilerActivity.CUDA])]
    profiler = _Profiled(activities, first=1 if arguments.toy else 4)
    _train(size, arguments, steps=profiler.first + 2, callbacks=[profiler])
    attribute = "self_cpu_time_total" if arguments.toy else "self_device_time_total"
    events = [(event.key, getattr(event, attribute)) for event in profiler.events]
    # kernels are listed beside the operations that launch them: count the operations only
    operations = [(name, spent) for name, spent in events if name.startswith("aten::")]
    total = sum(spent for _, spent in operations)
    kinds: dict[str, float] = {}
    for name, spent in operations:
        kinds[_kind(name)] = kinds.get(_kind(name), 0.0) + spent
    rows = [
        {"kind": kind, "share": spent / total}
        for kind, spent in sorted(kinds.items(), key=lambda item: -item[1])
    ]
    top = sorted(operations, key=lambda item: -item[1])[:25]
    _print(rows)
    _print([{"operation": name, "share": spent / total} for name, spent in top])
    return {"rows": rows, "operations": dict(top), "microseconds": total}


def measure_batch(arguments: argparse.Namespace) -> dict[str, Any]:
    """Finds the largest batch whose step fits, by doubling."""
    size = TOY if arguments.toy else FULL
    fits: dict[str, int] = {}
    for checkpointing in (False, True):
        batch_size = size.batch_size
        while batch_size <= (2 if arguments.toy else 256):
            try:
                _train(
                    size._replace(batch_size=batch_size),
                    arguments,
                    steps=2,
                    checkpointing=checkpointing,
                )
            except torch.OutOfMemoryError:
                break
            finally:
                _empty_cache()
            fits["checkpointed" if checkpointing else "plain"] = batch_size
            batch_size *= 2
    _print([fits])
    return {"fits": fits}


class _Timer(pl.Callback):
    """Times steps and the wait for their batch, and counts the operations of the first step."""

    def __init__(self, *, warm_up: int) -> None:
        self.steps: list[float] = []
        self.waits: list[float] = []
        self.flops = 0
        self._warm_up = warm_up
        self._counter: flop_counter.FlopCounterMode | None = None
        self._started = self._ended = 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, index: int) -> None:
        self._started = time.perf_counter()
        if index >= self._warm_up:
            self.waits.append(self._started - self._ended)
        if index == 0:
            self._counter = flop_counter.FlopCounterMode(display=False)
            self._counter.__enter__()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        _synchronize()
        self._ended = time.perf_counter()
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self.flops = self._counter.get_total_flops()
            self._counter = None
        elif index >= self._warm_up:
            self.steps.append(self._ended - self._started)


class _Profiled(pl.Callback):
    """Profiles two steps after the first ones."""

    def __init__(self, activities: list[ProfilerActivity], *, first: int) -> None:
        self.first = first
        self.events: Any = []
        self._profiler = profile(activities=activities)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, index: int) -> None:
        if index == self.first:
            self._profiler.__enter__()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        if index == self.first + 1:
            _synchronize()
            self._profiler.__exit__(None, None, None)
            self.events = self._profiler.key_averages()


def _train(
    size: Size,
    arguments: argparse.Namespace,
    *,
    steps: int,
    callbacks: list[pl.Callback] | None = None,
    checkpointing: bool = False,
) -> None:
    """Trains for some steps as the recipe does."""
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu" if arguments.toy else "gpu",
        devices=1,
        precision="32-true" if arguments.toy else "bf16-mixed",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    module = Distillation(
        feature_size=size.feature_size,
        num_prototypes=size.num_prototypes,
        freeze_prototypes_steps=0,
        activation_checkpointing=checkpointing,
    )
    data = _in_memory.data_of(
        _scans(size),
        size.sizes,
        (1.5, 1.5, 1.5),
        batch_size=size.batch_size,
        num_workers=0 if arguments.toy else 12,
    )
    trainer.fit(module, datamodule=data)


def _scans(size: Size) -> dict[str, torch.Tensor]:
    """Returns scans of smooth noise, HU."""
    edge = size.sizes.region_size + 16
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn((8, 1, edge // 8, edge // 8, edge // 8), generator=generator)
    fine = nn.functional.interpolate(600.0 * coarse, (edge, edge, edge), mode="trilinear")
    return {str(index): scan.to(torch.int16) for index, scan in enumerate(fine)}


def _build(name: str, arguments: argparse.Namespace) -> nn.Module:
    """Builds an encoder that returns all six maps, on the device."""
    torch.manual_seed(0)
    feature_size = 12 if arguments.toy else 48
    if name in ("ours", "torch's choice"):
        encoder = CoralBayEncoder(feature_size=feature_size, out_indices=6).to(arguments.device)
        return encoder if name == "ours" else _ChoosesKernels(encoder)
    from eva.vision.models.networks.backbones.radiology import SwinUNETREncoder
    from monai.networks.nets import swin_unetr

    encoder = SwinUNETREncoder(feature_size=feature_size, out_indices=6).to(arguments.device)
    for module in encoder.modules():
        if name == "MONAI flash" and isinstance(module, swin_unetr.WindowAttention):
            module.use_flash_attention = True
    return encoder


class _ChoosesKernels(nn.Module):
    """The encoder with whichever attention kernels torch prefers."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tensor: torch.Tensor) -> Any:
        with mock.patch.object(attention, "_GPU_BACKENDS", _EVERY_BACKEND):
            return self.encoder(tensor)


def _run_encoder(encoder: nn.Module, tensor: torch.Tensor, *, is_training: bool) -> None:
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=tensor.is_cuda):
        if not is_training:
            with torch.no_grad():
                encoder(tensor)
            return
        encoder.zero_grad(set_to_none=True)
        value = torch.stack([feature_map.float().mean() for feature_map in encoder(tensor)]).sum()
    value.backward()


def _interleave(steps: list[Callable[[], None]], *, repeats: int) -> list[float]:
    """Returns the median seconds of each step, after two rounds to warm up."""
    seconds: list[list[float]] = [[] for _ in steps]
    for round_ in range(repeats + 2):
        for step, times in zip(steps, seconds, strict=True):
            _synchronize()
            started = time.perf_counter()
            step()
            _synchronize()
            if round_ >= 2:
                times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in seconds]


def _peak(work: Callable[[], None], arguments: argparse.Namespace) -> int:
    return _memory.peak_growth(work) if arguments.toy else _memory.gpu_peak_growth(work)


def _kind(operation: str) -> str:
    name = operation.lower()
    return next(
        (kind for kind, parts in _KINDS if any(part in name for part in parts)),
        "pointwise and other",
    )


def _print(rows: list[dict[str, Any]]) -> None:
    """Prints a table in Markdown."""
    if not rows:
        return
    print(f"| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        cells = (
            f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()
        )
        print(f"| {' | '.join(cells)} |")
    print(flush=True)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _empty_cache() -> None:
    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()
