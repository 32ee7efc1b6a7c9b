"""Tells two transforms apart that hold different values."""

import json
from typing import Any

import numpy as np
from torch import nn


def describe(instance: object) -> dict[str, Any]:
    """Describes an object by its class and its values, as far as JSON can hold them.

    Args:
        instance: The object. Of a network only what its own class has added is described.
    """
    skipped = vars(nn.Module()) if isinstance(instance, nn.Module) else {}
    attributes = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in vars(instance).items()
        if name not in skipped
    }
    kind = type(instance)
    known = {name: value for name, value in attributes.items() if _fits_json(value)}
    return json.loads(json.dumps({"class": f"{kind.__module__}.{kind.__qualname__}", **known}))


def _fits_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
