"""Knows under which names training codes keep the encoder, and brings its tensors to eva's keys.

The encoder's own keys begin with `swinViT.` or `encoder1.` to `encoder10.`; around them checkpoints
have nested dictionaries (`state_dict`, `net`, `teacher`, ...) and the names of wrapping modules
(`module.`, `backbone.`, `encoder.`, ...), and beside them decoders and heads.
"""

import collections
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from eva_coralbay.models.weight_files import CheckpointError

SWIN = "swinViT"
"""The Swin part of the encoder."""

_NESTS = (
    "teacher",
    "student",
    "state_dict",
    "model_state_dict",
    "network_weights",
    "net",
    "network",
    "model",
    "encoder",
    "backbone",
)
"""Names under which a training checkpoint keeps a state dict."""

_WRAPPERS = frozenset({"encoder", "module", "backbone", "model", "teacher", "student", "_orig_mod"})
"""Names of modules that hold the encoder, in any order and number, before its own keys."""

_SWIN_NAMES = frozenset({SWIN, "swin_vit", "swinvit"})
"""How the Swin part is called in checkpoints."""

_BLOCK_NAMES = frozenset({"encoder1", "encoder2", "encoder3", "encoder4", "encoder10"})
"""The convolutional blocks of the encoder."""

_SWIN_PART_NAMES = re.compile(r"patch_embed|layers[1-4]c?")
"""The Swin part's own modules, which stand alone in files that hold nothing else."""

_OTHER_PARTS = re.compile(
    r"decoder\d*|_?decoder|out"  # SwinUNETR; eva's segmentation modules
    r"|precls_conv|GAP|controller|organ_embedding|text_to_vision"  # SuPreM, Universal Model
    r"|head|heads|dino_head|proj|proj_head|projection_head|projector|predictor|prototypes"
    r"|rotation_(pre|head)|contrastive_(pre|head)|convTrans3d|conv"  # MONAI's self-supervision
    r"|criterion|loss|center|metrics|mask_token"
)
"""Decoders and heads that a checkpoint may hold beside the encoder."""

_LISTED = 10
"""How many keys of each kind an error names."""


def unnest(content: Any, *, where: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Returns the state dict of a checkpoint and what was done to find it.

    Args:
        content: What the file holds; a training checkpoint nests the state dict under a name.
        where: The file, for errors.

    Raises:
        CheckpointError: If there is no state dict, or more than one that could be meant.
    """
    report: list[str] = []
    place = "the file"
    while names := _nested_state_dicts(content):
        if len(names) > 1 and names != ["teacher", "student"]:
            raise CheckpointError(
                f"{where}: {place} holds several state dicts ({', '.join(names)}); save the one "
                "that is meant to a file of its own."
            )
        content, place = content[names[0]], f"'{names[0]}'"
        report.append(f"read the state dict under {place}")
        report += [f"left out '{name}' beside it" for name in names[1:]]
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{where}: {place} holds a {type(content).__name__}, a state dict is needed."
        )
    tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise CheckpointError(
            f"{where}: no tensors in {place} or under a known name ({', '.join(_NESTS)}); it has "
            f"{shorten(map(str, content)) or 'nothing'}."
        )
    return tensors, report


def _nested_state_dicts(content: Any) -> list[str]:
    if not isinstance(content, Mapping):
        return []
    return [
        name
        for name in _NESTS
        if isinstance(content.get(name), Mapping) and _holds_tensors(content[name])
    ]


def _holds_tensors(content: Any) -> bool:
    if isinstance(content, Mapping):
        return any(_holds_tensors(value) for value in content.values())
    return isinstance(content, torch.Tensor)


def to_encoder_layout(
    tensors: Mapping[str, torch.Tensor], *, where: str
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Returns the encoder's tensors under the encoder's own keys, and what was done for that.

    Args:
        tensors: A state dict of the encoder or of a model that holds one.
        where: The file, for errors.

    Raises:
        CheckpointError: If there is no encoder, more than one that could be meant, or a key
            that belongs neither to the encoder nor to a known decoder or head.
    """
    encoders: dict[str, dict[str, torch.Tensor]] = collections.defaultdict(dict)
    others: collections.Counter[str] = collections.Counter()
    unexpected: list[str] = []
    renamed: set[str] = set()
    for key, value in tensors.items():
        prefix, part, rest = _split_key(key)
        own = f"{SWIN if part in _SWIN_NAMES else part}.{rest}"
        if part in _SWIN_NAMES | _BLOCK_NAMES and own not in encoders[prefix]:
            encoders[prefix][own] = value
            renamed |= {part} & (_SWIN_NAMES - {SWIN})
        elif _is_other_part(prefix, part):
            others[f"{prefix}.{part}" if prefix else part] += 1
        else:
            unexpected.append(key)

    encoders = {prefix: found for prefix, found in encoders.items() if found}
    if not encoders:
        raise _no_encoder(tensors, where=where)
    prefix = _choose_prefix(list(encoders), where=where)
    if unexpected:
        raise CheckpointError(f"{where}: {count_keys('unexpected', unexpected)}.")
    report = [f"stripped the prefix '{prefix}.'"] if prefix else []
    report += [f"left out the encoder under '{name}.'" for name in encoders if name != prefix]
    report += [f"renamed '{name}' to '{SWIN}'" for name in renamed]
    report += [f"left out {count} keys of '{name}'" for name, count in others.items()]
    return encoders[prefix], report


def _split_key(key: str) -> tuple[str, str, str]:
    """Splits a key into the wrapping modules, the part that they hold, and the rest."""
    names = key.split(".")
    depth = 0
    while depth < len(names) - 1 and names[depth] in _WRAPPERS:
        depth += 1
    return ".".join(names[:depth]), names[depth], ".".join(names[depth + 1 :])


def _is_other_part(prefix: str, part: str) -> bool:
    """Whether a key belongs to a decoder or a head, as all else of teacher and student does."""
    in_head = not {"teacher", "student"}.isdisjoint(prefix.split("."))
    return in_head or _OTHER_PARTS.fullmatch(part) is not None


def _choose_prefix(prefixes: list[str], *, where: str) -> str:
    """Returns the one encoder of a file, or of teacher and student the teacher."""
    if len(prefixes) == 1:
        return prefixes[0]
    teachers = [prefix for prefix in prefixes if "teacher" in prefix.split(".")]
    students = [prefix for prefix in prefixes if "student" in prefix.split(".")]
    if len(teachers) == 1 and len(students) == len(prefixes) - 1:
        return teachers[0]
    raise CheckpointError(
        f"{where}: several encoders, under {shorten(repr(prefix) for prefix in prefixes)}; "
        "save the one that is meant to a file of its own."
    )


def _no_encoder(keys: Iterable[str], *, where: str) -> CheckpointError:
    keys = list(keys)
    if any(_SWIN_PART_NAMES.fullmatch(_split_key(key)[1]) for key in keys):
        return CheckpointError(
            f"{where}: the Swin part alone ({shorten(keys, 2)}), as MONAI's self-supervised "
            f"weights have it. The encoder also needs {', '.join(sorted(_BLOCK_NAMES))}, which "
            "no one trained here: use weights that hold the whole encoder."
        )
    return CheckpointError(
        f"{where}: no key of a Swin encoder ('{SWIN}.*', 'encoder1.*', ...) after the known "
        f"prefixes ({', '.join(sorted(_WRAPPERS))}); it has {shorten(keys)}."
    )


def count_keys(kind: str, keys: list[str]) -> str:
    """Says how many keys are of a kind, and names the first of them."""
    return f"{len(keys)} {kind}: {shorten(keys)}"


def shorten(names: Iterable[str], limit: int = _LISTED) -> str:
    """Lists the first names and says how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
