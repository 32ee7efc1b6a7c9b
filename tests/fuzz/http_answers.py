"""A server that answers a download with anything."""

import contextlib
import hashlib
import json
import pathlib
import socket
import threading
from typing import Any

import numpy as np

from eva_coralbay import _download
from eva_coralbay.data import download
from eva_coralbay.tasks import facts
from tests.fuzz import mutations
from tests.fuzz.campaign import Kind

_CONTENT = bytes(range(256)) * 300

_STATUSES = (
    "200 OK", "200 OK", "200 OK", "206 Partial Content", "204 No Content", "205 Reset", "301 Moved",
    "302 Found", "304 Not Modified", "401 No", "404 Not Found", "416 Range", "429 Slow",
    "500 Error", "503 Later", "100 Continue", "999 ?", "abc", "", "200", "-1 x",
)  # fmt: skip

_HEADERS = (
    "Content-Length: 76800", "Content-Length: 76800", "Content-Length: -1", "Content-Length: x",
    "Content-Length: 99999999999999999999", "Content-Length: 10", "Content-Length: 0",
    "Transfer-Encoding: chunked", "Content-Encoding: gzip", "Content-Type: text/html",
    "Content-Type: application/zip", "Content-Type: ;;;", "Content-Range: bytes 0-76799/76800",
    "Content-Range: bytes 5-3/1", "Content-Range: bytes */*", "Content-Range: x", 'ETag: "a"',
    'ETag: W/"a"', "ETag: \xff\xfe", "Last-Modified: never", "Location: /again", "Location:",
    "Location: http://[", "Location: ftp://x/y", "Location: file:///etc/passwd", "no header",
    "Location: http://127.0.0.1:1/", "X: " + "a" * 70_000, ": empty", "\x00: \x00", "Date: x",
)  # fmt: skip

_BODIES = (
    _CONTENT, _CONTENT, b"", b"<html>", _CONTENT[:1000], b"5\r\nab", b"5\r\nhello\r\nffffffff\r\n",
)  # fmt: skip


def _write(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    """Writes the answers to one request after the other; the last one repeats."""
    answers = [_answer(random).decode("latin-1") for _ in range(int(random.integers(1, 4)))]
    (folder / "answers.json").write_text(json.dumps(answers))
    return folder / "answers.json"


def _answer(random: np.random.Generator) -> bytes:
    if random.random() < 0.05:
        return random.bytes(int(random.integers(500)))
    status = mutations.choose(random, _STATUSES)
    chosen = [mutations.choose(random, _HEADERS) for _ in range(int(random.integers(5)))]
    head = "\r\n".join([f"HTTP/1.{random.integers(3)} {status}", *chosen, "", ""])
    body = mutations.choose(
        random, (_CONTENT, _CONTENT, b"", b"<html>", _CONTENT[:1000], b"5\r\nab")
    )
    answer = head.encode("latin-1") + body
    return mutations.damage(random, answer, within=300) if random.random() < 0.3 else answer


def _read(path: pathlib.Path) -> Any:
    """Downloads what a server of its own answers."""
    answers = [text.encode("latin-1") for text in json.loads(path.read_text())]
    _download.PAUSE_S, _download.TIMEOUT_S, _download.MAX_FAILURES = 1e-3, 0.3, 3
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server, answers), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/{path.name}"
        digest = f"sha256:{hashlib.sha256(_CONTENT).hexdigest()}"
        target = download.fetch(facts.Resource(url, "file.bin", digest), str(path.parent / "root"))
    return pathlib.Path(target)


def _serve(server: socket.socket, answers: list[bytes]) -> None:
    number = 0
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.recv(65536)
            with contextlib.suppress(OSError):
                connection.sendall(answers[min(number, len(answers) - 1)])
        number += 1


def _check(path: pathlib.Path, target: pathlib.Path) -> str | None:
    return None if target.read_bytes() == _CONTENT else "another file"


ANSWERS = Kind("http", _write, _read, _check)
