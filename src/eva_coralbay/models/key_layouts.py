"""Knows under which names training codes keep the encoder, and brings its tensors to eva's keys.

The encoder's own keys begin with `swinViT.` or `encoder1.` to `encoder10.`; around them checkpoints
have nested dictionaries (`state_dict`, `net`, `teacher`, ...) and the names of wrapping modules
(`module.`, `backbone.`, `encoder.`, ...), and beside them decoders and heads. A file may hold more
than one encoder, such as a student and a teacher, or a network and its moving average (EMA): these
differ, so the caller has to say which one is meant.
"""

import collections
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch

from eva_coralbay import _messages
from eva_coralbay.models.weight_files import CheckpointError

SWIN = "swinViT"
"""The Swin part of the encoder."""

_TRANSPARENT = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
)
"""What wrappers of PyTorch add to a key, before it or within it (DDP, compile, FSDP, ...)."""

_WRAPPERS = _TRANSPARENT | {
    "encoder", "backbone", "model", "_model", "net", "network", "teacher", "student",
    "ema", "ema_model", "model_ema", "online_model",
}  # fmt: skip
"""Names of modules that hold the encoder, in any order and number, before its own keys."""

_SWIN_NAMES = frozenset({SWIN, "swin_vit", "swinvit"})
"""How the Swin part is called in checkpoints."""

_BLOCK_NAMES = frozenset({"encoder1", "encoder2", "encoder3", "encoder4", "encoder10"})
"""The convolutional blocks of the encoder."""

_SWIN_PART_NAMES = re.compile(r"patch_embed|layers[1-4]c?")
"""The Swin part's own modules, which stand alone in files that hold nothing else."""

_OTHER_PARTS = re.compile(
    r"decoder\d*|_?decoder|out"  # SwinUNETR; eva's segmentation modules
    r"|n_averaged"  # torch.optim.swa_utils.AveragedModel
    r"|precls_conv|GAP|controller|organ_embedding|text_to_vision"  # SuPreM, Universal Model
    r"|head|heads|dino_head|proj|proj_head|projection_head|projector|predictor|prototypes"
    r"|rotation_(pre|head)|contrastive_(pre|head)|convTrans3d|conv"  # MONAI's self-supervision
    r"|criterion|loss|center|metrics|mask_token"
)
"""Decoders and heads that a checkpoint may hold beside the encoder."""


def find_encoder(
    content: Any, *, where: str, key: str | None = None
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Returns the encoder's tensors under its own keys, and what was done for that.

    Args:
        content: What the file holds: a state dict of the encoder or of a model that has one,
            possibly nested under names.
        where: The file, for errors.
        key: Which encoder is meant where there are several: the name that it is nested under, or
            a name in the prefix of its keys, such as "teacher" or "model_ema".

    Raises:
        CheckpointError: If there is no encoder, more than one that could be meant, or a key
            that belongs neither to the encoder nor to a known decoder or head.
    """
    tensors, report, nests = _unnest(content, where=where, key=key)
    is_used = key in nests
    encoders, others, renamed, unexpected = _sort_by_prefix(tensors)
    if not encoders:
        raise _no_encoder(tensors, where=where)
    prefix = _choose_prefix(list(encoders), where=where, key=None if is_used else key)
    if unexpected:
        raise CheckpointError(f"{where}: {count_keys('unexpected', unexpected)}.")
    report += [f"stripped the prefix '{prefix}.'"] if prefix else []
    report += [f"left out the encoder under '{name}.'" for name in encoders if name != prefix]
    report += [f"renamed '{name}' to '{SWIN}'" for name in renamed]
    report += [f"left out {count} keys of '{name}'" for name, count in others.items()]
    return encoders[prefix], report


# -- nested dictionaries ----------------------------------------------------------------------


def _unnest(
    content: Any, *, where: str, key: str | None
) -> tuple[dict[str, torch.Tensor], list[str], list[str]]:
    """Returns the state dict with the encoder, what was done to find it, and the names above it."""
    report: list[str] = []
    nests: list[str] = []
    place = "the file"
    content = _by_name(content)
    while names := _nested_state_dicts(content):
        name = _choose_nest(names, place=place, where=where, key=key)
        report.append(f"read the state dict under '{name}'")
        report += [f"left out '{other}' beside it" for other in names if other != name]
        report += _name_left_out(content, names)
        content, place = content[name], f"'{name}'"
        nests.append(name)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{where}: {place} holds a {type(content).__name__}, a state dict is needed. Save the "
            "`state_dict()` of the network."
        )
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise CheckpointError(
            f"{where}: no tensors in {place}; it has "
            f"{_messages.list_names(map(str, content)) or 'nothing'}. Pass a file with the weights "
            "of the encoder."
        )
    kinds = sorted({type(name).__name__ for name in tensors if not isinstance(name, str)})
    if kinds:
        raise CheckpointError(
            f"{where}: {place} has keys of type {', '.join(kinds)} in place of names of weights. "
            "Save the `state_dict()` of the network."
        )
    return tensors, report, nests


def _by_name(content: Any) -> Any:
    """Returns nested lists as dictionaries by position, so that their items have names, too."""
    if isinstance(content, (list, tuple)):
        content = {str(index): value for index, value in enumerate(content)}
    if not isinstance(content, Mapping):
        return content
    return {name: _by_name(value) for name, value in content.items()}


def _name_left_out(content: Mapping[Any, Any], chosen: Collection[str]) -> list[str]:
    """Says which other entries have tensors, such as an average without names of its weights."""
    return [
        f"left out '{name}', whose tensors have no names of the encoder"
        for name, value in content.items()
        if name not in chosen and isinstance(value, Mapping) and _holds_tensors(value)
    ]


def _nested_state_dicts(content: Any) -> list[str]:
    """Names under which there is an encoder; without one, the only name with tensors under it."""
    if not isinstance(content, Mapping):
        return []
    nested = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Mapping)
    }
    with_encoder = [name for name, value in nested.items() if _holds_encoder(value)]
    if with_encoder or any(isinstance(value, torch.Tensor) for value in content.values()):
        return with_encoder
    with_tensors = [name for name, value in nested.items() if _holds_tensors(value)]
    return with_tensors if len(with_tensors) == 1 else []


def _holds_encoder(content: Mapping[Any, Any]) -> bool:
    return any(
        _holds_encoder(value)
        if isinstance(value, Mapping)
        else isinstance(value, torch.Tensor) and not _SWIN_NAMES.isdisjoint(str(name).split("."))
        for name, value in content.items()
    )


def _holds_tensors(content: Any) -> bool:
    if isinstance(content, Mapping):
        return any(_holds_tensors(value) for value in content.values())
    return isinstance(content, torch.Tensor)


def _choose_nest(names: list[str], *, place: str, where: str, key: str | None) -> str:
    if len(names) == 1:
        return names[0]
    if key in names:
        return str(key)
    raise CheckpointError(
        f"{where}: {place} holds the weights of several encoders, which differ: "
        f"{_messages.list_names(map(repr, names))}. Say which one is meant by checkpoint_key, as "
        f"in checkpoint_key={names[-1]!r}."
    )


# -- prefixes of keys -------------------------------------------------------------------------


def _sort_by_prefix(
    tensors: Mapping[str, torch.Tensor],
) -> tuple[dict[str, dict[str, torch.Tensor]], collections.Counter[str], list[str], list[str]]:
    """Sorts a state dict.

    Returns:
        The tensors of each encoder by the prefix of its keys, how many tensors other parts have,
        the names of Swin parts that are called otherwise than here, and the keys that belong to
        nothing known.
    """
    encoders: dict[str, dict[str, torch.Tensor]] = {}
    prefixes: dict[str, str] = {}
    others: collections.Counter[str] = collections.Counter()
    unexpected: list[str] = []
    renamed: set[str] = set()
    for key, value in tensors.items():
        prefix, part, rest = _split_key(key)
        if part in _SWIN_NAMES | _BLOCK_NAMES:
            own = f"{SWIN if part in _SWIN_NAMES else part}.{rest}"
            # wrappers may be around some modules only: they do not make another encoder
            prefix = prefixes.setdefault(without_wrappers(prefix), prefix)
            found = encoders.setdefault(prefix, {})
            renamed |= {part} & (_SWIN_NAMES - {SWIN})
            if own in found:
                unexpected.append(key)
            found.setdefault(own, value)
        elif _is_other_part(prefix, part):
            others[f"{prefix}.{part}" if prefix else part] += 1
        else:
            unexpected.append(key)
    return encoders, others, sorted(renamed), unexpected


def _split_key(key: str) -> tuple[str, str, str]:
    """Splits a key into the wrapping modules, the part that they hold, and the rest."""
    names = key.split(".")
    depth = 0
    while depth < len(names) - 1 and names[depth] in _WRAPPERS:
        depth += 1
    return ".".join(names[:depth]), names[depth], without_wrappers(".".join(names[depth + 1 :]))


def without_wrappers(key: str) -> str:
    """Removes what wrappers of PyTorch (DDP, FSDP, compile, ...) add to a name."""
    return ".".join(name for name in key.split(".") if name not in _TRANSPARENT)


def without_leading_wrappers(key: str) -> str:
    """Removes the names of wrapping modules and of modules that hold a network from a key.

    Args:
        key: A key such as "module.backbone.conv1.weight", or the beginning of one with its dot.
    """
    names = without_wrappers(key).split(".")
    while len(names) > 1 and names[0] in _WRAPPERS:
        del names[0]
    return ".".join(names)


def _is_other_part(prefix: str, part: str) -> bool:
    """Whether a key belongs to a decoder or a head, as all that teacher and student have beside.

    What is within the module of the encoder, as `teacher.encoder.adapter`, is not beside it.
    """
    is_beside = without_wrappers(prefix).rpartition(".")[2] in ("teacher", "student")
    return is_beside or _OTHER_PARTS.fullmatch(part) is not None


def _choose_prefix(prefixes: list[str], *, where: str, key: str | None) -> str:
    """Returns the prefix of the encoder that is meant."""
    meant = [p for p in prefixes if key is None or key == p or key in p.split(".")]
    if len(meant) == 1:
        return meant[0]
    if not meant:
        raise CheckpointError(
            f"{where}: there is no '{key}' (checkpoint_key) in it; its encoders are under "
            f"{_messages.list_names(repr(prefix) for prefix in prefixes)}."
        )
    raise CheckpointError(
        f"{where}: several encoders, which differ, under "
        f"{_messages.list_names(repr(prefix) for prefix in prefixes)}. Say which one is meant by "
        f"checkpoint_key, as in checkpoint_key={prefixes[-1]!r}."
    )


def _no_encoder(keys: Iterable[str], *, where: str) -> CheckpointError:
    keys = list(keys)
    if any(_SWIN_PART_NAMES.fullmatch(_split_key(key)[1]) for key in keys):
        return CheckpointError(
            f"{where}: the Swin part alone ({_messages.list_names(keys, limit=2)}), as MONAI's "
            "self-supervised weights have it. The encoder also needs "
            f"{', '.join(sorted(_BLOCK_NAMES))}, which are not trained in these weights: use "
            "weights that hold the whole encoder."
        )
    return CheckpointError(
        f"{where}: no key of a Swin encoder ('{SWIN}.*', 'encoder1.*', ...) after the known "
        f"prefixes ({', '.join(sorted(_WRAPPERS))}); it has {_messages.list_names(keys)}."
    )


def count_keys(kind: str, keys: list[str]) -> str:
    """Says how many keys are of a kind, and names the first of them."""
    return f"{len(keys)} {kind}: {_messages.list_names(keys)}"
