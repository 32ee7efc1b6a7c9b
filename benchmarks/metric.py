"""Compares the case-wise Dice with eva's two Dice metrics, from logits to values.

eva's side is what its `btcv.yaml` configures: one-hot predictions and targets, torchmetrics'
`DiceScore` and MONAI's Dice by class. Times are interleaved, round by round, on one copy of the
data; memory is the growth of a fresh process over its inputs.

Then all metrics of a case on its own grid (Dice, surfaces, lesions) for a prediction that is near
the truth, and for one with specks all over the scan, in seconds of one core.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent import futures

import _memory
import numpy as np
import numpy.typing as npt
import torch
import torchmetrics
from eva.core.models.modules.utils import batch_postprocess
from eva.core.models.transforms import as_discrete
from eva.vision import metrics as eva_metrics
from torchmetrics import segmentation

from eva_coralbay.evaluation import label_maps, metrics, native_grid


def _inputs(size: tuple[int, int, int], n_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns logits [1, C, D, H, W] that favor the labels [1, 1, D, H, W], and the labels."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(n_classes, (1, 1, *size), generator=generator)
    logits = torch.randn(1, n_classes, *size, generator=generator)
    logits.scatter_add_(1, target, torch.ones(1, 1, 1, 1, 1).expand(target.shape))
    return logits, target


def _eva(logits: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    """Computes eva's two metrics."""
    n_classes = logits.shape[1]
    mean = segmentation.DiceScore(
        num_classes=n_classes, include_background=False, average="macro", input_format="one-hot"
    )
    by_class = eva_metrics.MonaiDiceScore(
        num_classes=n_classes, include_background=True, input_format="one-hot", reduction="none"
    )
    collection = torchmetrics.MetricCollection([mean, by_class])
    postprocess = batch_postprocess.BatchPostProcess(
        predictions_transforms=[as_discrete.AsDiscrete(argmax=True, to_onehot=n_classes)],
        targets_transforms=[as_discrete.AsDiscrete(to_onehot=n_classes)],
    )
    outputs = {"predictions": logits, "targets": target}
    postprocess(outputs)  # type: ignore[reportArgumentType]  # a dict is what eva passes
    collection.update(outputs["predictions"], outputs["targets"])
    values = collection.compute()
    # eva wraps it in a ClasswiseWrapper, which names the values but fails on a single case
    dice = values["MonaiDiceScore"].flatten().tolist()
    named = zip(_class_names(n_classes), dice, strict=True)
    return {"dice": float(values["DiceScore"])} | {f"dice_{name}": value for name, value in named}


def _ours(logits: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    """Computes the case-wise metric."""
    metric = metrics.CaseSegmentation(_class_names(logits.shape[1]))
    metric.update(label_maps.argmax_labels(logits), target)
    return metric.means


_METHODS: dict[str, Callable[[torch.Tensor, torch.Tensor], dict[str, float]]] = {
    "eva": _eva,
    "CaseSegmentation": _ours,
}
"""What is compared."""


def _class_names(n_classes: int) -> list[str]:
    return [str(label) for label in range(n_classes)]


def _extra_memory(method: str, size: tuple[int, int, int], n_classes: int, threads: int) -> int:
    """Returns by how many bytes the process grows while a method runs."""
    torch.set_num_threads(threads)
    # the first call loads code, which is not memory of the method
    _METHODS[method](*_inputs((4, 4, 4), n_classes))
    inputs = _inputs(size, n_classes)
    return _memory.peak_growth(lambda: _METHODS[method](*inputs))


def _in_fresh_process(method: str, size: tuple[int, int, int], n_classes: int, threads: int) -> int:
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_extra_memory, method, size, n_classes, threads).result()


def _organs(size: tuple[int, int, int], n_classes: int) -> npt.NDArray[np.uint8]:
    """Returns a label map with an ellipsoid of 8 to 60 voxels radius for each class."""
    rng = np.random.default_rng(0)
    labels = np.zeros(size, dtype=np.uint8)
    axes = np.ogrid[tuple(slice(0, length) for length in size)]
    for label in range(1, n_classes):
        center = rng.uniform(0.2, 0.8, size=3) * size
        radii = rng.uniform(8, 60 if label < 5 else 25, size=3)
        distance = sum(((a - c) / r) ** 2 for a, c, r in zip(axes, center, radii, strict=True))
        labels[distance < 1] = label
    return labels


def _score_native(
    prediction: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], n_classes: int
) -> None:
    names = _class_names(n_classes)
    metric = metrics.CaseSegmentation(names, lesion_classes=names[-1:])
    maps = [torch.from_numpy(labels) for labels in (prediction, truth)]
    native = native_grid.NativeCase(maps[0], maps[1], (1.5, 1.5, 1.5))
    metric.update(maps[0][None], maps[1][None], {"case": ["a"], "native": [native]})


def _measure_native(size: tuple[int, int, int], n_classes: int, kind: str) -> tuple[float, int]:
    """Returns the seconds of a core and the bytes that all metrics of a case take."""
    torch.set_num_threads(1)
    truth = _organs(size, n_classes)
    prediction = np.roll(truth, (1, 2, 1), axis=(0, 1, 2))
    if kind == "specks":
        rng = np.random.default_rng(1)
        specks = rng.random(size) < 0.01
        prediction[specks] = rng.integers(0, n_classes, size=int(specks.sum()))
    _score_native(prediction[:8], truth[:8], n_classes)
    started = time.process_time()
    growth = _memory.peak_growth(lambda: _score_native(prediction, truth, n_classes))
    return time.process_time() - started, growth


def _print_native(size: tuple[int, int, int], n_classes: int) -> None:
    context = multiprocessing.get_context("spawn")
    print("\n| all metrics, prediction | seconds of a core | extra memory (GiB) |\n|---|---|---|")
    for kind in ("near the truth", "specks"):
        with futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            seconds, growth = pool.submit(_measure_native, size, n_classes, kind).result()
        print(f"| {kind} | {seconds:.2f} | {growth / 2**30:.3f} |")


def main() -> None:
    """Runs the benchmark and prints a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=3, default=(200, 250, 250), help="D H W")
    parser.add_argument("--classes", type=int, default=14, help="classes, with the background")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the interleaved timing")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    size = tuple(arguments.size)

    memory = {
        method: _in_fresh_process(method, size, arguments.classes, arguments.threads)
        for method in _METHODS
    }
    torch.set_num_threads(arguments.threads)
    inputs = _inputs(size, arguments.classes)
    seconds: dict[str, list[float]] = {method: [] for method in _METHODS}
    values: dict[str, dict[str, float]] = {}
    for _ in range(arguments.rounds):
        for method, compute in _METHODS.items():
            started = time.perf_counter()
            values[method] = compute(*inputs)
            seconds[method].append(time.perf_counter() - started)

    difference = max(
        abs(values["eva"][name] - value) for name, value in values["CaseSegmentation"].items()
    )
    ratio = statistics.median(
        eva / ours for eva, ours in zip(seconds["eva"], seconds["CaseSegmentation"], strict=True)
    )
    print(
        f"{'x'.join(map(str, size))} voxels, {arguments.classes} classes, fp32 logits, CPU, "
        f"{arguments.threads} threads, torch {torch.__version__}, "
        f"median of {arguments.rounds} interleaved rounds\n"
    )
    print("| metric | seconds | extra memory (GiB) |\n|---|---|---|")
    for method in _METHODS:
        median = statistics.median(seconds[method])
        print(f"| {method} | {median:.2f} | {memory[method] / 2**30:.3f} |")
    print(f"\nratio of the times: {ratio:.1f}x, largest difference of a value: {difference:.1e}")
    _print_native(size, arguments.classes)


if __name__ == "__main__":
    main()
