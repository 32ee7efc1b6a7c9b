"""Hashes of files."""

import hashlib
import os
import pathlib

_CHUNK_BYTES = 2**20
"""Bytes that are read at once."""


def hash_file(path: str | os.PathLike[str], *, algorithm: str = "sha256", start: int = 0) -> str:
    """Hashes the content of a file, without holding it in memory as a whole.

    The hash tells whether a file is the one that is meant; no secret depends on it.

    Args:
        path: The path of the file.
        algorithm: A name that :func:`hashlib.new` knows, such as `md5`.
        start: How many bytes at the beginning of the file are left out.

    Returns:
        The hash in lower-case hexadecimal digits.

    Raises:
        OSError: If the file cannot be read.
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with pathlib.Path(path).open("rb") as file:
        file.seek(start)
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
