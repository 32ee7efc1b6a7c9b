"""Hashes of files."""

import hashlib
import os

_CHUNK_BYTES = 2**20
"""Bytes that are read at once."""


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """Hashes the content of a file, without holding it in memory as a whole.

    Args:
        path: The path of the file.

    Returns:
        The SHA-256 in lower-case hexadecimal digits.

    Raises:
        OSError: If the file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
