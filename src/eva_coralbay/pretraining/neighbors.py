"""Nearest neighbors of organs: what the embeddings tell apart, on a small labeled set."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from eva.core.utils import parser
from sklearn import metrics, model_selection, neighbors
from torch.nn import functional
from typing_extensions import override

from eva_coralbay.data import preparation, transforms
from eva_coralbay.data.datasets import base
from eva_coralbay.pretraining import samples

_NEIGHBORS = 5
"""How many neighbors decide."""

NUM_CROPS = 3
"""How many crops there are of an organ of a case."""


def measure(pl_module: Any, dataset: dict[str, Any], *, window: tuple[float, float]) -> float:
    """Tells organs by the nearest embeddings of crops of other cases.

    Args:
        pl_module: The module with the teacher and the data of the training.
        dataset: The `class_path` and the `init_args` of a labeled segmentation data set, whose
            cases of the split `val` are taken.
        window: The HU window (lower, upper).

    Returns:
        The part of the crops that are told right, as the mean over the organs.
    """
    crops = _OrganCrops(pl_module.data.manifest.spacing, pl_module.data.views.local_size)
    cases = _build(dataset, crops)
    embeddings: list[torch.Tensor] = []
    organs: list[int] = []
    groups: list[int] = []
    for index in range(len(cases)):
        images, labels, _ = cases[index]
        embeddings += [pl_module.embed(image[None], window).cpu() for image in images]
        organs += labels
        groups += [index] * len(labels)
    return score(torch.cat(embeddings), np.array(organs), np.array(groups))


def score(
    embeddings: torch.Tensor, organs: npt.NDArray[np.integer], cases: npt.NDArray[np.integer]
) -> float:
    """Tells each embedding by its nearest ones of other cases.

    Args:
        embeddings: Of shape [N, E].
        organs: The organ of each, of shape [N].
        cases: The case of each, of shape [N].

    Returns:
        The balanced accuracy.
    """
    points = functional.normalize(embeddings - embeddings.mean(dim=0)).numpy()
    told = model_selection.cross_val_predict(
        neighbors.KNeighborsClassifier(_NEIGHBORS),
        points,
        organs,
        groups=cases,
        cv=model_selection.LeaveOneGroupOut(),
    )
    return float(metrics.balanced_accuracy_score(organs, told))


class _OrganCrops(transforms.EvalTransform):
    """Cuts crops around voxels of each organ, evenly among them."""

    def __init__(self, spacing: tuple[float, float, float], size: int) -> None:
        super().__init__(spacing=spacing)
        self._size = size

    @override
    def __call__(  # type: ignore[reportIncompatibleMethodOverride]  # MONAI's transforms take any arguments
        self, scan: preparation.PreparedScan
    ) -> tuple[list[torch.Tensor], list[int]]:
        """Returns the HU of the crops, each of shape [1, D, H, W], and their organs."""
        crops, organs = [], []
        for label, count in enumerate(scan.label_counts[1:], start=1):
            for part in range(NUM_CROPS if count else 0):
                index = int(count * (part + 0.5) / NUM_CROPS)
                crops.append(self._cut(scan, scan.locate(label, index)))
                organs.append(label)
        return crops, organs

    def _cut(self, scan: preparation.PreparedScan, center: tuple[int, int, int]) -> torch.Tensor:
        """Reads the crop around a voxel, with air where the scan ends."""
        box, padding = [], []
        for at, length in zip(center, scan.grid.shape, strict=True):
            start, stop = at - self._size // 2, at - self._size // 2 + self._size
            box.append(slice(max(start, 0), min(stop, length)))
            padding = [max(-start, 0), max(stop - length, 0), *padding]
        depth, height, width = box
        return functional.pad(scan.read_image((depth, height, width)), padding, value=samples.AIR)


def _build(dataset: dict[str, Any], crops: _OrganCrops) -> base.SegmentationDataset:
    arguments = {"split": "val", **dataset.get("init_args", {}), "transforms": crops}
    cases = parser.parse_object(
        {**dataset, "init_args": arguments}, expected_type=base.SegmentationDataset
    )
    cases.prepare_data()
    cases.configure()
    cases.validate()
    return cases
