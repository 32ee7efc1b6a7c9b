"""Writes an encoder as a folder in the transformers layout.

<folder>/
    config.json         architecture, preprocessing, versions, SHA-256 of the weights
    model.safetensors   the weights under `encoder.*`, as `kaiko-ai/coralbay` is published
"""

import importlib.metadata
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch

from eva_coralbay import _atomic_files, _hashes
from eva_coralbay.models import weight_sources

_PREFIX = "encoder."
"""What the keys of an export begin with."""

_VERSIONED = ("eva-coralbay", "torch", "monai", "kaiko-eva")
"""Packages whose versions the config carries."""


def write_folder(
    folder: str | pathlib.Path,
    state_dict: Mapping[str, torch.Tensor],
    *,
    architecture: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes the encoder's weights and what one must know to apply them.

    An interrupted call leaves no half-written file, and weights and config of different calls do
    not load together, as the config carries the hash of its weights.

    Args:
        folder: Where to write; made if missing.
        state_dict: The weights in eva's key layout.
        architecture: The arguments of `CoralBayEncoder` that decide what the weights compute.
        preprocessing: Spacing, orientation and HU window of the scans that the weights are for.
        training: How the weights came about, in what JSON can hold.

    Returns:
        The folder.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights_path = folder / weight_sources.WEIGHTS_NAMES[0]
    tensors = {_PREFIX + key: value.cpu().clone() for key, value in state_dict.items()}
    _atomic_files.write_atomically(weights_path, safetensors.torch.save(tensors, {"format": "pt"}))
    config = {
        "architectures": ["CoralBayEncoder"],
        "model_type": "coralbay",
        **architecture,
        **preprocessing,
        **({} if training is None else {"training": training}),
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
        "weights_sha256": _hashes.hash_file(weights_path),
    }
    text = json.dumps(config, indent=2) + "\n"
    _atomic_files.write_atomically(folder / weight_sources.CONFIG_NAME, text.encode())
    return folder
