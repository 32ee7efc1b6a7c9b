"""Compares the pre-training with what its users would write with MONAI and lightly.

data: samples a second of the data path alone, with two workers of one thread each. A sample is a
region of a scan and its views, two global and some local ones. MONAI's side is a PersistentDataset
which caches the resampled scans, and its random transforms; ours are the prepared store, and the
views rendered from the region. The same phantoms are read by both, and their files are cached by
the system. In a training our views are rendered in the main process, on the accelerator where there
is one, so reading the regions is measured alone too.

    What differs: MONAI's crops are no cubes, its rotations lie in one plane, its windows are drawn
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
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import _machine
import _memory
import torch
from eva.vision.models.networks.backbones.radiology import SwinUNETREncoder
from lightly import loss as lightly_loss
from lightly.models import modules as lightly_modules
from lightly.models import utils as lightly_utils
from lightning import pytorch as pl
from lightning.fabric import utilities as fabric_utilities
from loguru import logger
from monai import data as monai_data
from monai import transforms as monai_transforms
from torch import nn, optim
from torch.utils import data as torch_data
from torch.utils import flop_counter

from eva_coralbay.data import phantom
from eva_coralbay.pretraining import Distillation, PretrainingData, views
from eva_coralbay.pretraining.intake import prepare as prepare_lib

_WORKERS = 2
"""The data workers of both sides."""

_SPACING = (1.5, 1.5, 1.5)
_AIR = -1024.0
"""The HU around a scan that is smaller than a region."""

_BODY_ABOVE = -500.0
"""The HU above which both sides keep a scan."""

_WINDOWS = ((-1000, 1000), (-1350, 150), (-160, 240), (-40, 160), (-500, 1300), (-125, 225))
"""The HU windows (lower, upper) that MONAI's side chooses from."""

_ENDLESS = 10**9
"""More samples than are drawn."""

_WARM_UP_STEPS = 2
"""How many steps are not timed; the operations of the first one are counted."""

_EMBEDDING_FACTOR = 24
"""How many times its feature size the embedding of eva's encoder is wide."""

_HEAD_DIMS = (2048, 2048, 256)
"""The widths of the hidden layers and of the bottleneck of both heads."""

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

_CLIP_NORM = 3.0
_MOMENTUM = 0.996

_Batch = dict[str, Any]


class _Step(NamedTuple):
    """What is trained in a step."""

    store: str
    sizes: views.Views
    batch_size: int
    feature_size: int
    num_prototypes: int
    device: str


def _render(batch: _Batch, sizes: views.Views) -> tuple[torch.Tensor, torch.Tensor]:
    """Renders the views, global and local ones, each of shape [B, V, 1, G, G, G]."""
    return (
        views.render(batch["hu"], batch["globals"], size=sizes.global_size),
        views.render(batch["hu"], batch["locals"], size=sizes.local_size),
    )


class _Rendered(torch_data.IterableDataset[Any]):
    """Batches whose views are rendered where they are read."""

    def __init__(self, batches: torch_data.Dataset[_Batch], sizes: views.Views) -> None:
        self._batches = batches
        self._sizes = sizes

    def __iter__(self) -> Iterator[Any]:
        return (_render(batch, self._sizes) for batch in self._batches)  # type: ignore[reportGeneralTypeIssues]  # the loader yields dictionaries


def _our_loader(store: str, sizes: views.Views, batch_size: int) -> torch_data.DataLoader[_Batch]:
    """Returns the loader of a training, which yields regions and what the views are."""
    data = PretrainingData(store=store, views=sizes, batch_size=batch_size, num_workers=_WORKERS)
    data.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    return data.train_dataloader()


def _render_in_workers(loader: torch_data.DataLoader[_Batch], sizes: views.Views) -> Iterator[Any]:
    return iter(
        torch_data.DataLoader(
            _Rendered(loader.dataset, sizes),
            batch_size=None,
            num_workers=_WORKERS,
            worker_init_fn=loader.worker_init_fn,
        )
    )


class _MultiCrop(monai_transforms.Randomizable, monai_transforms.Transform):
    """Makes the views of a region with MONAI's transforms."""

    def __init__(self, sizes: views.Views) -> None:
        self._num_locals = sizes.num_locals
        self._global: Any = _view_transform(sizes.global_edge, sizes.global_size)
        self._local: Any = _view_transform(sizes.local_edge, sizes.local_size)

    def set_random_state(self, seed: int | None = None, state: Any = None) -> "_MultiCrop":
        super().set_random_state(seed, state)
        self._global.set_random_state(state=self.R)
        self._local.set_random_state(state=self.R)
        return self

    def __call__(self, data: _Batch) -> dict[str, torch.Tensor]:
        region = data["image"]
        return {
            "globals": torch.stack([self._global(region) for _ in range(views.NUM_GLOBALS)]),
            "locals": torch.stack([self._local(region) for _ in range(self._num_locals)]),
        }


def _view_transform(edges: tuple[int, int], size: int) -> monai_transforms.Compose:
    """Returns what makes a view of a region [1, R, R, R]."""
    windows = [
        monai_transforms.ScaleIntensityRange(lower, upper, 0.0, 1.0, clip=True)
        for lower, upper in _WINDOWS
    ]
    sigma = (0.25, 1.0)
    return monai_transforms.Compose(
        [
            monai_transforms.RandSpatialCrop(edges[0], max_roi_size=edges[1], random_size=True),
            monai_transforms.Resize((size, size, size), mode="trilinear"),
            *(monai_transforms.RandFlip(prob=0.5, spatial_axis=axis) for axis in range(3)),
            monai_transforms.RandRotate90(prob=0.3, spatial_axes=(1, 2)),
            monai_transforms.OneOf(windows),
            monai_transforms.RandAdjustContrast(prob=0.3, gamma=(0.5, 2.0)),
            monai_transforms.RandGaussianSmooth(
                sigma_x=sigma, sigma_y=sigma, sigma_z=sigma, prob=0.3
            ),
            monai_transforms.RandGaussianNoise(prob=0.3, std=0.05),
        ]
    )


def _monai_loader(
    paths: Sequence[str], cache: str, sizes: views.Views, *, batch_size: int, renders: bool
) -> monai_data.DataLoader:
    """Returns a loader that yields regions or, if it renders, the views of them."""
    keys, region = ["image"], (sizes.region_size,) * 3
    transform = monai_transforms.Compose(
        [
            monai_transforms.LoadImaged(keys),
            monai_transforms.EnsureChannelFirstd(keys),
            monai_transforms.Orientationd(keys, axcodes="RAS"),
            monai_transforms.Spacingd(keys, pixdim=_SPACING, mode="bilinear"),
            monai_transforms.CropForegroundd(keys, source_key="image", select_fn=_is_body),
            monai_transforms.SpatialPadd(keys, spatial_size=region, value=_AIR),
            # what is above is cached
            monai_transforms.RandSpatialCropd(keys, roi_size=region, random_size=False),
            *([_MultiCrop(sizes)] if renders else []),
        ]
    )
    dataset = monai_data.PersistentDataset([{"image": path} for path in paths], transform, cache)
    sampler = torch_data.RandomSampler(dataset, replacement=True, num_samples=_ENDLESS)
    return monai_data.DataLoader(
        dataset, num_workers=_WORKERS, batch_size=batch_size, sampler=sampler
    )


def _is_body(hounsfield: torch.Tensor) -> torch.Tensor:
    return hounsfield > _BODY_ABOVE


def _samples_a_second(
    start: Callable[[], Iterator[Any]], *, batch_size: int, seconds: float
) -> float:
    """Returns how many samples a loader yields once its workers have started."""
    batches = start()
    for _ in range(_WORKERS):
        next(batches)
    started, count = time.perf_counter(), 0
    # the workers are served in turn
    while count % _WORKERS or count == 0 or time.perf_counter() - started < seconds:
        next(batches)
        count += 1
    return count * batch_size / (time.perf_counter() - started)


def _write_store(folder: str, **size: Any) -> tuple[list[str], str]:
    """Writes phantoms and prepares them; returns the scans' files and the store."""
    source, store = os.path.join(folder, "phantoms"), os.path.join(folder, "store")
    phantom.write_dataset(source, val_cases=0, **size)
    with contextlib.redirect_stdout(sys.stderr):
        prepare_lib.prepare([source], store, spacing=_SPACING, workers=1)
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
        _monai_loader(
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
        f"{_machine.processor()}, torch {torch.__version__}; {_WORKERS} workers and the main "
        f"process with one thread each, {_describe(_sizes(arguments))}, "
        f"{'x'.join(map(str, arguments.shape))} voxels a scan, batches of {arguments.batch_size}, "
        f"medians of {arguments.rounds} interleaved rounds of {arguments.seconds:g} s\n"
    )
    print("| | samples a second | against MONAI |\n|---|---|---|")
    for name, values in rates.items():
        ratio = _median_ratio(values, rates[f"{name.split(':')[0]}: MONAI"])
        print(f"| {name} | {statistics.median(values):.2f} | {ratio:.1f}x |")


class _PlainDino:
    """A step of DINO with eva's encoder, as lightly's examples write it."""

    def __init__(self, step: _Step) -> None:
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

    def run(self, batch: _Batch) -> None:
        """Does a step."""
        rendered = _render(batch, self._step.sizes)
        global_views, local_views = (tensor.transpose(0, 1).flatten(0, 1) for tensor in rendered)
        with torch.autocast(
            self._step.device, dtype=torch.bfloat16, enabled=_is_on_gpu(self._step)
        ):
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


class _Interleaved(pl.Callback):
    """Times the steps of a training, and one of the plain loop after each, on the same batch."""

    def __init__(self, plain: _PlainDino) -> None:
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
        if index >= _WARM_UP_STEPS:
            self.seconds[name].append(time.perf_counter() - started)


def _is_on_gpu(step: _Step) -> bool:
    return step.device == "cuda"


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _data_of(step: _Step) -> PretrainingData:
    """Returns the data of a training, which are read between two steps."""
    return PretrainingData(
        store=step.store, views=step.sizes, batch_size=step.batch_size, num_workers=0
    )


def _train_ours(step: _Step, *, steps: int, callbacks: list[pl.Callback] | None = None) -> None:
    """Trains for some steps."""
    is_gpu = _is_on_gpu(step)
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


def _train_plain(step: _Step, *, steps: int) -> None:
    """Does the same with the plain loop."""
    batch = _data_of(step).probe_batch(step.batch_size)
    moved = fabric_utilities.move_data_to_device(batch, torch.device(step.device))
    plain = _PlainDino(step)
    for _ in range(steps):
        plain.run(moved)


_TRAININGS: dict[str, Callable[..., None]] = {"plain": _train_plain, "ours": _train_ours}


def _peak_bytes(name: str, step: _Step, threads: int) -> int:
    """Returns by how many bytes a training grows, its networks and optimizer included."""
    _begin(threads)
    train = _TRAININGS[name]
    smallest = views.Views(global_size=33, local_size=33, num_locals=1)
    # the first training loads code, which is no memory of the method
    train(step._replace(sizes=smallest, batch_size=1, feature_size=12), steps=1)
    work = functools.partial(train, step, steps=_WARM_UP_STEPS)
    return _memory.gpu_peak_growth(work) if _is_on_gpu(step) else _memory.peak_growth(work)


def _in_fresh_process(work: Callable[..., int], *arguments: Any) -> int:
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()


def _compare_steps(arguments: argparse.Namespace, folder: str) -> None:
    """Prints time, memory and speed of a step on both sides."""
    _, store = _write_store(folder, cases=1)
    step = _Step(
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
    timed = _Interleaved(_PlainDino(step))
    _train_ours(step, steps=_WARM_UP_STEPS + arguments.rounds, callbacks=[timed])
    _print_steps(arguments, timed, memory)


def _print_steps(
    arguments: argparse.Namespace, timed: _Interleaved, memory: dict[str, int]
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
    logger.remove()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning|monai|torch")


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
