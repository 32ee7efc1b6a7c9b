"""Loads published weights into a network, strictly, where the layout of the file is known."""

import collections
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from eva_coralbay import _hashes, _messages
from eva_coralbay.models import key_layouts, tensor_checks, weight_files, weight_sources
from eva_coralbay.models.weight_files import CheckpointError
from eva_coralbay.models.zoo.entry import KeyLayout

_AXES_3D = 5
"""Axes of the weights of a 3D convolution."""

_NESTS = ("state_dict", "model_state_dict", "net", "network", "model")
"""Names under which training codes nest a state dict."""


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
    """Returns the encoder's tensors, without their prefix and the names of wrapping modules."""
    tensors = _without_wrappers(_leave_nests(content, keys.nest), where=where)
    prefix, beside = key_layouts.without_leading_wrappers(keys.prefix), re.compile(keys.beside)
    if not any(key.startswith(prefix) for key in tensors):
        # the encoder may have been saved on its own
        prefix, beside = "", re.compile(KeyLayout.beside)
    unknown = [k for k in tensors if not k.startswith(prefix) and not beside.match(k)]
    if unknown:
        raise CheckpointError(
            f"{where}: {key_layouts.count_keys('unexpected', unknown)}. These are the weights of "
            "another model."
        )
    selected = {
        key.removeprefix(prefix): value
        for key, value in tensors.items()
        if key.startswith(prefix) and not beside.match(key)
    }
    if not selected:
        raise CheckpointError(
            f"{where}: no weights of this encoder; it has {_messages.list_names(tensors)}. These "
            "are the weights of another model."
        )
    return selected


def _leave_nests(content: Any, nest: Collection[str]) -> Any:
    """Returns what is nested under the names of a layout, and under those of training codes."""
    while isinstance(content, Mapping):
        inner = (content[n] for n in (*nest, *_NESTS) if isinstance(content.get(n), Mapping))
        found = next(inner, None)
        if found is None:
            break
        content = found
    return content


def _without_wrappers(content: Any, *, where: str) -> dict[str, torch.Tensor]:
    """Returns the tensors of a state dict, without the names of wrapping modules."""
    named = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(key): value for key, value in named if isinstance(value, torch.Tensor)}
    if not tensors:
        found = _messages.list_names(map(str, content)) if isinstance(content, Mapping) else ""
        raise CheckpointError(
            f"{where}: holds no state dict, but {found or f'a {type(content).__name__}'}. These "
            "are no weights, or those of another model."
        )
    names = {key: key_layouts.without_leading_wrappers(key) for key in tensors}
    twice = [key for key, count in collections.Counter(names.values()).items() if count > 1]
    if twice:
        raise CheckpointError(
            f"{where}: the weights of several networks, such as a student and a teacher: "
            f"{key_layouts.count_keys('keys twice', twice)}. Save the state dict of one of them."
        )
    return {names[key]: value for key, value in tensors.items()}


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
    flat = [key for key in own if own[key].ndim == _AXES_3D and _is_flat(given.get(key))]
    if flat:
        raise CheckpointError(
            f"{where}: weights of a 2D network ({key_layouts.count_keys('of images', flat)}), and "
            "this encoder is 3D. For images, slice by slice, `eva-coralbay models` lists slices/*."
        )
    if problems:
        raise CheckpointError(
            f"{where}: not the weights of this encoder. {'. '.join(problems)}. These are the "
            "weights of another model, or of another version of it."
        )


def _is_flat(weights: torch.Tensor | None) -> bool:
    """Whether these are the weights of a 2D convolution."""
    return weights is not None and weights.ndim == _AXES_3D - 1
