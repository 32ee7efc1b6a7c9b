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

import collections
import dataclasses
import hashlib
import json
import pathlib
import pickle  # nosec B403: for the error that torch raises when it refuses to unpickle
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, get_args

import huggingface_hub
import safetensors
import safetensors.torch
import torch
from huggingface_hub import errors as hub_errors
from loguru import logger

from eva_coralbay.models import swin

if TYPE_CHECKING:
    from eva_coralbay.models import encoder as encoder_lib

CONFIG_NAME = "config.json"
"""The file of a folder that says what the weights are."""

WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
"""The weights of a folder, in the order in which they are looked for."""

_ASSUMED_PATCH_MERGING: swin.PatchMergingVariant = "legacy"
"""The merging of weights that do not state theirs.

The published weights in this key layout (VoCo, SuPreM, the Universal Model) were trained before
MONAI 1.5.0, and CoralBay in the ecosystem of eva, which locks MONAI 1.3.2.
"""

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

_SWIN = "swinViT"
"""The Swin part of the encoder."""

_SWIN_NAMES = frozenset({_SWIN, "swin_vit", "swinvit"})
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

_INDEX_SUFFIX = ".relative_position_index"
"""Buffers that follow from the window size; some exports leave them out."""

_LISTED = 10
"""How many keys of each kind an error names."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says where, why and what to do."""


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
    weights_path, config_path = _locate(str(source))
    config = _read_config(config_path)
    digest = file_sha256(weights_path)
    _verify_hash(weights_path, digest, expected=sha256, stated_by="the caller")
    _verify_hash(weights_path, digest, config.get("weights_sha256"), stated_by=CONFIG_NAME)

    tensors, nesting = _unnest(_read_file(weights_path), where=str(weights_path))
    state_dict, report = _to_encoder_layout(tensors, where=str(weights_path))
    if nesting:
        report.insert(0, f"read the state dict under '{'.'.join(nesting)}'")
    _check_finite(state_dict, where=str(weights_path))
    sizes = _infer_sizes(state_dict, where=str(weights_path))
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
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def file_sha256(path: pathlib.Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


# -- where the files lie ----------------------------------------------------------------------


def _locate(source: str) -> tuple[pathlib.Path, pathlib.Path | None]:
    """Returns the weights file and, where there is one, its config."""
    path = pathlib.Path(source).expanduser()
    if path.is_dir():
        return _locate_in_folder(path)
    if path.is_file():
        config = path.with_name(CONFIG_NAME)
        in_layout = path.name in WEIGHTS_NAMES and config.is_file()
        return path, config if in_layout else None
    if _looks_like_hub_id(source):
        return _download(source)
    raise CheckpointError(
        f"{source}: no such file or folder, and not a Hub id of the form 'org/name[@revision]'."
    )


def _locate_in_folder(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path | None]:
    config = folder / CONFIG_NAME
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return folder / name, config if config.is_file() else None
    found = ", ".join(sorted(entry.name for entry in folder.iterdir())) or "nothing"
    raise CheckpointError(
        f"{folder}: holds neither {' nor '.join(WEIGHTS_NAMES)} (found: {found}). "
        "Pass the path of the weights file itself if it has another name."
    )


def _looks_like_hub_id(source: str) -> bool:
    repository = source.partition("@")[0]
    is_file_name = pathlib.Path(repository).suffix in {".safetensors", ".bin", ".pt", ".pth"}
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", repository) is not None and not is_file_name


def _download(source: str) -> tuple[pathlib.Path, pathlib.Path | None]:
    """Fetches config and weights, and nothing else, into the Hub's local cache."""
    repository, _, revision = source.partition("@")
    try:
        config = _download_file(repository, CONFIG_NAME, revision)
        for name in WEIGHTS_NAMES:
            weights = _download_file(repository, name, revision)
            if weights is not None:
                return weights, config
    except (hub_errors.RepositoryNotFoundError, hub_errors.RevisionNotFoundError) as error:
        raise CheckpointError(
            f"{source}: no such Hub repository or revision, or no access to it. Check the name; "
            "for a gated repository accept its terms on its page and run `hf auth login`."
        ) from error
    except (OSError, hub_errors.LocalEntryNotFoundError) as error:
        raise CheckpointError(
            f"{source}: not in the local Hub cache, and the Hub does not answer "
            f"({type(error).__name__}). Where there is a connection, run "
            f"`hf download {repository} --local-dir FOLDER` and pass that folder as the "
            "checkpoint, or point HF_ENDPOINT at a mirror."
        ) from error
    raise CheckpointError(
        f"{source}: the repository has neither {' nor '.join(WEIGHTS_NAMES)}. Download its "
        "weights file and pass the path."
    )


def _download_file(repository: str, name: str, revision: str) -> pathlib.Path | None:
    """Returns the local copy of a file of a repository, or None if it has no such file."""
    try:
        return pathlib.Path(
            huggingface_hub.hf_hub_download(  # nosec B615: hashes are verified by the caller
                repository, name, revision=revision or None
            )
        )
    except hub_errors.LocalEntryNotFoundError:
        raise
    except hub_errors.EntryNotFoundError:
        return None


# -- what the files hold ----------------------------------------------------------------------


def _read_config(path: pathlib.Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}). Download it again.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: a JSON object is needed, got {type(config).__name__}.")
    return config


def _verify_hash(path: pathlib.Path, digest: str, expected: str | None, stated_by: str) -> None:
    if expected is not None and digest != str(expected).lower():
        raise CheckpointError(
            f"{path}: SHA-256 is {digest}, but {stated_by} says {expected}. These are other "
            "weights or a damaged copy: download or export them again."
        )


def _read_file(path: pathlib.Path) -> Any:
    """Returns the content of a weights file, without running anything that is in it."""
    _check_is_binary(path)
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise CheckpointError(
                f"{path}: damaged or cut short, not readable as safetensors ({error}). "
                "Download or copy it again."
            ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage can raise anything: KeyError, OSError, RuntimeError, ...
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and refused:
            raise CheckpointError(
                f"{path}: holds other Python objects than tensors ({refused.group(1)}), and "
                "unpickling them could run code, so it is refused. In an environment that you "
                "trust, load it and save `{name: tensor}` alone, best as safetensors."
            ) from error
        raise CheckpointError(
            f"{path}: damaged or cut short, not readable as a PyTorch file "
            f"({type(error).__name__}). Download or copy it again."
        ) from error


def _check_is_binary(path: pathlib.Path) -> None:
    """Names the text files that arrive in the place of weights."""
    with path.open("rb") as file:
        head = file.read(256).lstrip().lower()
    if not head:
        raise CheckpointError(f"{path}: the file is empty. Download or copy it again.")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path}: a git-lfs pointer, not the weights. Run `git lfs pull` in its repository."
        )
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(
            f"{path}: a web page, not weights; the download was answered with an error or a "
            "log-in page. Download it again from the file's direct address."
        )


# -- from the file's layout to the encoder's --------------------------------------------------


def _unnest(content: Any, *, where: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Returns the innermost state dict of a checkpoint and the names that lead to it."""
    nesting: list[str] = []
    while isinstance(content, Mapping):
        tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
        if tensors:
            return tensors, nesting
        candidates = [name for name in _NESTS if _holds_tensors(content.get(name))]
        if not candidates:
            raise CheckpointError(
                f"{where}: no tensors under any known name ({', '.join(_NESTS)}); "
                f"{_at(nesting)} has {_shorten(map(str, content))}."
            )
        if len(candidates) > 1 and candidates != ["teacher", "student"]:
            raise CheckpointError(
                f"{where}: several state dicts ({', '.join(candidates)}) {_at(nesting)}; "
                "save the one that is meant to a file of its own."
            )
        nesting.append(candidates[0])
        content = content[candidates[0]]
    raise CheckpointError(
        f"{where}: {_at(nesting)} is a {type(content).__name__}, a state dict is needed."
    )


def _holds_tensors(content: Any) -> bool:
    if isinstance(content, Mapping):
        return any(_holds_tensors(value) for value in content.values())
    return isinstance(content, torch.Tensor)


def _at(nesting: list[str]) -> str:
    return f"'{'.'.join(nesting)}'" if nesting else "the top level"


def _to_encoder_layout(
    tensors: Mapping[str, torch.Tensor], *, where: str
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Keeps the encoder's tensors under the encoder's keys, and says what it did."""
    by_prefix: dict[str, dict[str, torch.Tensor]] = collections.defaultdict(dict)
    others: dict[str, list[str]] = collections.defaultdict(list)
    for key, value in tensors.items():
        prefix, own = _split_key(key)
        part = own.partition(".")[0]
        if part in _SWIN_NAMES:
            own = f"{_SWIN}.{own.partition('.')[2]}"
        if part in _SWIN_NAMES | _BLOCK_NAMES:
            by_prefix[prefix][own] = value
        else:
            others[part if _is_other_part(prefix, part) else ""].append(key)

    unexpected = others.pop("", [])
    if not by_prefix:
        raise _no_encoder(tensors, where=where)
    prefix = _choose_prefix(list(by_prefix), where=where)
    if unexpected:
        raise CheckpointError(f"{where}: {_keys('unexpected', unexpected)}.")

    report = []
    if prefix:
        report.append(f"stripped the prefix '{prefix}.'")
    report += [f"left out '{name}' beside it" for name in by_prefix if name != prefix]
    if any(_split_key(key)[1].partition(".")[0] in _SWIN_NAMES - {_SWIN} for key in tensors):
        report.append(f"renamed the Swin part to '{_SWIN}'")
    report += [f"left out {len(keys)} keys of '{part}'" for part, keys in others.items()]
    return by_prefix[prefix], report


def _split_key(key: str) -> tuple[str, str]:
    """Splits a key into the modules that wrap the encoder and the encoder's own key."""
    names = key.split(".")
    depth = 0
    while depth < len(names) - 1 and names[depth] in _WRAPPERS:
        depth += 1
    return ".".join(names[:depth]), ".".join(names[depth:])


def _is_other_part(prefix: str, part: str) -> bool:
    """Whether a key belongs to a decoder or a head; all else of teacher and student does."""
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
        f"{where}: several encoders, under {_shorten(repr(prefix) for prefix in prefixes)}; "
        "save the one that is meant to a file of its own."
    )


def _no_encoder(keys: Iterable[str], *, where: str) -> CheckpointError:
    keys = list(keys)
    if any(_SWIN_PART_NAMES.fullmatch(_split_key(key)[1].partition(".")[0]) for key in keys):
        return CheckpointError(
            f"{where}: the Swin part alone ({_shorten(keys, 2)}), as MONAI's self-supervised "
            f"weights have it. The encoder also needs {', '.join(sorted(_BLOCK_NAMES))}, which "
            "no one trained here: use weights that hold the whole encoder."
        )
    return CheckpointError(
        f"{where}: no key of a Swin encoder ('{_SWIN}.*', 'encoder1.*', ...) after the known "
        f"prefixes ({', '.join(sorted(_WRAPPERS))}); it has {_shorten(keys)}."
    )


# -- is it what it should be? -----------------------------------------------------------------


def _check_finite(state_dict: Mapping[str, torch.Tensor], *, where: str) -> None:
    broken = [k for k, v in state_dict.items() if not torch.isfinite(v).all()]
    if broken:
        raise CheckpointError(
            f"{where}: NaN or infinite weights in {_shorten(broken)} ({len(broken)} of "
            f"{len(state_dict)} tensors). The training diverged or the file is damaged."
        )


def _infer_sizes(state_dict: Mapping[str, torch.Tensor], *, where: str) -> dict[str, Any]:
    """Returns feature_size, in_channels and use_v2 as the tensors have them."""
    key = f"{_SWIN}.patch_embed.proj.weight"
    if key not in state_dict:
        raise CheckpointError(f"{where}: {_keys('missing', [key])}.")
    shape = tuple(state_dict[key].shape)
    if len(shape) != 5:
        raise CheckpointError(
            f"{where}: '{key}' has shape {shape}, so these are weights of a "
            f"{len(shape) - 2}D encoder; a 3D one is needed."
        )
    use_v2 = any(name.startswith(f"{_SWIN}.layers1c.") for name in state_dict)
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
        _keys(kind, keys)
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


def _keys(kind: str, keys: list[str]) -> str:
    return f"{len(keys)} {kind}: {_shorten(keys)}"


def _shorten(names: Iterable[str], limit: int = _LISTED) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
