"""Compares the pre-training with what its users would write with MONAI and lightly.

data: samples a second of the data path alone, with two workers of one thread each. A sample is a
region of a scan and its views, two global and some local ones. MONAI's side is a PersistentDataset
which caches the resampled scans, and its random transforms; ours are the prepared store, and the
views rendered from the region. The same phantoms are read by both, and their files are cached by
the system. In a training our views are rendered in the main process, on the accelerator where there
is one, so reading the regions is measured alone too.

    What differs: MONAI's crops are not cubes, its rotations lie in one plane, its windows are drawn
    from a list and none is drawn again, and it smooths with a larger kernel but never sharpens.

step: time, operations and peak memory of a step of self-distillation, from the batch of the data
path to the new weights of student and teacher, at a toy size on a CPU and at that of the recipe on
a GPU. The other side is a plain loop with eva's `SwinUNETREncoder`, which has MONAI's attention,
and lightly's head and loss. Both render the same views, pass those of one size through the encoder
as one batch and use AdamW in full precision, without drop-path. Ours runs in Lightning, whose
overhead counts.

    What differs: under autocast, on a GPU, our head and loss compute in float32.

All times are interleaved: in each round every side is measured, and ratios are medians over rounds.
"""

import argparse
import contextlib
import functools
import logging
import multiprocessing
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import _machine
import _memory
import _monai_side
import _training_steps
import torch
from lightning import pytorch as pl
from loguru import logger
from torch.utils import data as torch_data

from eva_coralbay import _notices
from eva_coralbay.data import phantom
from eva_coralbay.pretraining import PretrainingData, views
from eva_coralbay.pretraining.intake import prepare as prepare_lib

_SIZES: dict[str, tuple[str, int | None, int, int]] = {
    "region_size": ("edge of a region in voxels", 144, 144, 144),
    "global_size": ("edge of a global view in voxels", 96, 48, 96),
    "local_size": ("edge of a local view in voxels", 48, 36, 48),
    "num_locals": ("local views of a sample", 8, 8, 8),
    "batch_size": ("samples of a batch", 1, 2, 8),
    "feature_size": ("channels of the encoders' finest map", None, 12, 48),
    "prototypes": ("prototypes of the heads", None, 1024, 16384),
}
"""What the sizes are unless said otherwise: of the data, of a step on a CPU and on a GPU."""

_EXAMPLES = """examples:
  python benchmarks/pretraining.py data
  python benchmarks/pretraining.py data --cases 1 --shape 40 64 64 --spacing 5 4 4 --seconds 1
  python benchmarks/pretraining.py step --threads 2
  python benchmarks/pretraining.py step --device cuda --peak-tflops 989
"""


class _Rendered(torch_data.IterableDataset[Any]):
    """Batches whose views are rendered where they are read."""

    def __init__(
        self, batches: torch_data.Dataset[_training_steps.Batch], sizes: views.Views
    ) -> None:
        self._batches = batches
        self._sizes = sizes

    def __iter__(self) -> Iterator[Any]:
        return (_training_steps.render(batch, self._sizes) for batch in self._batches)  # type: ignore[reportGeneralTypeIssues]  # the loader yields dictionaries


def _our_loader(
    store: str, sizes: views.Views, batch_size: int
) -> torch_data.DataLoader[_training_steps.Batch]:
    """Returns the loader of a training, which yields regions and what the views are."""
    data = PretrainingData(
        store=store, views=sizes, batch_size=batch_size, num_workers=_monai_side.WORKERS
    )
    data.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    return data.train_dataloader()


def _render_in_workers(
    loader: torch_data.DataLoader[_training_steps.Batch], sizes: views.Views
) -> Iterator[Any]:
    return iter(
        torch_data.DataLoader(
            _Rendered(loader.dataset, sizes),
            batch_size=None,
            num_workers=_monai_side.WORKERS,
            worker_init_fn=loader.worker_init_fn,
        )
    )


def _samples_a_second(
    start: Callable[[], Iterator[Any]], *, batch_size: int, seconds: float
) -> float:
    """Returns how many samples a loader yields once its workers have started."""
    batches = start()
    for _ in range(_monai_side.WORKERS):
        next(batches)
    started, count = time.perf_counter(), 0
    # the workers are served in turn
    while count % _monai_side.WORKERS or count == 0 or time.perf_counter() - started < seconds:
        next(batches)
        count += 1
    return count * batch_size / (time.perf_counter() - started)


def _write_store(folder: str, **size: Any) -> tuple[list[str], str]:
    """Writes phantoms and prepares them; returns the scans' files and the store."""
    source, store = os.path.join(folder, "phantoms"), os.path.join(folder, "store")
    phantom.write_dataset(source, val_cases=0, **size)
    with contextlib.redirect_stdout(sys.stderr):
        prepare_lib.prepare([source], store, spacing=_monai_side.SPACING, workers=1)
    return [str(path) for path in sorted(pathlib.Path(source).glob("imagesTr/*"))], store


def _compare_data(arguments: argparse.Namespace, folder: str) -> None:
    """Prints samples a second of both data paths."""
    paths, store = _write_store(
        folder,
        cases=arguments.cases,
        shape=tuple(arguments.shape),
        spacing_mm=tuple(arguments.spacing),
    )
    sizes, batch_size = _sizes(arguments), arguments.batch_size
    ours = _our_loader(store, sizes, batch_size)
    monai_regions, monai_views = (
        _monai_side.loader(
            paths, os.path.join(folder, "cache"), sizes, batch_size=batch_size, renders=renders
        )
        for renders in (False, True)
    )
    for index in range(len(paths)):
        monai_regions.dataset[index]
    starts: dict[str, Callable[[], Iterator[Any]]] = {
        "regions: MONAI": monai_regions.__iter__,
        "regions: ours": ours.__iter__,
        "views: MONAI": monai_views.__iter__,
        "views: ours": functools.partial(_render_in_workers, ours, sizes),
    }
    rates: dict[str, list[float]] = {name: [] for name in starts}
    for _ in range(arguments.rounds):
        for name, start in starts.items():
            rate = _samples_a_second(start, batch_size=batch_size, seconds=arguments.seconds)
            rates[name].append(rate)
    _print_data(arguments, rates)


def _print_data(arguments: argparse.Namespace, rates: dict[str, list[float]]) -> None:
    print(
        f"{_machine.processor()}, torch {torch.__version__}; {_monai_side.WORKERS} workers and the "
        f"main process with one thread each, {_describe(_sizes(arguments))}, "
        f"{'x'.join(map(str, arguments.shape))} voxels a scan, batches of {arguments.batch_size}, "
        f"medians of {arguments.rounds} interleaved rounds of {arguments.seconds:g} s\n"
    )
    print("| | samples a second | against MONAI |\n|---|---|---|")
    for name, values in rates.items():
        ratio = _median_ratio(values, rates[f"{name.split(':')[0]}: MONAI"])
        print(f"| {name} | {statistics.median(values):.2f} | {ratio:.1f}x |")


_TRAININGS: dict[str, Callable[..., None]] = {
    "plain": _training_steps.train_plain,
    "ours": _training_steps.train_ours,
}


def _peak_bytes(name: str, step: _training_steps.Step, threads: int) -> int:
    """Returns by how many bytes a training grows, its networks and optimizer included."""
    _begin(threads)
    train = _TRAININGS[name]
    smallest = views.Views(global_size=33, local_size=33, num_locals=1)
    # the first training loads code, which is not memory of the method
    train(step._replace(sizes=smallest, batch_size=1, feature_size=12), steps=1)
    work = functools.partial(train, step, steps=_training_steps.WARM_UP_STEPS)
    return (
        _memory.gpu_peak_growth(work)
        if _training_steps.is_on_gpu(step)
        else _memory.peak_growth(work)
    )


def _in_fresh_process(work: Callable[..., int], *arguments: Any) -> int:
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()


def _compare_steps(arguments: argparse.Namespace, folder: str) -> None:
    """Prints time, memory and speed of a step on both sides."""
    _, store = _write_store(folder, cases=1)
    step = _training_steps.Step(
        store,
        _sizes(arguments),
        arguments.batch_size,
        arguments.feature_size,
        arguments.prototypes,
        arguments.device,
    )
    memory = {
        name: _in_fresh_process(_peak_bytes, name, step, arguments.threads) for name in _TRAININGS
    }
    torch.set_num_threads(arguments.threads)
    timed = _training_steps.Interleaved(_training_steps.PlainDino(step))
    _training_steps.train_ours(
        step, steps=_training_steps.WARM_UP_STEPS + arguments.rounds, callbacks=[timed]
    )
    _print_steps(arguments, timed, memory)


def _print_steps(
    arguments: argparse.Namespace, timed: _training_steps.Interleaved, memory: dict[str, int]
) -> None:
    is_gpu = arguments.device == "cuda"
    machine = (
        f"{torch.cuda.get_device_name()}, bf16 autocast"
        if is_gpu
        else f"{_machine.processor()}, {arguments.threads} threads, fp32"
    )
    print(
        f"{machine}, torch {torch.__version__}; feature_size {arguments.feature_size}, "
        f"{arguments.prototypes} prototypes, batches of {arguments.batch_size}, "
        f"{_describe(_sizes(arguments))}, {arguments.rounds} interleaved rounds\n"
    )
    peak = arguments.peak_tflops
    print(
        "| | step (s) | peak memory (GiB) | TFLOP a step | TFLOP/s |"
        f"{f' share of {peak:g} TFLOP/s |' if peak else ''}\n|---|---|---|---|---|"
        f"{'---|' if peak else ''}"
    )
    for name, title in (("plain", "plain DINO, MONAI's encoder"), ("ours", "Distillation")):
        seconds, tera = statistics.median(timed.seconds[name]), timed.flops[name] / 1e12
        print(
            f"| {title} | {seconds:.3g} | {memory[name] / 2**30:.3g} | {tera:.3g} | "
            f"{tera / seconds:.3g} |{f' {tera / seconds / peak:.1%} |' if peak else ''}"
        )
    ratio = _median_ratio(timed.seconds["plain"], timed.seconds["ours"])
    print(
        f"\nours is {ratio:.2f}x as fast (median of the ratios of the rounds), with "
        f"{memory['ours'] / memory['plain']:.2f}x the memory"
    )


def _median_ratio(values: Sequence[float], reference: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(values, reference, strict=True))


def _sizes(arguments: argparse.Namespace) -> views.Views:
    """Returns the views, their edges in the same relation to the region as by default."""
    region_size = arguments.region_size
    return views.Views(
        global_size=arguments.global_size,
        local_size=arguments.local_size,
        num_locals=arguments.num_locals,
        global_edge=(region_size * 2 // 3, region_size),
        local_edge=(region_size * 5 // 18, region_size // 2),
        region_size=region_size,
    )


def _describe(sizes: views.Views) -> str:
    return (
        f"{views.NUM_GLOBALS} views of {sizes.global_size}^3 and {sizes.num_locals} of "
        f"{sizes.local_size}^3 from a region of {sizes.region_size}^3"
    )


def _begin(threads: int) -> None:
    """Sets the threads, and keeps the libraries quiet."""
    torch.set_num_threads(threads)
    _notices.silence()
    logger.remove()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the paragraphs of the description, and states the defaults."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=_HelpFormatter
    )
    parts = parser.add_subparsers(dest="part", metavar="{data,step}", required=True)
    data = parts.add_parser("data", formatter_class=_HelpFormatter, help="the data path")
    data.set_defaults(compare=_compare_data)
    data.add_argument("--cases", type=int, default=2, help="phantoms")
    data.add_argument("--shape", type=int, nargs=3, default=(150, 512, 512), help="D H W")
    data.add_argument("--spacing", type=float, nargs=3, default=(3.0, 0.8, 0.8), help="D H W, mm")
    data.add_argument("--seconds", type=float, default=6.0, help="of a measurement, at least")
    data.add_argument("--rounds", type=int, default=3, help="interleaved rounds")
    for name, (text, size, _, _) in _SIZES.items():
        if size is not None:
            data.add_argument(_flag(name), type=int, default=size, help=text)
    step = parts.add_parser("step", formatter_class=_HelpFormatter, help="a step of training")
    step.set_defaults(compare=_compare_steps)
    step.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the networks")
    step.add_argument("--threads", type=int, default=2, help="threads of torch")
    step.add_argument("--peak-tflops", type=float, help="what the device reaches at best, TFLOP/s")
    step.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    for name, (text, _, toy, full) in _SIZES.items():
        text = f"{text} (default: {toy}, with --device cuda {full})"
        step.add_argument(_flag(name), type=int, default=argparse.SUPPRESS, help=text)
    return parser


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _parse() -> argparse.Namespace:
    """Returns the arguments, with the sizes of a step that depend on its device."""
    arguments = _parser().parse_args()
    if arguments.part == "data":
        return arguments
    index = 3 if arguments.device == "cuda" else 2
    sizes = {name: values[index] for name, values in _SIZES.items()}
    return argparse.Namespace(**sizes | vars(arguments))


def main() -> None:
    """Runs a comparison and prints a table in Markdown."""
    arguments = _parse()
    _begin(threads=1)
    with tempfile.TemporaryDirectory() as folder:
        arguments.compare(arguments, folder)


if __name__ == "__main__":
    main()
