"""Writes an encoder for nnU-Net v2: plans that name our network, and its pre-trained weights.

<out>/
    <name>.json     the plans: those of nnU-Net for the data set, with our network and its input
    <name>.pth      the weights of encoder and decoder, for `nnUNetv2_train -pretrained_weights`
"""

import io
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from eva_coralbay import _atomic_files
from eva_coralbay.data import foreign_files
from eva_coralbay.data.foreign_files import UnusableError
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import encoder as encoder_lib
from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.nnunet import network as network_lib
from eva_coralbay.tasks import facts

_NETWORK = f"{network_lib.SwinUNet.__module__}.{network_lib.SwinUNet.__qualname__}"
"""The class that nnU-Net imports."""

_CONFIGURATION = "3d_fullres"
"""The configuration of nnU-Net that is adapted, the only one that the plans of an export have."""

_NORMALIZATION = "CTNormalization"
"""The class of nnU-Net that clips HU, subtracts a number and divides by one."""

_MULTIPLE = 32
"""What the sides of a patch are multiples of, as the coarsest map has 1/32 of the resolution."""

_PLANS = "Plans"
"""How nnU-Net ends the names of plans."""

_SEG_LAYERS = ".seg_layers."
"""What the keys of the layers have that depend on the classes, which nnU-Net never loads."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")
"""What an encoder may be called, as plans and folders of nnU-Net get its name."""

_SEED = 0
"""The seed of the decoder's first weights."""


def export(
    encoder: nn.Module,
    plans: str | os.PathLike[str],
    *,
    name: str,
    out: str | os.PathLike[str] | None = None,
    is_frozen: bool = False,
    is_native: bool = False,
    hu_window: Sequence[float] | None = None,
) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes plans and weights with which `nnUNetv2_train` trains a decoder on an encoder.

    The stock trainer of nnU-Net builds the network that the plans name and loads the weights
    strictly: all of the encoder and the decoder but the layers of the classes.

    Args:
        encoder: The encoder, a `CoralBayEncoder`.
        plans: The plans that nnU-Net has made of the data set, such as `nnUNetPlans.json`.
        name: What to call the encoder; the plans get this name with what is asked for and "Plans"
            at the end, such as `voco_b_native_frozenPlans`.
        out: The folder to write to, that of the plans if None, where nnU-Net looks for them.
        is_frozen: Whether the encoder keeps its weights in the training.
        is_native: Whether scans get spacing, order of axes and intensities that the encoder was
            trained on, instead of the spacing of the given plans, SPL and `hu_window`.
        hu_window: The HU that become 0 and 1; soft tissue (-175, 250) if None.

    Returns:
        The files of the plans and of the weights.

    Raises:
        DatasetError: If the plans cannot be read, or have no configuration for CT in 3D.
        EvaCoralbayError: If the encoder is another network, its input is not known, the window
            contradicts it, or the files of another export would be replaced.
    """
    if not isinstance(encoder, encoder_lib.CoralBayEncoder):
        raise EvaCoralbayError(
            f"Only Swin encoders can be exported to nnU-Net, not a {type(encoder).__name__}."
        )
    if not _NAME.fullmatch(name):
        raise EvaCoralbayError(
            f"An encoder is called by letters, digits, underscores and hyphens, got '{name}': give "
            "another name."
        )
    own = _find_input(encoder, is_native=is_native, hu_window=hu_window)
    name = f"{name}{'_native' * is_native}{'_frozen' * is_frozen}{_PLANS}"
    arguments = {
        "feature_size": encoder.feature_size,
        "patch_merging": encoder.patch_merging,
        "use_v2": encoder.use_v2,
        "freeze_encoder": is_frozen,
        "strides": [list(stride) for stride in network_lib.STRIDES],
    }
    source = foreign_files.read_json(plans, fix="Run `nnUNetv2_plan_and_preprocess` first.")
    with foreign_files.reading(plans, fix="Give the plans that nnU-Net has written."):
        adapted = _adapt(source, name, own, arguments, in_channels=encoder.in_channels)

    folder = pathlib.Path(out or pathlib.Path(plans).parent)
    if folder.exists() and not folder.is_dir():
        raise EvaCoralbayError(f"'{folder}' is a file: name the folder to write to.")
    paths = folder / f"{name}.json", folder / f"{name}.pth"
    weights = io.BytesIO()
    torch.save({"network_weights": _initialize(encoder, arguments)}, weights)
    contents = json.dumps(adapted, indent=4).encode(), weights.getvalue()
    for path, content in zip(paths, contents, strict=True):
        if path.exists() and path.read_bytes() != content:
            raise EvaCoralbayError(
                f"'{path}' is of another export, or of nnU-Net: give another name or folder, as "
                "what was preprocessed or trained by it would no longer fit."
            )
    folder.mkdir(parents=True, exist_ok=True)
    _atomic_files.write_atomically(paths[1], contents[1])
    _atomic_files.write_atomically(paths[0], contents[0])
    return paths


def _find_input(
    encoder: encoder_lib.CoralBayEncoder, *, is_native: bool, hu_window: Sequence[float] | None
) -> Preprocessing:
    """Returns the input that the plans are to give the encoder; no spacing is that of the plans."""
    if not is_native:
        lower, upper = hu_window or facts.SOFT_TISSUE_HU
        return Preprocessing.of_window(lower, upper, spacing=None, orientation="SPL")
    if hu_window is not None:
        raise EvaCoralbayError("The native input has its own HU: leave out the window.")
    if encoder.preprocessing is None:
        raise EvaCoralbayError(
            "The input that this encoder was trained on is not known, so the plans cannot have it: "
            "export them without the native input."
        )
    return encoder.preprocessing


def _initialize(
    encoder: encoder_lib.CoralBayEncoder, arguments: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Returns the weights of the network: those of the encoder, and of a decoder of a set seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = network_lib.SwinUNet(encoder.in_channels, 2, **arguments)
    network.encoder.load_state_dict(encoder.state_dict())
    return {key: value for key, value in network.state_dict().items() if _SEG_LAYERS not in key}


def _adapt(
    source: Any,
    name: str,
    own: Preprocessing,
    arguments: Mapping[str, Any],
    *,
    in_channels: int,
) -> dict[str, Any]:
    """Returns plans with the network and its input."""
    configuration = source["configurations"].get(_CONFIGURATION)
    if configuration is None:
        raise UnusableError(
            f"it has no configuration '{_CONFIGURATION}'",
            f"Run `nnUNetv2_plan_and_preprocess -c {_CONFIGURATION}`.",
        )
    num_channels = len(configuration["normalization_schemes"])
    if num_channels != in_channels:
        raise UnusableError(
            f"its scans have {num_channels} channels, but the encoder takes {in_channels}",
            "Choose another data set or encoder.",
        )
    # which axis of the scan becomes which of the network, as the encoder wants it
    backward = [int(axis) for axis in own.to_scan_order((0, 1, 2))]
    forward = [backward.index(axis) for axis in range(3)]

    def turn(values: Sequence[float]) -> list[float]:
        of_scan = [values[axis] for axis in source["transpose_backward"]]
        return [of_scan[axis] for axis in forward]

    planned = turn(configuration["spacing"])
    spacing = planned if own.spacing is None else list(own.spacing)
    size = turn(configuration["median_image_size_in_voxels"])
    adapted = {
        **configuration,
        "data_identifier": f"{name}_{_CONFIGURATION}",
        "patch_size": _fit_patch(turn(configuration["patch_size"])),
        "spacing": spacing,
        "median_image_size_in_voxels": [
            voxels * old / new for voxels, old, new in zip(size, planned, spacing, strict=True)
        ],
        "normalization_schemes": [_NORMALIZATION] * in_channels,
        "use_mask_for_norm": [False] * in_channels,
        "architecture": {
            "network_class_name": _NETWORK,
            "arch_kwargs": dict(arguments),
            "_kw_requires_import": [],
        },
    }
    channels = source["foreground_intensity_properties_per_channel"]
    return {
        **source,
        "plans_name": name,
        "original_median_spacing_after_transp": turn(
            source["original_median_spacing_after_transp"]
        ),
        "original_median_shape_after_transp": turn(source["original_median_shape_after_transp"]),
        "transpose_forward": forward,
        "transpose_backward": backward,
        "configurations": {_CONFIGURATION: adapted},
        "foreground_intensity_properties_per_channel": {
            channel: {**values, **_describe_intensities(own)}
            for channel, values in channels.items()
        },
    }


def _fit_patch(size: Sequence[float]) -> list[int]:
    """Returns the nearest size of a patch that the network takes."""
    sides = [max(1, round(side / _MULTIPLE)) * _MULTIPLE for side in size]
    # a coarsest map of a single voxel cannot be normalized
    return sides if max(sides) > _MULTIPLE else [2 * _MULTIPLE] * 3


def _describe_intensities(own: Preprocessing) -> dict[str, float]:
    """Returns the numbers that `CTNormalization` clips to, subtracts and divides by."""
    if own.hu_clip is None:
        raise EvaCoralbayError("The input of this encoder is not clipped: nnU-Net clips it.")
    lower, upper = own.hu_clip
    return {
        "percentile_00_5": lower,
        "percentile_99_5": upper,
        "mean": own.hu_offset,
        "std": own.hu_scale,
    }
