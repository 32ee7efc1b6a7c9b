"""The resolved configuration of a run, and the part of it that defines the task."""

import hashlib
import json
import os
import pathlib
from typing import Any, Dict, Mapping, Sequence

import yaml

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

_OTHER_MODEL_KEYS = ("encoder", "protocol", "seed", "sw_batch_size")
"""The module's arguments that do not belong to a task: the record names them, or no value does."""

_MACHINE_KEYS = (
    "download",
    "embeddings_root",
    "multiprocessing_context",
    "num_workers",
    "persistent_workers",
    "pin_memory",
    "pin_memory_device",
    "predict_batch_size",
    "prefetch_factor",
    "prepared",
    "prepared_root",
    "protocol",
    "root",
    "timeout",
    "worker_init_fn",
)
"""The arguments of data sets and loaders that tell where they lie and how fast they are."""

_PARTS = ("trainer", "model", "data")
"""The classes that a configuration names."""

_MAX_VALUES = 20_000
"""The most values that a configuration has; a small file can name one value over and over."""


def read(path: str | os.PathLike[str]) -> Dict[str, Any]:
    """Reads a resolved configuration. Nothing that it names is imported.

    Args:
        path: The path of the YAML file.

    Returns:
        The configuration, with `trainer`, `model` and `data`.

    Raises:
        ValueError: If the file is no such configuration.
    """
    try:
        config = yaml.safe_load(pathlib.Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML file: {' '.join(str(error).split())}.") from error
    if _has_many_values(config):
        raise ValueError(f"{path} has more than {_MAX_VALUES} values, so it is no configuration.")
    try:
        json.dumps(config, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has values that JSON does not have: {error}.") from error
    if not isinstance(config, dict) or not all(_is_class(config.get(part)) for part in _PARTS):
        raise ValueError(
            f"{path} is no resolved configuration: it needs {', '.join(_PARTS)}, each with "
            "`class_path` and `init_args`."
        )
    return config


def sha256(config: Mapping[str, Any]) -> str:
    """Hashes the part of a resolved configuration that defines the task.

    Equal for every user, model, protocol and seed of a task. It covers the trainer's arguments
    on the length and the numerics of the training, the module's without the encoder, and the
    data sets and loaders without folders and workers. It leaves out the trainer's output
    folder, loggers, callbacks, accelerator and number of runs, and what the record states by
    itself (encoder, protocol, seed).

    Args:
        config: The resolved configuration, with `trainer`, `model` and `data`.

    Returns:
        The SHA-256 of that part as JSON with sorted keys.
    """
    trainer = config.get("trainer", {}).get("init_args", {})
    model = config.get("model", {})
    init_args = model.get("init_args", {})
    task = {
        "trainer": {key: trainer[key] for key in _TASK_TRAINER_KEYS if key in trainer},
        "model": {
            "class_path": model.get("class_path"),
            "init_args": {
                key: value for key, value in init_args.items() if key not in _OTHER_MODEL_KEYS
            },
        },
        "data": _without(config.get("data"), _MACHINE_KEYS),
    }
    return hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()


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


def _has_many_values(config: Any) -> bool:
    """Whether there are more values than a configuration has, those counted anew that recur."""
    values, seen = [config], 0
    while values and seen <= _MAX_VALUES:
        value = values.pop()
        seen += 1
        if isinstance(value, dict):
            values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)
    return bool(values)
