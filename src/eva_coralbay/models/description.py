"""Describes what an encoder computes: the same weights are other features in another network."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

_PACKAGE = __name__.partition(".")[0]
_TORCH = "torch.nn."


def describe_encoder(encoder: nn.Module) -> dict[str, Any]:
    """Describes what an encoder computes beside its weights, with or without eva's wrapper.

    An encoder of this package says it by its method `describe`. Of any other network each layer
    counts, by its class and what its class or its attributes say of it. Where a class of this
    package lies does not count, and neither does whether layers train.

    Args:
        encoder: The network.

    Returns:
        `class_path`; `architecture`, a dictionary; `patch_merging` and `embedding`, None where the
        network says nothing of it; `preprocessing`, a dictionary, empty where it is not stated; and
        `sha256`, the hash of all of that as JSON with sorted keys.
    """
    network: Any = getattr(encoder, "model", encoder)
    is_ours = callable(getattr(network, "describe", None))
    stated: Mapping[str, Any] = network.describe() if is_ours else _describe_layers(network)
    preprocessing: Any = getattr(network, "preprocessing", None)
    description = {
        "class_path": _class_path(type(network)),
        "architecture": dict(stated.get("architecture", {})),
        "patch_merging": stated.get("patch_merging"),
        "embedding": stated.get("embedding"),
        "preprocessing": preprocessing.as_dict() if hasattr(preprocessing, "as_dict") else {},
    }
    text = json.dumps(description, sort_keys=True)
    return {**json.loads(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _class_path(kind: type) -> str:
    """The path of a class; of one of this package without the module, which may be moved."""
    if kind.__module__.partition(".")[0] == _PACKAGE:
        return f"{_PACKAGE}.{kind.__qualname__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def _describe_layers(network: nn.Module) -> dict[str, Any]:
    """Describes a network by its own attributes and the hash of what all its layers say."""
    layers = {name: _describe_layer(layer) for name, layer in network.named_modules()}
    digest = hashlib.sha256(json.dumps(layers, sort_keys=True).encode()).hexdigest()
    return {"architecture": {**layers[""]["values"], "layers_sha256": digest}}


def _describe_layer(layer: nn.Module) -> dict[str, Any]:
    """Describes a layer: one of PyTorch by its text, another one by its attributes too."""
    values: dict[str, Any] = {}
    if not type(layer).__module__.startswith(_TORCH):
        skipped = vars(nn.Module())
        values = {
            name: value
            for name, value in vars(layer).items()
            if name not in skipped and _fits_json(value)
        }
    return {"class": _class_path(type(layer)), "text": layer.extra_repr(), "values": values}


def _fits_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
