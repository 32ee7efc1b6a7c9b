"""Remembers the hash of published weights whose publisher states none, and checks it later.

It is remembered as long as the cache of the Hub is kept, where it lies beside the weights.
"""

import hashlib
import pathlib
import re

from huggingface_hub import constants
from loguru import logger

from eva_coralbay import _atomic_files
from eva_coralbay.models.weight_files import CheckpointError

_HASH = re.compile(rb"[0-9a-f]{64}\s*")
"""What a file with a hash holds."""


def check(name: str, source: str, digest: str) -> None:
    """Checks weights against those that were loaded first on this machine; the first are kept.

    A hash that cannot be read or kept is warned of: the weights themselves are all right.

    Args:
        name: The name of the model, for messages.
        source: Where the weights are published.
        digest: The SHA-256 of the file that was loaded.

    Raises:
        CheckpointError: If other weights were loaded before under the same source.
    """
    path = _path(source)
    unknown = f"{name}: its publisher states no hash of {source}"
    try:
        first = _read(path)
        if first is None:
            _atomic_files.write_atomically(path, f"{digest}\n".encode())
    except OSError as error:
        logger.warning(
            f"{unknown}, and '{path}', which keeps that of the first file, cannot be read or "
            f"written ({error}): it is not noticed if the weights are replaced. The SHA-256 of "
            f"the file is {digest}."
        )
        return
    if first is None:
        logger.warning(
            f"{unknown}, so other weights cannot be told apart. The SHA-256 of the file, {digest}, "
            f"is checked from now on, as long as '{path}' is kept."
        )
    elif first != digest:
        raise CheckpointError(
            f"{source}: its SHA-256 is {digest}, but was {first} when {name} was first loaded on "
            "this machine: the publisher has replaced the weights, or the file is damaged. If it "
            "is damaged, delete the weights and load them again. To go on with new ones, remove "
            f"'{path}'; results of both are not of one model."
        )


def _path(source: str) -> pathlib.Path:
    name = hashlib.sha256(source.encode()).hexdigest()[:16]
    return pathlib.Path(constants.HF_HUB_CACHE) / "eva_coralbay" / f"{name}.sha256"


def _read(path: pathlib.Path) -> str | None:
    """Returns the hash in a file; None if there is no file, or no hash in it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return content.decode("ascii").strip() if _HASH.fullmatch(content) else None
