"""What is known of the data of a task before they are prepared: cases, sizes, disk."""

import math
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

from eva_coralbay.data.datasets import base
from eva_coralbay.errors import DatasetError
from eva_coralbay.evaluation.probe import windows

_FEW = 5
"""Of how many scans of a part the headers are read."""


class Part(NamedTuple):
    """The train, val or test cases."""

    case_ids: list[str]
    """The ids of the cases, empty if they are not known."""

    shapes: list[tuple[int, int, int]]
    """The shapes (D, H, W) of a few prepared scans."""

    unprepared: int
    """How many scans that are there have to be prepared."""

    disk: float
    """About how many bytes those take."""


class Data(NamedTuple):
    """The data of a task."""

    parts: dict[str, Part]
    """The parts that there are."""

    prepared_root: pathlib.Path | None
    """Where scans are prepared; None if they are not."""

    def count_cases(self, part: str) -> int:
        """Returns the number of cases of a part."""
        return len(self.parts[part].case_ids) if part in self.parts else 0

    def count_windows(self, size: Sequence[int], overlap: float) -> float | None:
        """Returns the mean number of windows of a scan, None if the size of no scan is known.

        Args:
            size: The size of a window in voxels, as (D, H, W).
            overlap: The overlap of two windows, as a share of the window.
        """
        numbers = [len(windows.place(shape, size, overlap)) for shape in self.shapes]
        return sum(numbers) / len(numbers) if numbers else None

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """The known shapes (D, H, W) of all parts."""
        return [shape for part in self.parts.values() for shape in part.shapes]

    @property
    def disk(self) -> float:
        """About how many bytes all scans take that have to be prepared."""
        return sum(part.disk for part in self.parts.values())

    @property
    def unprepared(self) -> int:
        """How many scans have to be prepared."""
        return sum(part.unprepared for part in self.parts.values())

    @property
    def free_disk(self) -> int:
        """How many bytes are free where scans are prepared."""
        folder = (self.prepared_root or pathlib.Path()).absolute()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free


def inspect(datamodule: Any) -> Data:
    """Finds out what is known of the data; of a few scans the headers are read.

    Args:
        datamodule: The data, which need not be there.
    """
    known = {name: getattr(datamodule.datasets, name) for name in ("train", "val", "test")}
    parts = {name: _inspect(dataset) for name, dataset in known.items() if dataset is not None}
    train = known["train"]
    keeps = isinstance(train, base.SegmentationDataset) and train.keeps_prepared
    return Data(parts, pathlib.Path(train.prepared_root) if keeps else None)


def find_largest_shape(dataset: base.SegmentationDataset) -> tuple[int, int, int] | None:
    """Returns the shape (D, H, W) of the largest of a few prepared scans; no more is known of them.

    Args:
        dataset: The data set, which need not be there: then the shape is None.
    """
    try:
        dataset.configure()
    except DatasetError:
        return None
    return max(_find_shapes(dataset), key=math.prod, default=None)


def _inspect(dataset: Any) -> Part:
    try:
        dataset.configure()
    except DatasetError:
        return Part([], [], 0, 0.0)
    if not isinstance(dataset, base.SegmentationDataset):
        return Part(dataset.case_ids, [], 0, 0.0)
    store, sources = dataset.prepared_store, dataset.existing_sources()
    missing = store.missing(sources) if dataset.keeps_prepared else []
    sizes = [store.estimate_bytes(source) for source in _choose(missing)]
    disk = len(missing) * sum(sizes) / len(sizes) if sizes else 0.0
    return Part(dataset.case_ids, _find_shapes(dataset), len(missing), disk)


def _find_shapes(dataset: base.SegmentationDataset) -> list[tuple[int, int, int]]:
    """Returns the shapes of a few prepared scans of a data set that is configured."""
    store = dataset.prepared_store
    shapes = [store.estimate_shape(source) for source in _choose(dataset.existing_sources())]
    return [shape for shape in shapes if shape]


def _choose(sources: Sequence[Any]) -> list[Any]:
    """Chooses a few of many, evenly."""
    number = min(_FEW, len(sources))
    return [sources[index * len(sources) // number] for index in range(number)]
