"""Finds weights and their config, on disk or on the Hub, and reads them; runs none of it."""

import hashlib
import json
import pathlib
import pickle  # nosec B403  # only for the error that torch raises
import re
from typing import Any

import huggingface_hub
import safetensors
import safetensors.torch
import torch
from huggingface_hub import errors as hub_errors

from eva_coralbay.errors import EvaCoralbayError

CONFIG_NAME = "config.json"
"""The file of a folder that says what the weights are."""

WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
"""The weights of a folder, in the order in which they are looked for."""


class CheckpointError(EvaCoralbayError):
    """A checkpoint that cannot be used; the message says where, why and what to do."""


def locate(source: str) -> tuple[pathlib.Path, pathlib.Path | None]:
    """Returns the weights file of a source and, where there is one, its config.

    Args:
        source: Path of a file or a folder, or a Hub id `org/name[@revision]`.

    Raises:
        CheckpointError: If there is no such source or it holds no weights.
    """
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
    is_file_name = pathlib.Path(repository).suffix in {
        ".safetensors",
        ".bin",
        ".ckpt",
        ".pt",
        ".pth",
    }
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
    except (
        hub_errors.HFValidationError,
        hub_errors.RepositoryNotFoundError,
        hub_errors.RevisionNotFoundError,
    ) as error:
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
            huggingface_hub.hf_hub_download(repository, name, revision=revision or None)
        )
    except hub_errors.LocalEntryNotFoundError:
        raise
    except hub_errors.EntryNotFoundError:
        return None


def read_config(path: pathlib.Path | None) -> dict[str, Any]:
    """Returns the content of a `config.json`, empty where there is none.

    Raises:
        CheckpointError: If it is not a JSON object.
    """
    if path is None:
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}). Download it again.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: a JSON object is needed, got {type(config).__name__}.")
    return config


def verify_hash(where: str, digest: str, expected: str | None, *, stated_by: str) -> None:
    """Checks a file's SHA-256 against what is stated of it, if anything is.

    Raises:
        CheckpointError: If they differ.
    """
    if expected is not None and digest != str(expected).lower():
        raise CheckpointError(
            f"{where}: SHA-256 is {digest}, but {stated_by} says {expected}. These are other "
            "weights or a damaged copy: download or export them again."
        )


def read_file(path: pathlib.Path) -> Any:
    """Returns the content of a weights file, without running anything that is in it.

    Raises:
        CheckpointError: If it is damaged or holds more than plain data.
    """
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


def check_is_binary(path: pathlib.Path) -> None:
    """Finds out the files that arrive in the place of weights.

    Raises:
        CheckpointError: If the file is empty, a web page or a git-lfs pointer.
    """
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


def file_sha256(path: pathlib.Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
