"""What a checkpoint says of its training, and whether a training that goes on is the same one."""

import dataclasses
import importlib.metadata
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from loguru import logger

from eva_coralbay.errors import EvaCoralbayError

_NETWORKS = (
    "feature_size",
    "patch_merging",
    "scales",
    "num_prototypes",
    "head_dims",
    "balance",
    "queue_size",
    "masking",
)
"""The arguments that the weights of a checkpoint depend on."""

_LEFT_OUT = ("kwargs", "store", "init_from", "num_workers")
"""Arguments that tell of the machine, not of the training."""

_OURS = "eva_coralbay."
"""What the modules of our classes begin with."""

_VERSIONED = ("eva-coralbay", "kaiko-eva", "lightning", "torch")
"""Packages whose versions a checkpoint carries."""

_COUNTS = (
    "batch_size",
    "device_batch_size",
    "devices",
    "accumulate_grad_batches",
    "steps",
    "precision",
)
"""What the trainer says of a phase."""


def describe_versions() -> dict[str, str]:
    """Returns the versions of the packages that compute."""
    return {name: importlib.metadata.version(name) for name in _VERSIONED}


def arguments(instance: object) -> dict[str, Any]:
    """Returns what an object was built with, but for paths, which tell of the machine."""
    found = {}
    classes = [known for known in type(instance).__mro__ if known.__module__.startswith(_OURS)]
    parameters = [name for known in classes for name in inspect.signature(known).parameters]
    for name in parameters:
        value = getattr(instance, name, getattr(instance, f"_{name}", None))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        found[name] = value
    return {name: value for name, value in found.items() if name not in _LEFT_OUT}


def check_same_networks(stated: str, own: str, *, path: str) -> None:
    """Checks that a checkpoint has the networks that the configuration describes.

    Args:
        stated: The configuration of the checkpoint's run, as JSON.
        own: That of this one, as JSON.
        path: The path of the checkpoint.

    Raises:
        EvaCoralbayError: If it is not, naming what differs.
    """
    now = json.loads(own)["model"]
    # what an older version did not know was off
    before = {"queue_size": 0, "masking": None, **json.loads(stated)["model"]}
    for name in _NETWORKS:
        if before[name] != now[name]:
            raise EvaCoralbayError(
                f"Checkpoint '{path}' is of a training with `{name}: {before[name]}`, and the "
                f"configuration has {now[name]}: set it as it was, or for a new training another "
                "`default_root_dir`."
            )


def continue_phases(
    stated: Mapping[str, Any], own: Mapping[str, Any], *, step: int, path: str
) -> list[dict[str, Any]]:
    """Returns the phases of a training that goes on, with a new one if something has changed.

    A phase is a part of the steps of a training with one configuration. What differs from the
    last phase is said in full, as the training is another one than it would have been.

    Args:
        stated: What the checkpoint says of its training.
        own: The phase that begins, as `describe_phase` of the module says.
        step: The step that the training goes on from.
        path: The path of the checkpoint.
    """
    phases = [dict(phase) for phase in stated.get("phases") or [_only_phase(stated)]]
    changes = find_changes(phases[-1], own)
    if changes:
        logger.warning(
            f"The training goes on from '{path}' in another way than it was begun, so it is not "
            f"the one that it would have been: {'; '.join(changes)}. Schedules follow the new "
            "number of steps from here on. The checkpoints and the export list both phases."
        )
        phases.append({**own, "from_step": step})
    return phases


def find_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns what differs between two phases, each as `name: before -> now`."""
    found = _flatten(before)
    return [
        f"{name}: {found[name]} -> {value}"
        for name, value in _flatten(now).items()
        # an older version may not have said it
        if name in found and found[name] != value
    ]


def _flatten(phase: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a phase says, by names."""
    flat = {name: phase[name] for name in (*_COUNTS, "num_scans") if name in phase}
    flat["scans (SHA-256 of the manifest)"] = phase["manifest_sha256"]
    config = json.loads(phase["config"])
    for part in ("model", "data"):
        # the batch size of the data is that of a device, which is among the counts
        flat |= {
            f"{part}.{name}": value
            for name, value in config[part].items()
            if name not in (*_LEFT_OUT, "batch_size")
        }
    return flat


def _only_phase(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the one phase of a checkpoint from before there were several."""
    names: Sequence[str] = (*_COUNTS, "num_scans", "manifest_sha256", "config", "versions")
    return {"from_step": 0, **{name: stated[name] for name in names if name in stated}}
