"""A local server that misbehaves."""

import hashlib
import http.server
from typing import NamedTuple

from eva_coralbay.tasks import facts

CONTENT = bytes(range(256)) * 1200
"""What it serves."""

MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Answer(NamedTuple):
    """How the server answers a request."""

    status: int = 200
    content_type: str = "application/zip"
    accepts_ranges: bool = True
    breaks_off_after: int | None = None
    sends_length: bool = True
    moves_ranges_by: int = 0
    location: str | None = None
    version: str | None = None
    ignores_versions: bool = False
    content: bytes | None = None
    encoding: str | None = None
    length: str | None = None


class Server(http.server.ThreadingHTTPServer):
    """Serves `CONTENT`, with the next of its answers at each request; the last one repeats."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Answer] = [Answer()]
        self.starts: list[str | None] = []
        self.versions: list[str | None] = []

    def resource(
        self, checksum: str | None = MD5, filename: str = "sub/scans.bin"
    ) -> facts.Resource:
        url = f"http://127.0.0.1:{self.server_port}/scans"
        return facts.Resource(url, filename, checksum)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        answers, starts = self.server.answers, self.server.starts
        answer = answers[min(len(starts), len(answers) - 1)]
        starts.append(asked)
        version = self.headers.get("If-Range")
        self.server.versions.append(version)
        is_other = version not in (None, answer.version) and not answer.ignores_versions
        in_part = answer.accepts_ranges and not is_other
        start = int(asked[len("bytes=") : -1]) if asked and in_part else 0
        if answer.status != 200:
            length = {"Content-Length": answer.length} if answer.length else {}
            place = {"Location": answer.location} if answer.location else {}
            self._reply(answer.status, length | place)
        elif start >= len(CONTENT):
            self._reply(416, {"Content-Range": f"bytes */{len(CONTENT)}"})
        else:
            self._send(answer, start, is_part=start > 0)

    def _send(self, answer: Answer, start: int, *, is_part: bool) -> None:
        headers = {"Content-Type": answer.content_type}
        if answer.version is not None:
            headers["ETag" if '"' in answer.version else "Last-Modified"] = answer.version
        if answer.encoding is not None:
            headers["Content-Encoding"] = answer.encoding
        content = CONTENT if answer.content is None else answer.content
        if answer.sends_length:
            headers["Content-Length"] = answer.length or str(len(CONTENT) - start)
        if is_part:
            start += answer.moves_ranges_by
            headers["Content-Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        self._reply(206 if is_part else 200, headers)
        end = len(CONTENT) if answer.breaks_off_after is None else start + answer.breaks_off_after
        self.wfile.write(content[start:end])

    def _reply(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is that of the standard library
        """Keeps quiet."""
