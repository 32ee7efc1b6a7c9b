"""Compares the case-wise Dice with eva's two Dice metrics, from logits to values.

eva's side is what its `btcv.yaml` configures: one-hot predictions and targets, torchmetrics'
`DiceScore` and MONAI's Dice by class. Times are interleaved, round by round, on one copy of the
data; memory is the growth of a fresh process over its inputs.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent import futures

import _memory
import torch
import torchmetrics
from eva.core.models.modules.utils import batch_postprocess
from eva.core.models.transforms import as_discrete
from eva.vision import metrics as eva_metrics
from torchmetrics import segmentation

from eva_coralbay.evaluation import label_maps, metrics


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
    # the first call loads code, which is no memory of the method
    _METHODS[method](*_inputs((4, 4, 4), n_classes))
    inputs = _inputs(size, n_classes)
    return _memory.peak_growth(lambda: _METHODS[method](*inputs))


def _in_fresh_process(method: str, size: tuple[int, int, int], n_classes: int, threads: int) -> int:
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_extra_memory, method, size, n_classes, threads).result()


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


if __name__ == "__main__":
    main()
