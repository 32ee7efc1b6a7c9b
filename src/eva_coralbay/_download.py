"""Downloads that go on where they were interrupted."""

import contextlib
import email.message
import gzip
import http.client
import io
import os
import pathlib
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from typing import Any, NoReturn

from loguru import logger
from typing_extensions import override

from eva_coralbay import (
    __version__,
    _atomic_files,
    _disk_space,
    _file_locks,
    _hashes,
    _progress,
)
from eva_coralbay.errors import EvaCoralbayError

MAX_FAILURES = 7
"""How often in a row a download may break off without getting any further."""

PAUSE_S = 1.0
"""How long to wait after the first failure, in seconds; twice as long after each further one."""

TIMEOUT_S = 60.0
"""How long a server may be silent, in seconds."""

MAX_HOURS = 24.0
"""How long a download takes at most; what has arrived until then is kept."""

_CHUNK = 1 << 20
"""How many bytes are read at once."""

_TRY_LATER = (408, 425, 429, 500, 502, 503, 504)
"""The HTTP statuses that may be gone at the next try."""


class _BrokenOffError(Exception):
    """A download broke off and may be continued."""


def fetch(
    url: str,
    target: str | os.PathLike[str],
    *,
    checksum: str | None = None,
    max_failures: int | None = None,
) -> None:
    """Downloads a file, unless it is there; goes on where an earlier download broke off.

    What has arrived is in a file of the same name with ".part" at its end; beside it is, in one
    with ".part.version", which version of the file the server said it was. The caller holds the
    lock of the folder, see `locked`.

    Args:
        url: The address of the file.
        target: Where to put it; missing folders are made.
        checksum: The checksum that it must have, as "<kind>:<digits>"; None if it is not known.
        max_failures: Another number than `MAX_FAILURES`.

    Raises:
        EvaCoralbayError: If the server does not deliver the file, or delivers another, or the disk
            is full.
    """
    target = os.fspath(target)
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise EvaCoralbayError(f"'{url}' is neither an http nor an https address.")
    parent = pathlib.Path(target).parent
    parent.mkdir(parents=True, exist_ok=True)
    _atomic_files.remove_leftovers(parent)
    if _is_complete(target, checksum):
        return
    part = f"{target}.part"
    with pathlib.Path(part).open("ab", buffering=0) as file:
        _download(url, file, target, max_failures or MAX_FAILURES)
    _check_content(part, url, checksum)
    pathlib.Path(part).replace(target)
    _keep_version(part, None)


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps other processes from downloading and unpacking into a folder, which is made.

    Args:
        folder: The folder.

    Raises:
        EvaCoralbayError: If it cannot be written to.
    """
    path = pathlib.Path(folder, ".download.lock")
    message = f"Waiting for another process that downloads to '{os.fspath(folder)}'."
    with contextlib.ExitStack() as stack:
        try:
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
            stack.enter_context(_file_locks.locked(path, on_busy=lambda: logger.info(message)))
        except OSError as error:
            raise EvaCoralbayError(
                f"'{path}' cannot be written ({error.strerror}): download to a folder that can be "
                "written to."
            ) from error
        yield


def _is_complete(path: str, checksum: str | None) -> bool:
    if not pathlib.Path(path).is_file():
        return False
    if checksum is None or _checksum(path, checksum) == checksum:
        return True
    logger.warning(f"The checksum of '{path}' is not {checksum}: it is downloaded again.")
    return False


def _download(url: str, file: io.FileIO, target: str, max_failures: int) -> None:
    """Appends what is missing of a file, in as many requests as it takes."""
    failures, furthest = 0, file.tell()
    deadline = time.monotonic() + 3600 * MAX_HOURS
    with _progress.bar(desc=pathlib.Path(target).name, unit="B", unit_scale=True) as bar:
        while True:
            try:
                _request(url, file, target, bar, deadline)
                return
            except _BrokenOffError as error:
                failures = 1 if file.tell() > furthest else failures + 1
                furthest = max(furthest, file.tell())
                if failures == max_failures:
                    raise EvaCoralbayError(
                        f"The download of '{url}' broke off {failures} times in a row, last "
                        f"because: {error}. Try again later: what has arrived is kept."
                    ) from error
                logger.warning(f"'{url}': {error}; it is tried again.")
                time.sleep(PAUSE_S * 2 ** (failures - 1))


def _request(url: str, file: io.FileIO, target: str, bar: Any, deadline: float) -> None:
    """Appends to a file what one request brings; what is there already is not asked for."""
    try:
        response = _open(url, start=file.tell(), version=_read_version(str(file.name)))
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and file.tell() > 0:
                _finish_or_restart(error, file)
                return
            raise EvaCoralbayError(
                f"'{url}' cannot be downloaded: the server answers {error.code} ({error.reason})."
            ) from error
    with response:
        if response.status not in (200, 206):
            raise EvaCoralbayError(
                f"'{url}' cannot be downloaded: the server answers {response.status} "
                f"({response.reason}), which is not a file."
            )
        if response.headers.get_content_type() == "text/html":
            raise EvaCoralbayError(
                f"'{url}' is a web page and not the file: it may want you to log in or to accept "
                f"terms. Open it in a browser, and put the file that it leads to at '{target}'."
            )
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise EvaCoralbayError(
                f"'{url}' is sent with the encoding '{encoding}', so it cannot be continued or "
                f"checked. Download it by a browser, and put it at '{target}'."
            )
        total = _align(response, file)
        bar.total, bar.n = total, file.tell()
        bar.refresh()
        folder, needed = pathlib.Path(target).parent, (total or 0) - file.tell()
        _disk_space.check(folder, needed, what=f"'{url}'")
        with _disk_space.full_disk_named(folder, needed, what=f"'{url}'"):
            while chunk := _read(response):
                _write_all(file, chunk)
                bar.update(len(chunk))
                _check_time(deadline, url)
            os.fsync(file.fileno())
    if total is not None and file.tell() != total:
        raise _BrokenOffError(f"the server sent {file.tell()} of {total} bytes")


def _open(url: str, *, start: int, version: str | None) -> Any:
    """Asks for a file from a byte on, if it still is of the version; else for all of it.

    Raises:
        HTTPError: If the server refuses.
        _BrokenOffError: If it may not refuse the next time.
    """
    headers = {"User-Agent": f"eva-coralbay/{__version__}"}
    if start > 0:
        headers["Range"] = f"bytes={start}-"
        if version is not None:
            headers["If-Range"] = version
    try:
        return _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code not in _TRY_LATER:
            raise
        raise _BrokenOffError(f"the server answers {error.code} ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(f"{type(error).__name__}: {error}") from error
    except ValueError as error:  # the address, or that of a redirection, is malformed
        raise EvaCoralbayError(f"'{url}' leads to no valid address: {error}.") from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections without reading their pages, which may be of any size."""

    @override
    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        followed = super().http_error_302(req, io.BytesIO(), code, msg, headers)
        if followed is not None:  # None leaves the answer to the next handler
            fp.close()
        return followed

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener() -> urllib.request.OpenerDirector:
    """Returns what opens http and https addresses, and is not led to any other."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _read(response: Any) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(f"{type(error).__name__}: {error}") from error


def _check_time(deadline: float, url: str) -> None:
    if time.monotonic() > deadline:
        raise EvaCoralbayError(
            f"The download of '{url}' is not complete after {MAX_HOURS:g} hours. What has "
            "arrived is kept: try again to go on, with a faster connection if there is one."
        )


def _write_all(file: io.FileIO, chunk: bytes) -> None:
    """Writes all that the disk has room for, before it raises that it has none."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _align(response: Any, file: io.FileIO) -> int | None:
    """Empties the file if the server sends it from its beginning; returns its full length."""
    version = _find_version(response.headers)
    if response.status != 206:
        file.truncate(0)
        file.seek(0)
        _keep_version(str(file.name), version)
        length = response.headers.get("Content-Length")
        if length is not None and not length.isdecimal():
            raise _BrokenOffError(f"the server says that the file has '{length}' bytes")
        return None if length is None else int(length)
    place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if place is None or int(place[1]) != file.tell():
        _restart(file, "the server sent another part than it was asked for")
    if version not in (None, known := _read_version(str(file.name))) and known is not None:
        _restart(file, "the file has changed on the server")
    return None if place[2] == "*" else int(place[2])


def _find_version(headers: email.message.Message) -> str | None:
    """Returns what changes with the content of a file, if the server says anything of the kind."""
    tag = headers.get("ETag", "")
    # a weak tag, W/"...", is not for ranges
    return tag if tag.startswith('"') else headers.get("Last-Modified")


def _read_version(part: str) -> str | None:
    """Returns the version of a file that has arrived in part, None if the server gave none."""
    try:
        return pathlib.Path(f"{part}.version").read_text(encoding="latin-1")
    except FileNotFoundError:
        return None


def _keep_version(part: str, version: str | None) -> None:
    path = pathlib.Path(f"{part}.version")
    if version is None:
        path.unlink(missing_ok=True)
    else:
        _atomic_files.write_atomically(path, version.encode("latin-1"))


def _finish_or_restart(error: urllib.error.HTTPError, file: io.FileIO) -> None:
    """Checks that the server has no more to send because all is there."""
    if error.headers.get("Content-Range") != f"bytes */{file.tell()}":
        _restart(file, f"the server has no file with {file.tell()} bytes or more")


def _restart(file: io.FileIO, reason: str) -> NoReturn:
    file.truncate(0)
    file.seek(0)
    raise _BrokenOffError(reason)


def _check_content(part: str, url: str, checksum: str | None) -> None:
    """Checks the checksum of a download, which is deleted if it is another."""
    if checksum is None:
        _check_gzip(part, url)
        return
    actual = _checksum(part, checksum)
    if actual != checksum:
        pathlib.Path(part).unlink()
        _keep_version(part, None)
        raise EvaCoralbayError(
            f"'{url}' has the checksum {actual} instead of {checksum}: it was damaged on its way "
            "or changed at its source. What was downloaded is deleted; try again."
        )


def _check_gzip(part: str, url: str) -> None:
    """Checks a download without a checksum by that of gzip, if it is of that kind."""
    if not part.removesuffix(".part").endswith(".gz"):
        return
    try:
        with gzip.open(part) as file:
            while file.read(_CHUNK):
                pass
    except (OSError, EOFError, zlib.error) as error:
        pathlib.Path(part).unlink()
        _keep_version(part, None)
        raise EvaCoralbayError(
            f"'{url}' is not a complete gzip file ({error}): the server sent something "
            "else, or not all of it. What was downloaded is deleted; try again."
        ) from error


def _checksum(path: str, like: str) -> str:
    """Computes the checksum of a file, of the same kind as another."""
    kind = like.partition(":")[0]
    return f"{kind}:{_hashes.hash_file(path, algorithm=kind)}"
