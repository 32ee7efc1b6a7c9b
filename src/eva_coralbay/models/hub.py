"""Exports an encoder as a folder in the transformers layout, and builds one from such a folder.

<folder>/
    config.json         architecture, preprocessing, versions, SHA-256 of the weights
    model.safetensors   the weights under `encoder.*`, as `kaiko-ai/coralbay` is published
"""

import importlib.metadata
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import safetensors.torch

from eva_coralbay import _atomic_files
from eva_coralbay.models import checkpoints, weight_files
from eva_coralbay.models import encoder as encoder_lib

_PREFIX = "encoder."
"""What the keys of an export begin with."""

_ARCHITECTURE = ("feature_size", "in_channels", "use_v2", "patch_merging", "embeddings_type")
"""Attributes of the encoder that its config carries."""

_VERSIONED = ("eva-coralbay", "torch", "monai", "kaiko-eva")
"""Packages whose versions the config carries."""


def save_pretrained(
    encoder: encoder_lib.CoralBayEncoder,
    folder: str | pathlib.Path,
    *,
    spacing_mm: Sequence[float] | None = None,
    orientation: str | None = None,
    hu_window: Sequence[float] | None = None,
    training: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes the encoder's weights and what one must know to apply them.

    An interrupted call leaves no half-written file, and weights and config of different calls do
    not load together, as the config carries the hash of its weights.

    Args:
        encoder: The encoder to export.
        folder: Where to write; made if missing.
        spacing_mm: Voxel spacing (D, H, W) in mm of the scans that the weights are for.
        orientation: Axis codes of (D, H, W), such as "SPL".
        hu_window: The HU that are mapped to 0 and to 1.
        training: How the weights came about, in what JSON can hold.

    Returns:
        The folder.

    Raises:
        ValueError: If spacing, orientation or window cannot be one.
    """
    preprocessing = {
        "spacing_mm": _checked_spacing(spacing_mm),
        "orientation": _checked_orientation(orientation),
        "hu_window": _checked_window(hu_window),
    }
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights_path = folder / weight_files.WEIGHTS_NAMES[0]
    tensors = {_PREFIX + key: value.cpu().clone() for key, value in encoder.state_dict().items()}
    _atomic_files.write_atomically(weights_path, safetensors.torch.save(tensors, {"format": "pt"}))
    config = {
        "architectures": [type(encoder).__name__],
        "model_type": "coralbay",
        **{name: getattr(encoder, name) for name in _ARCHITECTURE},
        **preprocessing,
        **({} if training is None else {"training": training}),
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
        "weights_sha256": weight_files.file_sha256(weights_path),
    }
    text = json.dumps(config, indent=2) + "\n"
    _atomic_files.write_atomically(folder / weight_files.CONFIG_NAME, text.encode())
    return folder


def from_pretrained(
    source: str | pathlib.Path, *, sha256: str | None = None, **overrides: Any
) -> encoder_lib.CoralBayEncoder:
    """Builds the encoder that the weights are of, and loads them.

    Args:
        source: Path of a file or a folder, or a Hub id `org/name[@revision]`.
        sha256: What the SHA-256 of the weights file must be.
        overrides: Arguments of `CoralBayEncoder`. Those that decide what the weights compute
            (feature_size, in_channels, use_v2, patch_merging) may be repeated, not changed.

    Returns:
        The encoder, in eval mode.

    Raises:
        CheckpointError: If the source cannot be used or contradicts an override.
    """
    return from_checkpoint(checkpoints.read(source, sha256=sha256), **overrides)


def from_checkpoint(
    checkpoint: checkpoints.Checkpoint, **overrides: Any
) -> encoder_lib.CoralBayEncoder:
    """Builds the encoder of a checkpoint that was read; see `from_pretrained`."""
    arguments = {
        "feature_size": checkpoint.feature_size,
        "in_channels": checkpoint.in_channels,
        "use_v2": checkpoint.use_v2,
        "patch_merging": checkpoint.patch_merging,
        "embeddings_type": checkpoint.config.get("embeddings_type", "multiscale"),
    }
    encoder = encoder_lib.CoralBayEncoder(**(arguments | overrides))
    checkpoints.load_into(encoder, checkpoint)
    return encoder.eval()


def _checked_spacing(spacing_mm: Sequence[float] | None) -> list[float] | None:
    if spacing_mm is None:
        return None
    if len(spacing_mm) != 3 or not all(0 < value < float("inf") for value in spacing_mm):
        raise ValueError(f"spacing_mm must be three positive numbers (D, H, W), got {spacing_mm}.")
    return [float(value) for value in spacing_mm]


def _checked_orientation(orientation: str | None) -> str | None:
    axes = [re.search(f"[{pair}]", orientation or "") for pair in ("LR", "AP", "IS")]
    if orientation is not None and (len(orientation) != 3 or None in axes):
        raise ValueError(
            f"orientation must be three axis codes, one each of L/R, A/P and I/S, such as 'SPL', "
            f"got {orientation!r}."
        )
    return orientation


def _checked_window(hu_window: Sequence[float] | None) -> list[float] | None:
    if hu_window is None:
        return None
    if len(hu_window) != 2 or not hu_window[0] < hu_window[1]:
        raise ValueError(f"hu_window must be (lower, upper) in HU, got {hu_window}.")
    return [float(value) for value in hu_window]
