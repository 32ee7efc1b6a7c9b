"""Builds encoders: by a name of the zoo, or of a checkpoint."""

import dataclasses
import difflib
import hashlib
import importlib
import inspect
import pathlib
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import encoder as encoder_lib
from eva_coralbay.models import (
    first_hashes,
    published_weights,
    weight_files,
    weight_sources,
    zoo,
)

_SWIN = encoder_lib.CoralBayEncoder.__name__

_RANDOM_SEED = 0
"""The seed of weights that are random."""

_OPEN = "radiology/coralbay"
"""The name that takes any weights of a `CoralBayEncoder` as `checkpoint`."""


def load_encoder(source: str | pathlib.Path, **options: Any) -> nn.Module:
    """Builds an encoder with its trained weights, in eval mode.

    Args:
        source: A name of the zoo such as "radiology/voco_b" (`eva-coralbay models` lists them), or
            the weights of a `CoralBayEncoder`: a file, a folder or a Hub id
            `org/name[@revision][#file]`.
        options: Arguments of the encoder's class, such as `out_indices`.

    Returns:
        The encoder. It maps a volume [B, 1, D, H, W] to the embedding [B, E], or with
        `out_indices=n` to its last n feature maps, from fine to coarse.

    Raises:
        CheckpointError: The weights cannot be read, or are not those of the encoder.
        EvaCoralbayError: A name is misspelled, or an option is unknown or impossible.
    """
    name = str(source)
    if name in zoo.ENTRIES:
        return build(zoo.ENTRIES[name], **options)
    if _is_meant_as_name(name):
        raise _unknown_name(name)
    return encoder_lib.CoralBayEncoder(checkpoint=source, **options)


def _is_meant_as_name(source: str) -> bool:
    """Whether a source is like a name of the zoo, and no file or folder."""
    families = {name.partition("/")[0] for name in zoo.ENTRIES}
    family = source.partition("/")[0].lower()
    is_meant = "/" in source and family in families
    is_meant |= any(f"{each}/{source.lower()}" in zoo.ENTRIES for each in families)
    return is_meant and not pathlib.Path(source).exists()


def _unknown_name(name: str) -> EvaCoralbayError:
    """Returns the error of a name that is not in the zoo, with those that are close to it."""
    close = difflib.get_close_matches(name.lower(), zoo.ENTRIES, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}?" if close else "`eva-coralbay models` lists all."
    return EvaCoralbayError(f"There is no model '{name}'. {hint}")


def load_swin(source: str | pathlib.Path, **options: Any) -> encoder_lib.CoralBayEncoder:
    """Builds a Swin encoder, as `load_encoder` does.

    Args:
        source: A name of the zoo, a file, a folder or a Hub id.
        options: Arguments of `CoralBayEncoder`.

    Raises:
        CheckpointError: The weights cannot be read, or are not those of the encoder.
        EvaCoralbayError: The name is that of another network, or an option is impossible.
    """
    entry = zoo.ENTRIES.get(str(source))
    if entry is not None and not _is_swin(entry):
        kind = entry.network.rpartition(".")[2]
        swin = ", ".join(name for name, each in zoo.ENTRIES.items() if _is_swin(each))
        raise EvaCoralbayError(
            f"{entry.name} is not a {_SWIN}, but a {kind}: choose one of {swin}, or own weights."
        )
    return cast("encoder_lib.CoralBayEncoder", load_encoder(source, **options))


def build(entry: zoo.Entry, *, random_weights: bool = False, **options: Any) -> nn.Module:
    """Builds an encoder of the zoo, in eval mode.

    Args:
        entry: What the zoo says of it.
        random_weights: Leave its weights random, to look at it without a download.
        options: Arguments of the encoder's class. What the entry says (such as the feature size)
            may be repeated, not changed. `checkpoint` is for a copy of the published weights; for
            "radiology/coralbay" for any weights of a `CoralBayEncoder`.

    Raises:
        CheckpointError: The weights cannot be read, or are not the published ones.
        EvaCoralbayError: An option is unknown, or contradicts the entry.
    """
    kind = _network(entry)
    arguments = {**entry.arguments, **_checked(entry, kind, options)}
    checkpoint = arguments.pop("checkpoint", None)
    if random_weights or entry.weights is None:
        if checkpoint is not None:
            raise EvaCoralbayError(
                f"{entry.name} has random weights and does not load {checkpoint!r}; use "
                "radiology/coralbay for a checkpoint."
            )
        network = kind(**arguments).eval()
    else:
        network: Any = _with_weights(entry, kind, arguments, checkpoint)
    network.preprocessing = entry.preprocessing or network.preprocessing
    return network


def build_named(name: str, *, random_weights: bool = False, **options: Any) -> nn.Module:
    """Builds an encoder of the zoo by its name; random weights are the same each time.

    Args:
        name: The name, which `eva-coralbay models` lists.
        random_weights: Leave its weights random.
        options: As for `build`.

    Raises:
        CheckpointError: The weights cannot be read, or are not the published ones.
        EvaCoralbayError: There is no such name, or an option is impossible.
    """
    if name not in zoo.ENTRIES:
        raise _unknown_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        try:
            return build(zoo.ENTRIES[name], random_weights=random_weights, **options)
        except TypeError as error:  # of an option of another kind
            raise EvaCoralbayError(f"{name} cannot be built with {options}: {error}.") from error


def _is_swin(entry: zoo.Entry) -> bool:
    return entry.network.endswith(f".{_SWIN}")


def _network(entry: zoo.Entry) -> Any:
    """Imports the class of an entry's network."""
    module, _, name = entry.network.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _checked(entry: zoo.Entry, kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that say something, none of which is unknown or contradicts the entry."""
    known = {**inspect.signature(kind).parameters, "checkpoint": None}
    unknown = [option for option in options if option not in known]
    if unknown:
        raise EvaCoralbayError(
            f"{entry.name} does not take {', '.join(unknown)}; it takes {', '.join(known)}."
        )
    given = {name: _as_stated(value) for name, value in options.items() if value is not None}
    published = {} if entry.sha256 is None else {"sha256": entry.sha256}
    stated = {**entry.arguments, **published}
    wrong = [k for k, value in stated.items() if given.get(k, value) != value]
    if wrong:
        fixed = ", ".join(f"{option}={stated[option]!r}" for option in wrong)
        asked = ", ".join(f"{option}={given[option]!r}" for option in wrong)
        config = " (in a config, IN_FEATURES)" if "feature_size" in wrong else ""
        raise EvaCoralbayError(f"{entry.name} has {fixed}{config}, which cannot be {asked}.")
    return given


def _as_stated(value: Any) -> Any:
    """Returns a list, as YAML and JSON have it, as the tuple that an entry says."""
    return tuple(map(_as_stated, value)) if isinstance(value, list) else value


def _with_weights(
    entry: zoo.Entry, kind: Any, arguments: Mapping[str, Any], checkpoint: str | None
) -> nn.Module:
    """Builds the network of an entry and loads its published weights, or a checkpoint."""
    source = checkpoint or str(entry.weights)
    try:
        if entry.keys is None:
            network = _load_itself(entry, kind, arguments, source)
        else:
            network = kind(**arguments)
            network.origin = _fill(network.core, entry, source)
    except weight_files.CheckpointError as error:
        is_hinted = entry.more_weights or (checkpoint is not None and _is_swin(entry))
        if entry.name == _OPEN or not is_hinted:
            raise
        raise weight_files.CheckpointError(f"{error} {_hint(entry)}") from error
    if checkpoint is None and entry.unpinned is not None:
        first_hashes.check(entry.name, " and ".join(entry.files), network.origin.sha256)
    if checkpoint is None or entry.sha256 is not None or entry.md5 is not None:
        network.origin = dataclasses.replace(network.origin, published_as=entry.name)
    return network.eval()


def _hint(entry: zoo.Entry) -> str:
    """Says what `checkpoint` may be for an entry."""
    hint = f"'{entry.name}' stands for its published weights"
    if _is_swin(entry):
        return f"{hint}; for others of the same network use '{_OPEN}' with the checkpoint."
    names = " and ".join(file.rpartition("#")[2] for file in entry.files)
    return f"{hint}: pass a folder with {names}."


def _fill(core: Any, entry: zoo.Entry, source: str) -> weight_sources.Origin:
    """Loads weights into the published network, from one file or a file for each part of it."""
    keys = entry.keys or zoo.KeyLayout()
    folder, files = pathlib.Path(source).expanduser(), entry.files
    if len(files) > 1 and folder.is_dir():
        files = tuple(str(folder / file.rpartition("#")[2]) for file in files)
    elif len(files) == 1 or source != entry.weights:
        return published_weights.load(core, source, keys=keys, sha256=entry.sha256, md5=entry.md5)
    origins = [
        published_weights.load(part, file, keys=keys, sha256=None, md5=None)
        for part, file in zip(core.values(), files, strict=True)
    ]
    joined = hashlib.sha256("".join(origin.sha256 for origin in origins).encode()).hexdigest()
    return weight_sources.Origin.of(source, origins[0].revision, joined)


def _load_itself(entry: zoo.Entry, kind: Any, arguments: Mapping[str, Any], source: str) -> Any:
    """Builds a network that reads checkpoints by itself."""
    if entry.md5 is not None:
        weight_files.verify_md5(source, entry.md5)
    hashes = {} if entry.sha256 is None else {"sha256": entry.sha256}
    return kind(**{**arguments, **hashes}, checkpoint=source)
