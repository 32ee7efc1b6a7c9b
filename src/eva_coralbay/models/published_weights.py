"""Loads published weights into a network, strictly, where the layout of the file is known."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from eva_coralbay import _hashes, _messages
from eva_coralbay.models import key_layouts, tensor_checks, weight_files, weight_sources
from eva_coralbay.models.weight_files import CheckpointError
from eva_coralbay.models.zoo.entry import KeyLayout


def load(
    network: nn.Module, source: str, *, keys: KeyLayout, sha256: str | None, md5: str | None
) -> weight_sources.Origin:
    """Loads weights into a network.

    Args:
        network: The network to fill, which has the names of the file after `keys`.
        source: Path of the file, or a Hub id `org/name[@revision]#file`.
        keys: Under which names the file has the weights.
        sha256: What the SHA-256 of the file must be.
        md5: What its MD5 must be.

    Returns:
        Where the weights come from.

    Raises:
        CheckpointError: If the file is missing, broken, another one, or holds other weights.
    """
    try:
        return _load(network, source, keys=keys, sha256=sha256, md5=md5)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a file from outside makes our code run into
        raise CheckpointError(
            f"{source}: cannot be read as weights ({type(error).__name__}: {error}). Download the "
            "file again."
        ) from error


def _load(
    network: nn.Module, source: str, *, keys: KeyLayout, sha256: str | None, md5: str | None
) -> weight_sources.Origin:
    located = weight_files.locate(source)
    where = str(located.weights)
    weight_files.check_is_binary(located.weights)
    digest = _hashes.hash_file(located.weights)
    weight_files.verify_hash(where, digest, sha256, stated_by="its publisher")
    if md5 is not None:
        weight_files.verify_md5(source, md5)
    fill(network, weight_files.read_file(located.weights), keys=keys, where=where)
    return weight_sources.Origin.of(source, located.revision, digest)


def fill(network: nn.Module, content: Any, *, keys: KeyLayout, where: str) -> None:
    """Fills a network with the content of a weights file.

    Args:
        network: The network to fill.
        content: What the file holds.
        keys: Under which names it has the weights.
        where: The file, for errors.

    Raises:
        CheckpointError: If these are other weights, or tensors that cannot be weights.
    """
    state_dict = _select(content, keys, where=where)
    own = network.state_dict()
    _check_keys(own, state_dict, where=where)
    integers = {name for name, value in own.items() if not value.is_floating_point()}
    tensor_checks.check_tensors(state_dict, integers=integers, where=where)
    network.load_state_dict(state_dict, strict=True)


def _select(content: Any, keys: KeyLayout, *, where: str) -> dict[str, torch.Tensor]:
    """Returns the encoder's tensors, without their prefix."""
    for name in keys.nest:
        if not isinstance(content, Mapping) or name not in content:
            found = _messages.list_names(map(str, content)) if isinstance(content, Mapping) else ""
            raise CheckpointError(
                f"{where}: there is no '{name}' in it (it has {found or type(content).__name__}). "
                "These are the weights of another model."
            )
        content = content[name]
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{where}: holds a {type(content).__name__}, a state dict is needed. These are the "
            "weights of another model."
        )
    tensors = {
        key_layouts.without_wrappers(str(key)): value
        for key, value in content.items()
        if isinstance(value, torch.Tensor)
    }
    beside = re.compile(keys.beside)
    unknown = [k for k in tensors if not k.startswith(keys.prefix) and not beside.match(k)]
    if unknown:
        raise CheckpointError(
            f"{where}: {key_layouts.count_keys('unexpected', unknown)}. These are the weights of "
            "another model."
        )
    return {
        key.removeprefix(keys.prefix): value
        for key, value in tensors.items()
        if key.startswith(keys.prefix) and not beside.match(key)
    }


def _check_keys(
    own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], *, where: str
) -> None:
    shapes = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    kinds = {
        "missing": [key for key in own if key not in given],
        "unexpected": [key for key in given if key not in own],
        "wrong shape": shapes,
    }
    problems = [key_layouts.count_keys(kind, keys) for kind, keys in kinds.items() if keys]
    if problems:
        raise CheckpointError(
            f"{where}: not the weights of this encoder. {'. '.join(problems)}. These are the "
            "weights of another model, or of another version of it."
        )
