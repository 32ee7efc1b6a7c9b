"""The shared memory that the data workers of an evaluation need."""

import math
from typing import Any

from eva_coralbay.data import loader_workers, modules, transforms
from eva_coralbay.evaluation import expected_data

_BYTES_OF_CROP = 4 + 8
"""The size of a voxel of a crop: float32, and int64 for its label."""

_BYTES_OF_SCAN = 4 + 1
"""The size of a voxel of a whole scan: float32, and its label in a byte, as nearly all have it."""

_BYTES_OF_VOLUME = 4
"""The size of a voxel of the volumes that are classified."""


def estimate(datamodule: Any) -> float:
    """Returns about how many bytes wait for the main process at most.

    In a training the batches of crops stay there while the scans of a validation are read. Of a few
    scans the headers are read; as long as none is there, only the training counts.

    Args:
        datamodule: The data, which need not be there; 0 for such that are not of this package.
    """
    if not isinstance(datamodule, (modules.SegmentationData, modules.ClassificationData)):
        return 0.0
    if datamodule.datasets.predict is not None:
        volumes = datamodule.datasets.predict[0]
        return _waiting(datamodule.dataloaders.predict) * _sample_bytes(volumes)
    train, val, test = (_part_bytes(datamodule, name) for name in ("train", "val", "test"))
    # a training has no end, while a probe has read all its scans before others are scored
    transform = getattr(datamodule.datasets.train, "transforms", None)
    is_probe = type(transform) is transforms.EvalTransform
    return max(train, val, test) if is_probe else train + max(val, test)


def check(datamodule: Any) -> None:
    """Checks that what waits for the main process fits.

    Args:
        datamodule: The data, which need not be there.

    Raises:
        EvaCoralbayError: If it does not.
    """
    loader_workers.check_shared_memory(
        estimate(datamodule),
        made_of=f"{loader_workers.PREFETCHED} batches a worker, in scoring of whole scans",
        remedy="N_DATA_WORKERS, 0 of which need none",
    )


def _part_bytes(datamodule: Any, name: str) -> float:
    dataset = getattr(datamodule.datasets, name)
    if dataset is None:
        return 0.0
    return _waiting(getattr(datamodule.dataloaders, name)) * _sample_bytes(dataset)


def _waiting(loader: Any) -> int:
    """Returns how many samples wait."""
    return (loader.num_workers or 0) * loader_workers.PREFETCHED * (loader.batch_size or 1)


def _sample_bytes(dataset: Any) -> float:
    """Returns about how many bytes a sample has, 0 if that is not known."""
    transform = dataset.transforms
    if isinstance(transform, transforms.TrainTransform):
        return transform.num_samples * math.prod(transform.roi_size) * _BYTES_OF_CROP
    if isinstance(transform, transforms.EvalTransform):
        return math.prod(expected_data.find_largest_shape(dataset) or (0,)) * _BYTES_OF_SCAN
    return math.prod(transform.size) * _BYTES_OF_VOLUME
