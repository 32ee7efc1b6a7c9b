"""The resolved configuration of a run, and the part of it that defines the task."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.results import bounded_reading
from eva_coralbay.tasks import protocols
from eva_coralbay.tasks import settings as task_settings

_TASK_TRAINER_KEYS = (
    "accumulate_grad_batches",
    "check_val_every_n_epoch",
    "checkpoint_type",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "limit_test_batches",
    "limit_train_batches",
    "limit_val_batches",
    "max_epochs",
    "max_steps",
    "max_time",
    "monitor",
    "overfit_batches",
    "precision",
    "val_check_interval",
)
"""The trainer's arguments that belong to a task: how long and how it trains, what it scores."""

OTHER_MODEL_KEYS = (
    "encoder",
    "feature_size",
    "project_dims",
    "protocol",
    "seed",
    "sw_batch_size",
)
"""The module's arguments that do not belong to a task.

The record names them, no value depends on them, or they fit the decoder to the encoder's width.
"""

MACHINE_KEYS = (
    "download",
    "embeddings_root",
    "num_workers",
    "predict_batch_size",
    "prepared",
    "prepared_root",
    "protocol",
    "root",
)
"""The arguments of data sets and loaders that tell where they lie and how fast they are."""

_DECODER = "eva.vision.models.networks.decoders.segmentation.SwinUNETRDecoderWithProjection"
"""The decoder of the tasks."""

_ANY_MAPS_DECODER = "eva_coralbay.evaluation.pyramid_decoder.PyramidDecoder"
"""The same behind a convolution a map, for encoders whose maps are not a pyramid of six."""

_PARTS = ("trainer", "model", "data")
"""The classes that a configuration names."""

MAX_BYTES: Final = 100_000
"""The most bytes of the file of a configuration."""


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a resolved configuration. Nothing that it names is imported.

    Args:
        path: The path of the YAML file.

    Returns:
        The configuration, with `trainer`, `model` and `data`.

    Raises:
        EvaCoralbayError: If the file is no such configuration.
    """
    config = bounded_reading.read_yaml(path, max_bytes=MAX_BYTES)
    try:
        json.dumps(config, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise EvaCoralbayError(f"{path} has values that JSON does not have: {error}.") from error
    if not isinstance(config, dict) or not all(_is_class(config.get(part)) for part in _PARTS):
        raise EvaCoralbayError(
            f"{path} is not a resolved configuration: it needs {', '.join(_PARTS)}, each with "
            "`class_path` and `init_args`."
        )
    return config


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a resolved configuration that defines the task.

    Equal for every user, model, protocol and seed of a task. It has the trainer's arguments on
    the length and the numerics of the training, the module's without the encoder and its width,
    and the data sets and loaders without folders and workers. It leaves out the trainer's output
    folder, loggers, callbacks, accelerator and number of runs, and what the record states by
    itself (encoder, protocol, seed). The decoder for any feature maps counts as that of the task.

    Args:
        config: The resolved configuration, with `trainer`, `model` and `data`.

    Returns:
        That part; what environment variables gave as text is read as YAML.
    """
    trainer = config.get("trainer", {}).get("init_args", {})
    return _read_texts(
        {
            "trainer": {key: trainer[key] for key in _TASK_TRAINER_KEYS if key in trainer},
            "model": _without(_with_task_decoder(config.get("model")), OTHER_MODEL_KEYS),
            "data": _without(config.get("data"), MACHINE_KEYS),
        }
    )


def sha256(config: Mapping[str, Any]) -> str:
    """Hashes the part of a resolved configuration that defines the task.

    Args:
        config: The resolved configuration, with `trainer`, `model` and `data`.

    Returns:
        The SHA-256 of its :func:`settings` as JSON with sorted keys.
    """
    content = json.dumps(settings(config), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def find_changes(
    config: Mapping[str, Any], task_id: str, version: str, protocol: protocols.Protocol
) -> dict[str, tuple[Any, Any]]:
    """Finds the settings of a run that are not those of the leaderboard's task.

    Args:
        config: The resolved configuration of the run.
        task_id: The id of the task.
        version: The version of the task.
        protocol: The protocol of the run.

    Returns:
        By dotted path the value of the run and that of the task, `None` where one is missing;
        empty if the task is not on the leaderboard.
    """
    known = task_settings.find(task_id, version, protocol.mode)
    if known is None:
        return {}
    found, expected = dict(_flatten(settings(config))), dict(_flatten(known))
    return {
        path: (found.get(path), expected.get(path))
        for path in sorted(found.keys() | expected.keys())
        if found.get(path) != expected.get(path)
    }


def command(config: Mapping[str, Any]) -> str:
    """Returns the command of eva that runs a configuration.

    Args:
        config: The resolved configuration.

    Returns:
        `predict_fit` where embeddings are to be computed first, else `fit`.
    """
    data = config["data"]["init_args"]
    return "fit" if data.get("embeddings_root") is None else "predict_fit"


def _with_task_decoder(model: Any) -> Any:
    """Returns a module with the decoder of the tasks in the place of that for any feature maps."""
    arguments: Any = model.get("init_args") if isinstance(model, dict) else None
    decoder = arguments.get("decoder") if isinstance(arguments, dict) else None
    if not isinstance(decoder, dict) or decoder.get("class_path") != _ANY_MAPS_DECODER:
        return model
    return {
        **model,
        "init_args": {**arguments, "decoder": {"class_path": _DECODER, "init_args": {}}},
    }


def _flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted path and the value of every leaf."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        where = f"{path}.{key}" if path else str(key)
        if isinstance(item, (dict, list)) and item:
            yield from _flatten(item, where)
        else:
            yield where, item


def _read_texts(value: Any) -> Any:
    """Returns nested mappings and lists with their texts read as YAML, where they are that."""
    if isinstance(value, dict):
        return {key: _read_texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_read_texts(item) for item in value]
    if not isinstance(value, str):
        return value
    try:
        read = bounded_reading.parse_yaml(value)
    except ValueError:
        return value
    return read if isinstance(read, (bool, int, float, list)) else value


def _without(value: Any, keys: Sequence[str]) -> Any:
    """Returns nested mappings and lists without the given keys."""
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    if isinstance(value, list):
        return [_without(item, keys) for item in value]
    return value


def _is_class(part: Any) -> bool:
    """Whether a part of a configuration names a class and its arguments."""
    return (
        isinstance(part, dict)
        and isinstance(part.get("class_path"), str)
        and isinstance(part.get("init_args"), dict)
    )
