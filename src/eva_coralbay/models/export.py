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
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import preprocessing as preprocessing_lib
from eva_coralbay.models import weight_files, weight_sources

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


def read_preprocessing(
    config: Mapping[str, Any], *, where: str
) -> preprocessing_lib.Preprocessing | None:
    """Returns the preprocessing that a config states, None if it does not state all of it.

    Args:
        config: The content of a `config.json`.
        where: The weights that it is of, for errors.

    Raises:
        CheckpointError: If what it states cannot be.
    """
    names = ("spacing_mm", "orientation", "hu_window")
    stated: dict[str, Any] = {name: config.get(name) for name in names}
    if None in stated.values():
        return None
    try:
        lower, upper = map(float, stated["hu_window"])
        depth, height, width = map(float, stated["spacing_mm"])
        return preprocessing_lib.Preprocessing.of_window(
            lower, upper, spacing=(depth, height, width), orientation=stated["orientation"]
        )
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{name} {value!r}" for name, value in stated.items())
        raise weight_files.CheckpointError(
            f"{where}: its config states a preprocessing that cannot be ({given}): {error}. Export "
            "the folder again, or correct its config."
        ) from error


def describe_preprocessing(
    preprocessing: preprocessing_lib.Preprocessing | None,
) -> dict[str, Any]:
    """Returns what a config states of a preprocessing; the inverse of `read_preprocessing`.

    Args:
        preprocessing: The preprocessing, a window of HU that is clipped and mapped to [0, 1].

    Raises:
        EvaCoralbayError: If it is another one.
    """
    if preprocessing is None:
        return {"spacing_mm": None, "orientation": None, "hu_window": None}
    lower, upper = preprocessing.hu_offset, preprocessing.hu_offset + preprocessing.hu_scale
    if preprocessing.hu_clip != (lower, upper):
        raise EvaCoralbayError(
            "An export states a window of HU that is clipped and mapped to [0, 1]; this "
            f"preprocessing clips to {preprocessing.hu_clip} and maps ({lower}, {upper}) to [0, 1]."
        )
    return {
        "spacing_mm": preprocessing.spacing,
        "orientation": preprocessing.orientation,
        "hu_window": [lower, upper],
    }
