"""Downloads a file of weights from an address, completely or not at all."""

import http.client
import pathlib
import urllib.request

from eva_coralbay import __version__, _atomic_files, _progress

_TIMEOUT_S = 60
"""The seconds without an answer after which a download is given up."""

_CHUNK_BYTES = 2**20
"""The bytes of a file that are fetched at a time."""


def fetch(url: str, path: pathlib.Path) -> None:
    """Downloads a file.

    Args:
        url: Its address.
        path: Where to write it; missing folders are made.

    Raises:
        OSError: If it cannot be fetched, or the connection breaks off before its end.
    """
    request = urllib.request.Request(url, headers={"User-Agent": f"eva-coralbay/{__version__}"})
    try:
        with (
            urllib.request.build_opener().open(request, timeout=_TIMEOUT_S) as response,
            _atomic_files.open_atomically(path) as file,
            _progress.bar(
                desc=path.name, total=response.length, unit="B", unit_scale=True
            ) as progress,
        ):
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                progress.update(len(chunk))
            if response.length:  # what is left, where the server has said how long the file is
                raise OSError(f"the connection broke off {response.length:,} bytes before the end")
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
