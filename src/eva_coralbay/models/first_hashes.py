"""Remembers the hash of published weights whose publisher states none, and checks it ever after."""

import hashlib
import pathlib

from huggingface_hub import constants
from loguru import logger

from eva_coralbay import _atomic_files
from eva_coralbay.models.weight_files import CheckpointError


def check(name: str, source: str, digest: str) -> None:
    """Checks weights against those that were loaded first on this machine; the first are kept.

    Args:
        name: The name of the model, for messages.
        source: Where the weights are published.
        digest: The SHA-256 of the file that was loaded.

    Raises:
        CheckpointError: If other weights were loaded before under the same source.
    """
    path = _path(source)
    first = path.read_text(encoding="utf-8").strip() if path.is_file() else None
    if first is None:
        logger.warning(
            f"{name}: its publisher states no hash of {source}, so other weights cannot be told "
            f"apart. The SHA-256 of these, {digest}, is in each record, and is checked from now on."
        )
        _remember(path, digest)
    elif first != digest:
        raise CheckpointError(
            f"{source}: its SHA-256 is {digest}, but was {first} when {name} was first loaded on "
            "this machine: the publisher has replaced the weights, or the file is damaged. To go "
            f"on with the new ones, remove '{path}'; results of both are not of one model."
        )


def _path(source: str) -> pathlib.Path:
    name = hashlib.sha256(source.encode()).hexdigest()[:16]
    return pathlib.Path(constants.HF_HUB_CACHE) / "eva_coralbay" / f"{name}.sha256"


def _remember(path: pathlib.Path, digest: str) -> None:
    try:
        _atomic_files.write_atomically(path, f"{digest}\n".encode())
    except OSError as error:
        logger.warning(f"'{path}' cannot be written, so this hash is not checked later: {error}.")
