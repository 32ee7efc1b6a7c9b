"""Reads encoder weights of every layout in use, and checks that they are what they should be.

A source is one of:

- a file, `.safetensors` or a state dict written by `torch.save`;
- a folder in the transformers layout, `config.json` beside `model.safetensors` or
  `pytorch_model.bin`, as `CoralBayEncoder.save_pretrained` writes it and as `kaiko-ai/coralbay` is
  published;
- a Hub id `org/name[@revision]` of a repository in that layout, or `org/name[@revision]#file`.

Nothing that comes with the weights is executed: pickles are read with `weights_only=True` and the
code of a Hub repository is not even downloaded.

The way of the data: locate -> read the tensors -> leave the nesting and strip the prefixes, which
gives eva's key layout (`swinViT.*`, `encoder1.*`, ...) -> check -> `Checkpoint`, which
`CoralBayEncoder` builds itself from.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any, get_args

import torch
from loguru import logger

from eva_coralbay import _hashes
from eva_coralbay.models import attention, key_layouts, swin, tensor_checks, weight_files
from eva_coralbay.models.weight_files import CheckpointError

__all__ = ["Checkpoint", "CheckpointError", "read", "resolve_patch_merging", "state_dict_sha256"]

_ASSUMED_PATCH_MERGING: swin.PatchMergingVariant = "legacy"
"""The merging of weights that do not state theirs.

The published weights in this key layout (VoCo, SuPreM, the Universal Model) were trained before
MONAI 1.5.0, and CoralBay in the ecosystem of eva, which locks MONAI 1.3.2.
"""

_INDEX_SUFFIX = ".relative_position_index"
"""Buffers that follow from the window size; some exports leave them out."""

_TRAINING = "coralbay"
"""Where a checkpoint of our own pre-training says what it trains."""

_EMBEDDINGS = {"multi": "multiscale", "last": "head"}
"""The embedding that each choice of scales distills."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The weights of an encoder and what is known of them."""

    source: str
    """The path or Hub id that was asked for."""

    revision: str | None
    """The revision that was asked of the Hub."""

    sha256: str
    """SHA-256 of the weights file."""

    state_dict: dict[str, torch.Tensor]
    """The weights in eva's key layout."""

    config: dict[str, Any]
    """The content of `config.json`, or what a checkpoint of our pre-training says of its encoder;
    empty where the source says nothing."""

    feature_size: int
    """Channels of the finest map, inferred from the tensors."""

    in_channels: int
    """Channels of the input, inferred from the tensors."""

    use_v2: bool
    """Whether each stage begins with a convolutional block, inferred from the tensors."""

    patch_merging: swin.PatchMergingVariant | None
    """How the weights were trained to merge patches; None where the source does not say."""

    report: tuple[str, ...]
    """What was done to get from the file to the encoder's keys, a sentence each."""


def read(
    source: str | pathlib.Path,
    *,
    sha256: str | None = None,
    checkpoint_key: str | None = None,
) -> Checkpoint:
    """Reads the encoder's weights from a file, a folder or the Hub.

    Args:
        source: Path of a file or a folder, or a Hub id `org/name[@revision][#file]`.
        sha256: What the SHA-256 of the weights file must be.
        checkpoint_key: Which weights are meant where a file holds several, for example "teacher"
            or "model_ema".

    Raises:
        CheckpointError: If the source is missing, broken, not an encoder, or not the one that
            the given or the recorded hash belongs to.
    """
    try:
        return _read(str(source), sha256=sha256, checkpoint_key=checkpoint_key)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a file from outside makes our code run into
        raise CheckpointError(
            f"{source}: cannot be read as the weights of an encoder "
            f"({type(error).__name__}: {error}). Save the `state_dict()` of the encoder with "
            "`torch.save` or as safetensors, and pass that file."
        ) from error


def resolve_patch_merging(
    source: str,
    *,
    stated: swin.PatchMergingVariant | None,
    given: swin.PatchMergingVariant | None,
) -> swin.PatchMergingVariant:
    """Decides how an encoder merges patches: as its weights state, else as the caller says.

    Args:
        source: Where the weights come from, for errors.
        stated: What is stated with the weights.
        given: What the caller wants; None for what the weights state.

    Returns:
        The variant. Where nobody says anything it is that of the published weights in this
        layout. A warning says what to check, unless the caller has stated just that.

    Raises:
        CheckpointError: If the caller contradicts the weights.
    """
    if stated is not None and given not in (None, stated):
        raise CheckpointError(
            f"{source}: the weights have patch_merging {stated!r} and the encoder {given!r}. Leave "
            f"patch_merging out, or pass patch_merging={stated!r}."
        )
    if stated is None and given != _ASSUMED_PATCH_MERGING:
        chosen = (
            f"'{_ASSUMED_PATCH_MERGING}' is assumed" if given is None else f"you chose '{given}'"
        )
        logger.warning(
            f"{source} does not state how its weights merge patches; {chosen}, and published "
            f"SwinUNETR weights have '{_ASSUMED_PATCH_MERGING}'. Check the MONAI version that they "
            "were trained with: before 1.5.0 it is 'legacy', since then 'octants'; the other "
            "variant computes other features from the same weights. Pass "
            f"patch_merging='{_ASSUMED_PATCH_MERGING}' if it is right."
        )
    return stated or given or _ASSUMED_PATCH_MERGING


def check_keys(
    own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], *, where: str
) -> None:
    """Checks that weights are those of an encoder.

    Args:
        own: The encoder's state dict; only its names and shapes are looked at.
        given: The weights. The position index buffers, which follow from the window size, may be
            missing.
        where: The file, for errors.

    Raises:
        CheckpointError: If names or shapes differ, or the windows are laid out otherwise.
    """
    missing = [key for key in own if key not in given and not key.endswith(_INDEX_SUFFIX)]
    unexpected = [key for key in given if key not in own]
    shared = [key for key in own if key in given]
    shapes = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
        for key in shared
        if given[key].shape != own[key].shape
    ]
    index = attention.relative_position_index()
    windows = [
        key
        for key in shared
        if key.endswith(_INDEX_SUFFIX)
        and given[key].shape == index.shape
        and not torch.equal(given[key].to(index), index)
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


def state_dict_sha256(state_dict: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, whatever their order."""
    digest = hashlib.sha256()
    for key in sorted(state_dict):
        tensor = state_dict[key].detach().cpu().contiguous()
        digest.update(f"{key}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# -- the steps of reading ---------------------------------------------------------------------


def _read(source: str, *, sha256: str | None, checkpoint_key: str | None) -> Checkpoint:
    located = weight_files.locate(source)
    where = str(located.weights)
    config = weight_files.read_config(located.config)
    weight_files.check_is_binary(located.weights)
    digest = _hashes.hash_file(located.weights)
    weight_files.verify_hash(where, digest, sha256, stated_by="whoever published or asked for it")
    weight_files.verify_hash(where, digest, config.get("weights_sha256"), stated_by="its config")

    content = weight_files.read_file(located.weights)
    if _is_own_training(content):
        config = _training_config(content[_TRAINING], where=where)
        checkpoint_key = checkpoint_key or "teacher"
    state_dict, report = key_layouts.find_encoder(content, where=where, key=checkpoint_key)
    indices = {name for name in state_dict if name.endswith(_INDEX_SUFFIX)}
    tensor_checks.check_tensors(state_dict, integers=indices, where=where)
    sizes = _infer_sizes(state_dict, where=where)
    _check_config(config, sizes, where=str(located.config))
    return Checkpoint(
        source=source,
        revision=located.revision,
        sha256=digest,
        state_dict=state_dict,
        config=config,
        patch_merging=_stated_patch_merging(config, where=str(located.config or where)),
        report=tuple(report),
        **sizes,
    )


def _is_own_training(content: Any) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get(_TRAINING), Mapping)


def _training_config(training: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Returns what a checkpoint of our pre-training says of its encoder, as an export would."""
    encoder = training.get("encoder")
    scales = training.get("scales")
    if not isinstance(encoder, Mapping) or scales not in _EMBEDDINGS:
        raise CheckpointError(
            f"{where}: does not say which encoder was trained. Export it with the version of "
            "`eva-coralbay pretrain export` that belongs to the training, and pass the folder."
        )
    return {**encoder, "embeddings_type": _EMBEDDINGS[scales]}


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
