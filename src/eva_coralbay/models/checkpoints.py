"""Reads encoder weights of every layout in use and loads them strictly.

A source is one of:

- a file, `.safetensors` or a state dict written by `torch.save`;
- a folder in the transformers layout, `config.json` beside `model.safetensors` or
  `pytorch_model.bin`, as `hub.save_pretrained` writes it and as `kaiko-ai/coralbay` is published;
- a Hub id `org/name` or `org/name@revision` of a repository in that layout.

Nothing that comes with the weights is executed: pickles are read with `weights_only=True` and the
code of a Hub repository is not even downloaded.

The way of the data: locate -> read the tensors -> leave the nesting and strip the prefixes, which
gives eva's key layout (`swinViT.*`, `encoder1.*`, ...) -> check -> `Checkpoint` -> `load_into`.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

import torch
from loguru import logger

from eva_coralbay.models import key_layouts, swin, weight_files
from eva_coralbay.models.weight_files import CheckpointError

if TYPE_CHECKING:
    from eva_coralbay.models import encoder as encoder_lib

__all__ = ["Checkpoint", "CheckpointError", "load_into", "read", "state_dict_sha256"]

_ASSUMED_PATCH_MERGING: swin.PatchMergingVariant = "legacy"
"""The merging of weights that do not state theirs.

The published weights in this key layout (VoCo, SuPreM, the Universal Model) were trained before
MONAI 1.5.0, and CoralBay in the ecosystem of eva, which locks MONAI 1.3.2.
"""

_INDEX_SUFFIX = ".relative_position_index"
"""Buffers that follow from the window size; some exports leave them out."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The weights of an encoder and what is known of them."""

    source: str
    """The path or Hub id that was asked for."""

    sha256: str
    """SHA-256 of the weights file."""

    state_dict: dict[str, torch.Tensor]
    """The weights in eva's key layout."""

    config: dict[str, Any]
    """The content of `config.json`; empty where the source has none."""

    feature_size: int
    """Channels of the finest map, inferred from the tensors."""

    in_channels: int
    """Channels of the input, inferred from the tensors."""

    use_v2: bool
    """Whether each stage begins with a convolutional block, inferred from the tensors."""

    patch_merging: swin.PatchMergingVariant
    """How the weights were trained to merge patches."""

    states_patch_merging: bool
    """Whether the config says so; otherwise it is an assumption."""

    report: tuple[str, ...]
    """What was done to get from the file to the encoder's keys, a sentence each."""


def read(source: str | pathlib.Path, *, sha256: str | None = None) -> Checkpoint:
    """Reads the encoder's weights from a file, a folder or the Hub.

    Args:
        source: Path of a file or a folder, or a Hub id `org/name[@revision]`.
        sha256: What the SHA-256 of the weights file must be.

    Raises:
        CheckpointError: If the source is missing, broken, not an encoder, or not the one that
            the given or the recorded hash belongs to.
    """
    weights_path, config_path = weight_files.locate(str(source))
    where = str(weights_path)
    config = weight_files.read_config(config_path)
    weight_files.check_is_binary(weights_path)
    digest = weight_files.file_sha256(weights_path)
    weight_files.verify_hash(where, digest, sha256, stated_by="the caller")
    weight_files.verify_hash(where, digest, config.get("weights_sha256"), stated_by="its config")

    content = weight_files.read_file(weights_path)
    tensors, nesting_report = key_layouts.unnest(content, where=where)
    state_dict, layout_report = key_layouts.to_encoder_layout(tensors, where=where)
    report = nesting_report + layout_report
    _check_finite(state_dict, where=where)
    sizes = _infer_sizes(state_dict, where=where)
    _check_config(config, sizes, where=str(config_path))
    patch_merging = _stated_patch_merging(config, where=str(config_path))
    if patch_merging is None:
        report.append(f"assumed patch_merging '{_ASSUMED_PATCH_MERGING}', which is not stated")
    return Checkpoint(
        source=str(source),
        sha256=digest,
        state_dict=state_dict,
        config=config,
        patch_merging=patch_merging or _ASSUMED_PATCH_MERGING,
        states_patch_merging=patch_merging is not None,
        report=tuple(report),
        **sizes,
    )


def load_into(
    encoder: "encoder_lib.CoralBayEncoder", source: str | pathlib.Path | Checkpoint
) -> Checkpoint:
    """Loads weights into an encoder of the same architecture, strictly.

    The position index buffers, which follow from the window size, may be missing in the source.

    Args:
        encoder: The encoder to fill.
        source: What `read` takes, or what it returned.

    Returns:
        What was loaded.

    Raises:
        CheckpointError: If the source cannot be read, or its architecture, keys or shapes are
            not those of the encoder.
    """
    checkpoint = source if isinstance(source, Checkpoint) else read(source)
    _check_architecture(encoder, checkpoint)
    own = encoder.state_dict()
    recomputed = {
        key: value
        for key, value in own.items()
        if key.endswith(_INDEX_SUFFIX) and key not in checkpoint.state_dict
    }
    state_dict = checkpoint.state_dict | recomputed
    _check_keys(own, state_dict, where=checkpoint.source)
    encoder.load_state_dict(state_dict, strict=True)
    if recomputed:
        note = f"recomputed {len(recomputed)} position index buffers that the file lacks"
        checkpoint = dataclasses.replace(checkpoint, report=(*checkpoint.report, note))
    logger.info(f"Loaded {checkpoint.source}: {'; '.join(checkpoint.report) or 'keys as they are'}")
    return checkpoint


def state_dict_sha256(state_dict: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, whatever their order."""
    digest = hashlib.sha256()
    for key in sorted(state_dict):
        tensor = state_dict[key].detach().cpu().contiguous()
        digest.update(f"{key}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_finite(state_dict: Mapping[str, torch.Tensor], *, where: str) -> None:
    broken = [k for k, v in state_dict.items() if not torch.isfinite(v).all()]
    if broken:
        raise CheckpointError(
            f"{where}: NaN or infinite weights in {key_layouts.shorten(broken)} ({len(broken)} of "
            f"{len(state_dict)} tensors). The training diverged or the file is damaged."
        )


def _infer_sizes(state_dict: Mapping[str, torch.Tensor], *, where: str) -> dict[str, Any]:
    """Returns feature_size, in_channels and use_v2 as the tensors have them."""
    key = f"{key_layouts.SWIN}.patch_embed.proj.weight"
    if key not in state_dict:
        raise CheckpointError(f"{where}: {key_layouts.count_keys('missing', [key])}.")
    shape = tuple(state_dict[key].shape)
    if len(shape) != 5:
        raise CheckpointError(
            f"{where}: '{key}' has shape {shape}, so these are weights of a "
            f"{len(shape) - 2}D encoder; a 3D one is needed."
        )
    use_v2 = any(name.startswith(f"{key_layouts.SWIN}.layers1c.") for name in state_dict)
    return {"feature_size": shape[0], "in_channels": shape[1], "use_v2": use_v2}


def _check_config(config: Mapping[str, Any], sizes: Mapping[str, Any], *, where: str) -> None:
    wrong = [
        f"{name} {config[name]} but the weights have {value}"
        for name, value in sizes.items()
        if name in config and config[name] != value
    ]
    if wrong:
        raise CheckpointError(
            f"{where}: says {', '.join(wrong)}. It belongs to other weights: download or export "
            "the folder again."
        )


def _stated_patch_merging(
    config: Mapping[str, Any], *, where: str
) -> swin.PatchMergingVariant | None:
    value = config.get("patch_merging")
    variants = get_args(swin.PatchMergingVariant)
    if value is not None and value not in variants:
        raise CheckpointError(f"{where}: patch_merging is {value!r}, it must be one of {variants}.")
    return value


def _check_architecture(encoder: "encoder_lib.CoralBayEncoder", checkpoint: Checkpoint) -> None:
    names = ["feature_size", "in_channels", "use_v2"]
    if checkpoint.states_patch_merging:
        names.append("patch_merging")
    wrong = [name for name in names if getattr(encoder, name) != getattr(checkpoint, name)]
    if wrong:
        differences = ", ".join(
            f"{name} {getattr(checkpoint, name)!r} and the encoder {getattr(encoder, name)!r}"
            for name in wrong
        )
        fix = ", ".join(f"{name}={getattr(checkpoint, name)!r}" for name in wrong)
        raise CheckpointError(
            f"{checkpoint.source}: the weights have {differences}. Build the encoder with {fix}, "
            "or with `CoralBayEncoder.from_pretrained`, which takes them from the weights."
        )
    if encoder.patch_merging != checkpoint.patch_merging:
        logger.warning(
            f"{checkpoint.source} does not state its patch merging, and published weights without "
            f"a word of it have '{checkpoint.patch_merging}'; the encoder has "
            f"'{encoder.patch_merging}', which computes another function from the same weights. "
            f"Pass patch_merging='{checkpoint.patch_merging}' unless you know better."
        )


def _check_keys(
    own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], *, where: str
) -> None:
    missing = [key for key in own if key not in given]
    unexpected = [key for key in given if key not in own]
    shared = [key for key in own if key in given]
    shapes = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
        for key in shared
        if given[key].shape != own[key].shape
    ]
    windows = [
        key
        for key in shared
        if key.endswith(_INDEX_SUFFIX)
        and given[key].shape == own[key].shape
        and not torch.equal(given[key].to(own[key]), own[key])
    ]
    problems = [
        key_layouts.count_keys(kind, keys)
        for kind, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("wrong shape", shapes),
            ("another window layout", windows),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(
            f"{where}: not the weights of this encoder. {'. '.join(problems)}. "
            "Check that the file is a SwinUNETR encoder with 2 blocks a stage and windows of 7."
        )
