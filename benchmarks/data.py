"""Compares the data path with eva's: a training item, and the preparation of a scan.

An item is four crops of 96^3 from a scan of 512x512x150 voxels (a phantom, written as .nii.gz),
one thread each as in a data worker. eva's side is its loader and the transforms of its
`btcv.yaml`. Times are interleaved, round by round, and ratios are medians over the rounds; memory
is the growth of a fresh process over what an item of a small scan has loaded before.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded, and in the processes started here

import argparse
import functools
import multiprocessing
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple

import _memory
import numpy as np
import torch
from eva.vision.data import transforms as eva_transforms
from eva.vision.data.datasets.segmentation import _utils as eva_loading
from loguru import logger
from torch.utils import data as torch_data
from torchvision.transforms import v2

from eva_coralbay.data import datasets, phantom, preparation, transforms
from eva_coralbay.data import store as store_lib

_SHAPE, _SPACING_MM = (150, 512, 512), (3.0, 0.8, 0.8)
"""The scan that is measured."""

_SMALL_SHAPE, _SMALL_SPACING_MM = (40, 48, 48), (6.0, 6.0, 6.0)
"""The scan that loads the code."""

_ROI_SIZE = (96, 96, 96)
_NUM_CROPS = 4
_SPACING = (1.5, 1.5, 1.5)
_HU_WINDOW = (-175.0, 250.0)

_ITEMS_A_ROUND = 5
"""How many items are read from the store in a round, so that it takes a measurable time."""

_WORKERS = 2


def _eva_item(
    folder: str, roi_size: tuple[int, int, int]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Loads an item as eva does."""
    image, target = _eva_load(folder)
    return v2.Compose(
        [
            eva_transforms.EnsureChannelFirst(channel_dim=1),
            eva_transforms.Spacing(pixdim=_SPACING),
            eva_transforms.ScaleIntensityRange(input_range=_HU_WINDOW, output_range=(0.0, 1.0)),
            eva_transforms.CropForeground(),
            eva_transforms.SpatialPad(spatial_size=roi_size),
            eva_transforms.RandCropByLabelClasses(
                spatial_size=roi_size, num_samples=_NUM_CROPS, num_classes=len(phantom.CLASSES)
            ),
            eva_transforms.RandFlip(spatial_axes=[0, 1, 2]),
            eva_transforms.RandRotate90(spatial_axes=(1, 2)),
            eva_transforms.RandScaleIntensity(factors=0.1, prob=0.1),
            eva_transforms.RandShiftIntensity(offsets=0.1, prob=0.1),
        ]
    )(image, target)


def _eva_load(folder: str) -> tuple[Any, Any]:
    image, label = _files(folder)
    return eva_loading.load_volume_tensor(image), eva_loading.load_mask_tensor(label, image)


def _eva_prepare(folder: str) -> tuple[Any, Any]:
    """Loads and resamples a scan as eva does, whenever it is used."""
    steps = [eva_transforms.EnsureChannelFirst(channel_dim=1), eva_transforms.Spacing(_SPACING)]
    return v2.Compose(steps)(*_eva_load(folder))


def _item(
    folder: str, name: str, *, roi_size: tuple[int, int, int] = _ROI_SIZE
) -> Callable[[], Any]:
    """Returns what makes an item: "eva", "store" or "no store"."""
    if name == "eva":
        return functools.partial(_eva_item, folder, roi_size)
    transform = transforms.TrainTransform(roi_size=roi_size, num_samples=_NUM_CROPS)
    dataset = datasets.NnUNet(folder, transforms=transform, prepared=name == "store")
    dataset.prepare_data()
    dataset.setup()
    return functools.partial(dataset.__getitem__, 0)


def _files(folder: str) -> tuple[str, str]:
    return (
        os.path.join(folder, "imagesTr", "phantom_000_0000.nii.gz"),
        os.path.join(folder, "labelsTr", "phantom_000.nii.gz"),
    )


def _entry(folder: str) -> str:
    """Returns the file of the prepared scan."""
    return str(next(pathlib.Path(folder, "prepared").glob("*/*.scan")))


def _drop_from_cache(paths: tuple[str, ...]) -> None:
    """Lets the system forget what it has read of files."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


class _Seconds(NamedTuple):
    """How long some work takes."""

    wall: float
    cpu: float
    """Of the processor alone, which other processes disturb less."""


def _seconds(work: Callable[[], object], *, times: int = 1) -> _Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        work()
    return _Seconds((time.perf_counter() - wall) / times, (time.process_time() - cpu) / times)


def _bytes_read(work: Callable[[], object]) -> tuple[int, int]:
    """Returns how many bytes some work asks for, and how many come from the disk."""

    def counters() -> tuple[int, int]:
        lines = pathlib.Path("/proc/self/io").read_text().splitlines()
        values = {name: int(value) for name, value in (line.split(": ") for line in lines)}
        return values["rchar"], values["read_bytes"]

    before = counters()
    work()
    asked, fetched = (after - b for after, b in zip(counters(), before, strict=True))
    return asked, fetched


def _time_items(folder: str, rounds: int) -> dict[str, list[_Seconds]]:
    """Times items round by round, with warm and with cold files."""
    items = {name: _item(folder, name) for name in ("eva", "no store", "store")}
    cold_files = {"eva": _files(folder), "no store": _files(folder), "store": (_entry(folder),)}
    seconds: dict[str, list[_Seconds]] = {}
    for round_ in range(rounds + 1):
        for name, item in items.items():
            warm = _seconds(item, times=_ITEMS_A_ROUND if name == "store" else 1)
            _drop_from_cache(cold_files[name])
            cold = _seconds(item)
            if round_ > 0:  # the first one warms up
                seconds.setdefault(name, []).append(warm)
                seconds.setdefault(f"{name}, cold", []).append(cold)
    return seconds


def _load(folder: str) -> tuple[Any, Any]:
    dataset = datasets.NnUNet(folder)
    dataset.setup()
    return dataset.load_data(0), dataset.load_target(0)


def _prepare(
    folder: str, root: str, *, body_above: float = _HU_WINDOW[0]
) -> preparation.PreparedScan:
    """Prepares a scan, reads and writes included, and opens it."""
    store = store_lib.PreparedStore(
        root, name="phantom", preparation=preparation.Preparation(_SPACING, body_above)
    )
    source = store_lib.Source("phantom_000", _files(folder), functools.partial(_load, folder))
    store.prepare([source])
    return store.open(source)


def _time_preparation(folder: str, rounds: int) -> dict[str, list[_Seconds]]:
    """Times the preparation of a scan against what eva repeats for every item."""
    seconds: dict[str, list[_Seconds]] = {"eva": [], "ours": []}
    for _ in range(rounds):
        seconds["eva"].append(_seconds(lambda: _eva_prepare(folder)))
        with tempfile.TemporaryDirectory(dir=folder) as root:
            seconds["ours"].append(_seconds(functools.partial(_prepare, folder, root)))
    return seconds


def _differences(folder: str) -> tuple[float, int]:
    """Returns the largest difference in HU and the number of other labels to eva's `Spacing`."""
    with tempfile.TemporaryDirectory(dir=folder) as root:
        scan = _prepare(folder, root, body_above=-np.inf)
        image, mask = (tensor.as_subclass(torch.Tensor) for tensor in _eva_prepare(folder))
        difference = (scan.read_image(scan.whole) - image).abs().max()
        return float(difference), int((scan.read_mask(scan.whole) != mask).sum())


def _extra_memory(folder: str, small_folder: str, name: str) -> int:
    """Returns by how many bytes a process grows for an item."""
    torch.set_num_threads(1)
    _item(small_folder, name, roi_size=(16, 16, 16))()
    return _memory.peak_growth(_item(folder, name))


def _in_fresh_process(work: Callable[..., Any], *arguments: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()


def _items_a_second(folder: str, name: str, *, items: int) -> float:
    """Returns how many items data workers deliver, their start included."""
    loader = torch_data.DataLoader(
        _Repeated(_item(folder, name), items), batch_size=None, num_workers=_WORKERS
    )
    started = time.perf_counter()
    for _ in loader:
        pass
    return items / (time.perf_counter() - started)


class _Repeated(torch_data.Dataset[Any]):
    """A data set that makes the same item again and again."""

    def __init__(self, item: Callable[[], Any], length: int) -> None:
        self._item = item
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return self._item()


def _medians(seconds: list[_Seconds]) -> _Seconds:
    return _Seconds(*(statistics.median(values) for values in zip(*seconds, strict=True)))


def _ratios(reference: list[_Seconds], ours: list[_Seconds]) -> str:
    """Returns how many times as long the reference takes, by both clocks."""
    ratios = [
        _Seconds(a.wall / b.wall, a.cpu / b.cpu) for a, b in zip(reference, ours, strict=True)
    ]
    return "{:.1f}x | {:.1f}x".format(*_medians(ratios))


def _write_phantoms(folder: str) -> tuple[str, str]:
    """Writes the scans that are not there yet, and returns their folders."""
    large, small = os.path.join(folder, "large"), os.path.join(folder, "small")
    for out, shape, spacing_mm in (
        (large, _SHAPE, _SPACING_MM),
        (small, _SMALL_SHAPE, _SMALL_SPACING_MM),
    ):
        phantom.write_dataset(out, cases=1, val_cases=0, shape=shape, spacing_mm=spacing_mm)
    return large, small


def _report(folder: str, rounds: int) -> None:
    large, small = _write_phantoms(folder)
    items = _time_items(large, rounds)
    preparation = _time_preparation(large, rounds)
    memory = {
        name: _in_fresh_process(_extra_memory, large, small, name)
        for name in ("eva", "no store", "store")
    }
    rate = {
        name: _items_a_second(large, name, items=number)
        for name, number in (("eva", 3 * _WORKERS), ("store", 100 * _WORKERS))
    }
    print(
        "| | warm (s) | of the processor (s) | cold (s) | extra memory (GiB) | eva / it | by the "
        "processor |\n|---|---|---|---|---|---|---|"
    )
    for name in ("eva", "no store", "store"):
        warm, cold = _medians(items[name]), _medians(items[f"{name}, cold"])
        print(
            f"| item: {name} | {warm.wall:.3f} | {warm.cpu:.3f} | {cold.wall:.3f} | "
            f"{memory[name] / 2**30:.3f} | {_ratios(items['eva'], items[name])} |"
        )
    for name in ("eva", "ours"):
        once = _medians(preparation[name])
        print(
            f"| preparation: {name} | {once.wall:.2f} | {once.cpu:.2f} | | | "
            f"{_ratios(preparation['eva'], preparation[name])} |"
        )
    print("\npreparation: eva loads and resamples, ours also crops, compresses and writes")
    print(
        f"items a second with {_WORKERS} workers: eva {rate['eva']:.2f}, store {rate['store']:.1f}"
    )
    _drop_from_cache((_entry(large),))
    asked, fetched = (size / _NUM_CROPS / 2**20 for size in _bytes_read(_item(large, "store")))
    print(f"read for a crop: {asked:.2f} MiB, from the disk when cold {fetched:.2f} MiB")
    with tempfile.TemporaryDirectory(dir=large) as root:
        shape = _prepare(large, root).grid.shape
    sizes = [pathlib.Path(path).stat().st_size / 1e6 for path in (_entry(large), *_files(large))]
    raw = 3 * np.prod(shape) / 1e6
    print(
        f"disk of the prepared scan {'x'.join(map(str, shape))}: {sizes[0]:.1f} MB, "
        f"{raw:.1f} MB as plain int16 and uint8; its .nii.gz files {sum(sizes[1:]):.1f} MB"
    )
    hounsfield, labels = _differences(large)
    print(f"largest difference to eva: {hounsfield:.3f} HU, {labels} labels")


def main() -> None:
    """Runs the benchmark and prints a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the interleaved timing")
    parser.add_argument("--data", help="folder that keeps the phantoms (a temporary one if none)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logger.remove()

    print(f"one thread, torch {torch.__version__}, {arguments.rounds} interleaved rounds\n")
    if arguments.data:
        _report(arguments.data, arguments.rounds)
    else:
        with tempfile.TemporaryDirectory() as folder:
            _report(folder, arguments.rounds)


if __name__ == "__main__":
    main()
