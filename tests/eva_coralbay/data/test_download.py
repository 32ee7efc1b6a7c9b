"""Tests downloads from a local server that misbehaves, and archives that are damaged or evil."""

import errno
import gzip
import hashlib
import http.server
import io
import os
import pathlib
import shutil
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from eva_coralbay.data import download
from eva_coralbay.data.datasets import task
from eva_coralbay.errors import DatasetError

_CONTENT = bytes(range(256)) * 1200
_MD5 = f"md5:{hashlib.md5(_CONTENT).hexdigest()}"


class _Answer(NamedTuple):
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


class _Server(http.server.ThreadingHTTPServer):
    """Serves `_CONTENT`, with the next of its answers at each request; the last one repeats."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[_Answer] = [_Answer()]
        self.starts: list[str | None] = []
        self.versions: list[str | None] = []

    def resource(
        self, checksum: str | None = _MD5, filename: str = "sub/scans.bin"
    ) -> task.Resource:
        url = f"http://127.0.0.1:{self.server_port}/scans"
        return task.Resource(url, filename, checksum)


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
            self._reply(answer.status, {"Location": answer.location} if answer.location else {})
        elif start >= len(_CONTENT):
            self._reply(416, {"Content-Range": f"bytes */{len(_CONTENT)}"})
        else:
            self._send(answer, start, is_part=start > 0)

    def _send(self, answer: _Answer, start: int, *, is_part: bool) -> None:
        headers = {"Content-Type": answer.content_type}
        if answer.version is not None:
            headers["ETag" if '"' in answer.version else "Last-Modified"] = answer.version
        if answer.encoding is not None:
            headers["Content-Encoding"] = answer.encoding
        content = _CONTENT if answer.content is None else answer.content
        if answer.sends_length:
            headers["Content-Length"] = str(len(_CONTENT) - start)
        if is_part:
            start += answer.moves_ranges_by
            headers["Content-Range"] = f"bytes {start}-{len(_CONTENT) - 1}/{len(_CONTENT)}"
        self._reply(206 if is_part else 200, headers)
        end = len(_CONTENT) if answer.breaks_off_after is None else start + answer.breaks_off_after
        self.wfile.write(content[start:end])

    def _reply(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keeps quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setattr(download, "_PAUSE_S", 1e-3)
    with _Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_fetches_into_place(server: _Server, tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(download.fetch(server.resource(), str(tmp_path)))

    assert path == tmp_path / "sub" / "scans.bin"
    assert path.read_bytes() == _CONTENT
    assert not list(tmp_path.rglob("*.part*"))


def test_continues_after_drops(server: _Server, tmp_path: pathlib.Path) -> None:
    server.answers = [_Answer(breaks_off_after=100_000), _Answer(status=503), _Answer()]

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == _CONTENT
    assert server.starts == [None, "bytes=100000-", "bytes=100000-"]


def test_continues_what_an_earlier_process_left(server: _Server, tmp_path: pathlib.Path) -> None:
    _write(tmp_path / "sub" / "scans.bin.part", _CONTENT[:5])

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == _CONTENT
    assert server.starts == ["bytes=5-"]


def test_keeps_on_as_long_as_it_gets_further(server: _Server, tmp_path: pathlib.Path) -> None:
    server.answers = [_Answer(breaks_off_after=20_000)]

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == _CONTENT
    assert len(server.starts) > download._MAX_FAILURES


def test_gives_up_if_it_gets_no_further(server: _Server, tmp_path: pathlib.Path) -> None:
    server.answers = [_Answer(breaks_off_after=100_000), _Answer(breaks_off_after=0)]

    with pytest.raises(DatasetError, match="sent 100000 of 307200 bytes.*is kept"):
        download.fetch(server.resource(), str(tmp_path))

    assert len(server.starts) == download._MAX_FAILURES
    assert (tmp_path / "sub" / "scans.bin.part").read_bytes() == _CONTENT[:100_000]


def test_starts_over_if_ranges_are_ignored(server: _Server, tmp_path: pathlib.Path) -> None:
    server.answers = [_Answer(breaks_off_after=100_000), _Answer(accepts_ranges=False)]

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == _CONTENT


def test_gives_up_if_ranges_are_ignored_and_it_always_drops(
    server: _Server, tmp_path: pathlib.Path
) -> None:
    server.answers = [_Answer(breaks_off_after=100_000, accepts_ranges=False)]

    with pytest.raises(DatasetError, match="broke off 7 times in a row"):
        download.fetch(server.resource(), str(tmp_path))


@pytest.mark.parametrize("version", ['"second"', "Tue, 02 Jan 2024 00:00:00 GMT"])
@pytest.mark.parametrize("ignores_versions", [False, True])
def test_two_versions_are_never_joined(
    server: _Server, tmp_path: pathlib.Path, version: str, ignores_versions: bool
) -> None:
    first = version.replace("second", "first").replace("02", "01")
    old = _Answer(breaks_off_after=100_000, version=first, content=bytes(len(_CONTENT)))
    new = _Answer(version=version, ignores_versions=ignores_versions)
    server.answers = [old, _Answer(status=403), new]
    with pytest.raises(DatasetError, match="answers 403"):
        download.fetch(server.resource(checksum=None), str(tmp_path))

    path = download.fetch(server.resource(checksum=None), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == _CONTENT
    assert server.versions[:3] == [None, first, first]
    assert not list(tmp_path.rglob("*.part*"))


def test_continues_the_same_version(server: _Server, tmp_path: pathlib.Path) -> None:
    server.answers = [_Answer(breaks_off_after=100_000, version='"a"'), _Answer(version='"a"')]

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == _CONTENT
    assert (server.starts, server.versions) == ([None, "bytes=100000-"], [None, '"a"'])


def test_weak_versions_are_not_asked_for(server: _Server, tmp_path: pathlib.Path) -> None:
    server.answers = [_Answer(breaks_off_after=100_000, version='W/"a"'), _Answer(version='W/"a"')]

    download.fetch(server.resource(), str(tmp_path))

    assert server.versions == [None, None]


def test_starts_over_if_another_range_comes(server: _Server, tmp_path: pathlib.Path) -> None:
    server.answers = [_Answer(breaks_off_after=100_000), _Answer(moves_ranges_by=7), _Answer()]

    path = download.fetch(server.resource(checksum=None), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == _CONTENT


def test_accepts_a_part_that_is_complete(server: _Server, tmp_path: pathlib.Path) -> None:
    _write(tmp_path / "sub" / "scans.bin.part", _CONTENT)

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == _CONTENT
    assert server.starts == [f"bytes={len(_CONTENT)}-"]


def test_starts_over_if_the_part_is_too_long(server: _Server, tmp_path: pathlib.Path) -> None:
    _write(tmp_path / "sub" / "scans.bin.part", _CONTENT + b"surplus")

    path = download.fetch(server.resource(checksum=None), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == _CONTENT


def test_works_without_content_length(server: _Server, tmp_path: pathlib.Path) -> None:
    server.answers = [_Answer(sends_length=False)]

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == _CONTENT


def test_refuses_a_web_page(server: _Server, tmp_path: pathlib.Path) -> None:
    server.answers = [_Answer(content_type="text/html; charset=utf-8")]

    with pytest.raises(DatasetError, match="is a web page.*log in.*sub/scans.bin"):
        download.fetch(server.resource(checksum=None), str(tmp_path))

    assert not (tmp_path / "sub" / "scans.bin").exists()


@pytest.mark.parametrize("content", [gzip.compress(_CONTENT)[:-20], b"<html>log in</html>"])
def test_a_file_without_a_checksum_is_checked_by_that_of_gzip(
    content: bytes, server: _Server, tmp_path: pathlib.Path
) -> None:
    """It was cut off without a length, or a web page is sent as another type."""
    server.answers = [
        _Answer(sends_length=False, content=content),
        _Answer(sends_length=False, content=gzip.compress(_CONTENT)),
    ]
    resource = server.resource(checksum=None, filename="scan.nii.gz")

    with pytest.raises(DatasetError, match="is no complete gzip file"):
        download.fetch(resource, str(tmp_path))
    assert not _files(tmp_path) or {path.name for path in _files(tmp_path)} == {".download.lock"}
    assert gzip.decompress(pathlib.Path(download.fetch(resource, str(tmp_path))).read_bytes())


def test_an_encoding_is_refused(server: _Server, tmp_path: pathlib.Path) -> None:
    server.answers = [_Answer(encoding="gzip")]

    with pytest.raises(DatasetError, match="is sent with the encoding 'gzip'"):
        download.fetch(server.resource(checksum=None), str(tmp_path))

    assert not (tmp_path / "sub" / "scans.bin").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: pathlib.Path) -> None:
    _make_zip(tmp_path / "a.zip", {"a.bin": b"a"})
    (tmp_path / "root" / ".download.lock").mkdir(parents=True)

    with pytest.raises(DatasetError, match="root/.download.lock' cannot be written .*: download"):
        download.extract(str(tmp_path / "a.zip"), str(tmp_path / "root"))


@pytest.mark.parametrize("status", [401, 403, 404, 416])
def test_refusal_is_not_repeated(status: int, server: _Server, tmp_path: pathlib.Path) -> None:
    server.answers = [_Answer(status=status)]

    with pytest.raises(DatasetError, match=f"the server answers {status}"):
        download.fetch(server.resource(), str(tmp_path))

    assert len(server.starts) == 1


def test_wrong_checksum_is_named_and_removed(server: _Server, tmp_path: pathlib.Path) -> None:
    digest = hashlib.sha256(_CONTENT).hexdigest()

    with pytest.raises(DatasetError, match=f"sha256:{digest} instead of sha256:00"):
        download.fetch(server.resource("sha256:00"), str(tmp_path))
    download.fetch(server.resource(f"sha256:{digest}"), str(tmp_path))

    assert server.starts == [None, None]


def test_does_not_fetch_again(server: _Server, tmp_path: pathlib.Path) -> None:
    for _ in range(2):
        download.fetch(server.resource(), str(tmp_path))

    assert len(server.starts) == 1


def test_replaces_a_file_with_another_checksum(server: _Server, tmp_path: pathlib.Path) -> None:
    _write(tmp_path / "sub" / "scans.bin", b"cut off")

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == _CONTENT


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/scans", "scans.zip"])
def test_other_addresses_are_refused(url: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="neither an http nor an https address"):
        download.fetch(task.Resource(url, "scans.zip"), str(tmp_path))


def test_is_not_led_to_other_addresses(server: _Server, tmp_path: pathlib.Path) -> None:
    server.answers = [_Answer(status=302, location="file:///etc/hostname")]

    with pytest.raises(DatasetError, match="the server answers 302"):
        download.fetch(server.resource(None), str(tmp_path))


def test_unreachable_server(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_PAUSE_S", 1e-3)
    resource = task.Resource("http://127.0.0.1:9/scans.zip", "scans.zip")

    with pytest.raises(DatasetError, match="broke off 7 times.*refused"):
        download.fetch(resource, str(tmp_path))


def test_two_processes_at_once_fetch_once(server: _Server, tmp_path: pathlib.Path) -> None:
    server.answers = [_Answer(breaks_off_after=100_000), _Answer()]
    arguments = (server.resource(), str(tmp_path))
    threads = [threading.Thread(target=download.fetch, args=arguments) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (tmp_path / "sub" / "scans.bin").read_bytes() == _CONTENT
    assert server.starts == [None, "bytes=100000-"]


def test_full_disk_is_refused(
    server: _Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _shrink_disk(monkeypatch, free=len(_CONTENT) - 1)

    with pytest.raises(DatasetError, match="0.0 GB left"):
        download.fetch(server.resource(), str(tmp_path))

    assert (tmp_path / "sub" / "scans.bin.part").stat().st_size == 0


class _SmallDisk(io.FileIO):
    """A file on a disk with room for 100 000 bytes."""

    def write(self, data: Any, /) -> int:
        free = 100_000 - self.tell()
        if free <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(memoryview(data)[:free])


def _fill_disk(patch: pytest.MonkeyPatch) -> None:
    """Makes the disk full earlier than its free space said."""

    def open_small(path: Any, mode: str = "r", **arguments: Any) -> Any:
        if mode not in ("ab", "wb") or str(path).endswith(".lock"):
            return open(path, mode, **arguments)
        file = _SmallDisk(path, mode)
        return file if arguments else io.BufferedWriter(file)

    patch.setattr(download, "open", open_small, raising=False)


def test_a_disk_that_gets_full_is_named_and_the_download_goes_on_later(
    server: _Server, tmp_path: pathlib.Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _fill_disk(patch)
        with pytest.raises(DatasetError, match=f"disk of '{tmp_path}/sub' is full, but .* takes"):
            download.fetch(server.resource(), str(tmp_path))
    assert (tmp_path / "sub" / "scans.bin.part").read_bytes() == _CONTENT[:100_000]

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == _CONTENT
    assert server.starts == [None, "bytes=100000-"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_disk_that_gets_full_leaves_nothing_of_an_archive(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _MAKERS[name](tmp_path / name, {"a.bin": b"a", "b.bin": _CONTENT})
    _fill_disk(monkeypatch)

    with pytest.raises(DatasetError, match=f"disk of '{tmp_path}/root' is full, but the content"):
        download.extract(str(tmp_path / name), str(tmp_path / "root"))

    assert not _files(tmp_path / "root")


def _make_zip(path: pathlib.Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _make_tar(path: pathlib.Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


_MAKERS: dict[str, Callable[[pathlib.Path, dict[str, bytes]], None]] = {
    "a.zip": _make_zip,
    "a.tar": _make_tar,
    "a.tar.gz": _make_tar,
    "a.tgz": _make_tar,
}


@pytest.mark.parametrize("name", _MAKERS)
def test_unpacks_and_merges(name: str, tmp_path: pathlib.Path) -> None:
    root = tmp_path / "root"
    _write(root / "imagesTr" / "old.bin", b"old")
    _write(root / "imagesTr" / "a.bin", b"replaced")
    files = {"imagesTr/a.bin": _CONTENT, "imagesTr/deep/b.bin": b"b", "./c.txt": b""}
    _MAKERS[name](tmp_path / name, files)

    download.extract(str(tmp_path / name), str(root))

    assert {str(path.relative_to(root)): path.read_bytes() for path in _files(root)} == {
        "imagesTr/old.bin": b"old",
        "imagesTr/a.bin": _CONTENT,
        "imagesTr/deep/b.bin": b"b",
        "c.txt": b"",
    }


@pytest.mark.parametrize(("old", "new"), [("d", "d/x"), ("d/x", "d")])
def test_files_and_folders_take_no_place_of_each_other(
    old: str, new: str, tmp_path: pathlib.Path
) -> None:
    root = tmp_path / "root"
    _write(root / old, b"old")
    _make_zip(tmp_path / "a.zip", {"a.bin": b"a", new: b"new"})

    with pytest.raises(DatasetError, match="in the place of '.*root/d'. Nothing of it was kept"):
        download.extract(str(tmp_path / "a.zip"), str(root))

    assert not (root / "a.bin").exists()
    assert (root / old).read_bytes() == b"old"


def test_unpacks_what_windows_packed(tmp_path: pathlib.Path) -> None:
    _make_zip(tmp_path / "a.zip", {"images\\": b"", "images\\a.bin": b"a"})

    download.extract(str(tmp_path / "a.zip"), str(tmp_path / "root"))

    assert (tmp_path / "root" / "images" / "a.bin").read_bytes() == b"a"


@pytest.mark.parametrize("name", _MAKERS)
@pytest.mark.parametrize(
    "evil", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "\\evil"]
)
def test_members_outside_are_refused(evil: str, name: str, tmp_path: pathlib.Path) -> None:
    _MAKERS[name](tmp_path / name, {"good.bin": _CONTENT, evil: b"evil"})

    with pytest.raises(DatasetError) as error:
        download.extract(str(tmp_path / name), str(tmp_path / "root"))

    assert f"member '{evil}' would be written outside" in str(error.value)
    assert not _files(tmp_path / "root")
    assert _files(tmp_path) == [tmp_path / name]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_tars_are_refused(kind: bytes, tmp_path: pathlib.Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("folder/evil")
        info.type, info.linkname = kind, "../../secret"
        archive.addfile(info)

    with pytest.raises(DatasetError, match="member 'folder/evil' is a link or a device"):
        download.extract(str(tmp_path / "a.tar"), str(tmp_path / "root"))

    assert not _files(tmp_path / "root")


def test_links_in_zips_are_refused(tmp_path: pathlib.Path) -> None:
    info = zipfile.ZipInfo("evil")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")

    with pytest.raises(DatasetError, match="member 'evil' is a link or a device"):
        download.extract(str(tmp_path / "a.zip"), str(tmp_path / "root"))


@pytest.mark.parametrize("name", _MAKERS)
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_archives_leave_nothing(damage: str, name: str, tmp_path: pathlib.Path) -> None:
    if (name, damage) == ("a.tar", "flipped"):
        pytest.skip("a tar has no checksum of its content")
    content = os.urandom(200_000)
    _MAKERS[name](tmp_path / name, {"a.bin": content, "b.bin": content})
    damaged = bytearray((tmp_path / name).read_bytes())
    damaged[300_000] ^= 1
    (tmp_path / name).write_bytes(damaged[:300_000] if damage == "cut" else damaged)

    with pytest.raises(DatasetError, match="cannot be unpacked: .*get it again"):
        download.extract(str(tmp_path / name), str(tmp_path / "root"))

    assert not _files(tmp_path / "root")


def test_encrypted_archives_are_refused(tmp_path: pathlib.Path) -> None:
    _make_zip(tmp_path / "a.zip", {"a.bin": b"content"})
    content = bytearray((tmp_path / "a.zip").read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    (tmp_path / "a.zip").write_bytes(content)

    with pytest.raises(DatasetError, match="cannot be unpacked: .*password"):
        download.extract(str(tmp_path / "a.zip"), str(tmp_path / "root"))


def test_content_that_does_not_fit_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_zip(tmp_path / "a.zip", {"zeros.bin": bytes(5_000_000_000 // 1000)})
    _shrink_disk(monkeypatch, free=4_999_999)

    with pytest.raises(DatasetError, match="the content of .* takes 0.0 GB"):
        download.extract(str(tmp_path / "a.zip"), str(tmp_path / "root"))

    assert not _files(tmp_path / "root")


def test_what_a_killed_process_left_is_cleared(tmp_path: pathlib.Path) -> None:
    _write(tmp_path / "root" / ".unpacking" / "half.bin", b"half")
    _make_zip(tmp_path / "a.zip", {"a.bin": b"a"})

    download.extract(str(tmp_path / "a.zip"), str(tmp_path / "root"))

    assert _files(tmp_path / "root") == [tmp_path / "root" / "a.bin"]


def test_obtain_unpacks_archives_alone(
    server: _Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_tar(tmp_path / "content.tar.gz", {"case/image.bin": b"image"})
    monkeypatch.setattr(f"{__name__}._CONTENT", (tmp_path / "content.tar.gz").read_bytes())
    root = tmp_path / "root"

    download.obtain(
        [server.resource(None, "parts/a.tar.gz"), server.resource(None, "b.bin")], str(root)
    )

    assert (root / "parts" / "case" / "image.bin").read_bytes() == b"image"
    assert (root / "b.bin").exists()


def _write(path: pathlib.Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files below a folder, without the lock."""
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def _shrink_disk(monkeypatch: pytest.MonkeyPatch, *, free: int) -> None:
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
