"""The settings of the tasks: what a run must have been configured with to count as measured.

They follow from the catalog and from what all tasks of a kind have in common. Those of a version
that was released do not change: `released/settings_<version>.json` keeps them, so that results of
an older version can still be checked.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Literal

from eva_coralbay.tasks import catalog, facts

Mode = Literal["online", "offline", "probe", "external"]
"""Whether the encoder sees every crop anew, its embeddings are computed once, a linear classifier
is solved for, or another program has done all of it."""

_OFFLINE_STEPS = 12_500
"""The number of training steps on embeddings, which cost next to nothing."""

_BATCH_SIZES: Mapping[Mode, int] = {"online": 16, "offline": 256}
"""The number of volumes, or of embeddings, in a training step of a classification."""

_MAX_ROTATION = 20.0
"""How far a crop of a set size in mm is turned in the training, in degrees."""


def find(task_id: str, version: str, mode: Mode) -> dict[str, Any] | None:
    """Finds the settings of a version of a task.

    Args:
        task_id: The id of the task.
        version: The version of the task.
        mode: How its encoder is used.

    Returns:
        The settings, in the form of :func:`eva_coralbay.results.run_config.settings`; None if the
        task has no such version or mode.
    """
    task = catalog.TASKS.get(task_id)
    if task is not None and version == task.version:
        return settings(task, mode)
    return _read_released().get(version, {}).get(f"{task_id}, {mode}")


def list_versions(task_id: str) -> list[str]:
    """Returns the versions that a task has had.

    Args:
        task_id: The id of the task.

    Returns:
        The versions, the current one last; empty if there is no such task.
    """
    task = catalog.TASKS.get(task_id)
    if task is None:
        return []
    released = [
        version
        for version, names in _read_released().items()
        if any(name.split(",")[0] == task_id for name in names)
    ]
    return list(dict.fromkeys((*released, task.version)))


def settings(task: catalog.Task, mode: Mode) -> dict[str, Any] | None:
    """Returns the settings of the current version of a task.

    Args:
        task: The task.
        mode: How its encoder is used.

    Returns:
        The settings, None if the task has no such mode: a segmentation needs every crop anew,
        and of other programs none are known.
    """
    if mode == "external":
        return None
    if task.kind == "classification":
        return _embedding_probe(task) if mode == "probe" else _classification(task, mode)
    if mode == "offline":
        return None
    return _segmentation(task) if mode == "online" else _probe(task)


def _embedding_probe(task: catalog.Task) -> dict[str, Any]:
    return {
        # the defaults: no step is made
        "trainer": _trainer("val/dice", 20_000, 500),
        "model": _class("eva_coralbay.evaluation.EmbeddingProbeModule", task=task.id),
        "data": _classification_data(task, batch_size=16),
    }


def _probe(task: catalog.Task) -> dict[str, Any]:
    return {
        # the defaults: no step is made
        "trainer": _trainer("val/dice", 20_000, 500),
        "model": _class(
            "eva_coralbay.evaluation.ProbeModule",
            background_voxels=2048,
            maps="all",
            overlap=None,
            roi_size=list(task.crop),
            task=task.id,
            voxels_per_class=256,
        ),
        # no crops are drawn: the defaults
        "data": _segmentation_data(task, facts.Training(), facts.CROP),
    }


def _segmentation(task: catalog.Task) -> dict[str, Any]:
    training = task.training
    return {
        "trainer": _trainer("val/dice", task.steps, task.val_interval),
        "model": _class(
            "eva_coralbay.evaluation.SegmentationModule",
            class_weights=_list(training.class_weights),
            criterion=None,
            decoder=_class(
                "eva.vision.models.networks.decoders.segmentation.SwinUNETRDecoderWithProjection"
            ),
            lr=training.lr,
            lr_end=1e-4,
            monitor_overlap=training.monitor_overlap,
            overlap=training.overlap,
            roi_size=list(task.crop),
            weight_decay=0.01,
        ),
        "data": _segmentation_data(task, training, task.crop),
    }


def _segmentation_data(
    task: catalog.Task, training: facts.Training, crop: Sequence[int]
) -> dict[str, Any]:
    return _class(
        "eva_coralbay.data.SegmentationData",
        batch_size=training.batch_size,
        class_ratios=None,
        dataset=_class(task.dataset, split_scheme=None),
        hu_window=_list(task.hu_window),
        num_samples=training.num_samples,
        roi_size=list(crop),
        spacing=_list(task.spacing),
    )


def _classification(task: catalog.Task, mode: Mode) -> dict[str, Any]:
    is_turned = mode == "online" and task.crop_mm is not None
    steps = task.steps if mode == "online" else _OFFLINE_STEPS
    return {
        "trainer": _trainer("val/auroc", steps, task.val_interval),
        "model": _class(
            "eva_coralbay.evaluation.ClassificationModule",
            criterion=None,
            lr=1e-3,
            lr_end=1e-5,
            weight_decay=0.01,
        ),
        "data": _classification_data(task, batch_size=_BATCH_SIZES[mode], is_turned=is_turned),
    }


def _classification_data(
    task: catalog.Task, *, batch_size: int, is_turned: bool = False
) -> dict[str, Any]:
    return _class(
        "eva_coralbay.data.ClassificationData",
        batch_size=batch_size,
        dataset=_class(task.dataset, split_scheme=None),
        train_transform=_transform(task, _MAX_ROTATION) if is_turned else None,
        transform=_transform(task, 0.0),
    )


def _transform(task: catalog.Task, max_rotation: float) -> dict[str, Any]:
    """Returns what makes the input of the encoder of a volume."""
    module = "eva_coralbay.data.volume_transforms"
    size = list(task.crop)
    if task.crop_mm is None:
        return _class(f"{module}.ResizeTransform", size=size, window=[0.0, 255.0])
    return _class(
        f"{module}.CropTransform",
        hu_window=_list(task.hu_window),
        max_rotation=max_rotation,
        size=size,
        size_mm=list(task.crop_mm),
    )


def _trainer(monitor: str, steps: int, val_interval: int) -> dict[str, Any]:
    return {
        "accumulate_grad_batches": 1,
        "gradient_clip_algorithm": None,
        "gradient_clip_val": None,
        "limit_test_batches": None,
        "limit_train_batches": None,
        "limit_val_batches": None,
        "max_steps": steps,
        "max_time": None,
        "monitor": monitor,
        "overfit_batches": 0.0,
        "precision": "32-true",
        "val_check_interval": val_interval,
    }


def _class(path: str, **arguments: Any) -> dict[str, Any]:
    """Returns a class and its arguments, as a config has them."""
    return {"class_path": path, "init_args": arguments}


def _list(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else list(values)


@functools.cache
def _read_released() -> dict[str, dict[str, Any]]:
    """Reads the settings of the released versions, by version, task and mode."""
    folder = resources.files("eva_coralbay.tasks") / "released"
    files = sorted(file.name for file in folder.iterdir() if file.name.startswith("settings_"))
    return {
        name.removeprefix("settings_").removesuffix(".json"): json.loads(
            (folder / name).read_text(encoding="utf-8")
        )
        for name in files
    }
