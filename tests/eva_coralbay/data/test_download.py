"""Tests downloads from a local server that misbehaves."""

import gzip
import hashlib
import pathlib
import threading
from collections.abc import Iterator

import pytest

from eva_coralbay import _download, _processes
from eva_coralbay.data import download
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import facts
from tests.eva_coralbay.data import file_server
from tests.eva_coralbay.data.disk_files import (
    files_below,
    fill_disk,
    make_tar,
    shrink_disk,
    write,
)
from tests.eva_coralbay.data.file_server import CONTENT, Answer, Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(_download, "PAUSE_S", 1e-3)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_fetches_into_place(server: Server, tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(download.fetch(server.resource(), str(tmp_path)))

    assert path == tmp_path / "sub" / "scans.bin"
    assert path.read_bytes() == CONTENT
    assert not list(tmp_path.rglob("*.part*"))


def test_continues_after_drops(server: Server, tmp_path: pathlib.Path) -> None:
    server.answers = [
        Answer(breaks_off_after=100_000),
        Answer(status=503),
        Answer(),
    ]

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == CONTENT
    assert server.starts == [None, "bytes=100000-", "bytes=100000-"]


def test_continues_what_an_earlier_process_left(server: Server, tmp_path: pathlib.Path) -> None:
    write(tmp_path / "sub" / "scans.bin.part", CONTENT[:5])

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == CONTENT
    assert server.starts == ["bytes=5-"]


def test_keeps_on_as_long_as_it_gets_further(server: Server, tmp_path: pathlib.Path) -> None:
    server.answers = [Answer(breaks_off_after=20_000)]

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == CONTENT
    assert len(server.starts) > _download.MAX_FAILURES


def test_gives_up_if_it_gets_no_further(server: Server, tmp_path: pathlib.Path) -> None:
    server.answers = [
        Answer(breaks_off_after=100_000),
        Answer(breaks_off_after=0),
    ]

    with pytest.raises(DatasetError, match="sent 100000 of 307200 bytes.*is kept"):
        download.fetch(server.resource(), str(tmp_path))

    assert len(server.starts) == _download.MAX_FAILURES
    assert (tmp_path / "sub" / "scans.bin.part").read_bytes() == CONTENT[:100_000]


def test_starts_over_if_ranges_are_ignored(server: Server, tmp_path: pathlib.Path) -> None:
    server.answers = [
        Answer(breaks_off_after=100_000),
        Answer(accepts_ranges=False),
    ]

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == CONTENT


def test_gives_up_if_ranges_are_ignored_and_it_always_drops(
    server: Server, tmp_path: pathlib.Path
) -> None:
    server.answers = [Answer(breaks_off_after=100_000, accepts_ranges=False)]

    with pytest.raises(DatasetError, match="broke off 7 times in a row"):
        download.fetch(server.resource(), str(tmp_path))


@pytest.mark.parametrize("version", ['"second"', "Tue, 02 Jan 2024 00:00:00 GMT"])
@pytest.mark.parametrize("ignores_versions", [False, True])
def test_two_versions_are_never_joined(
    server: Server, tmp_path: pathlib.Path, version: str, ignores_versions: bool
) -> None:
    first = version.replace("second", "first").replace("02", "01")
    old = Answer(breaks_off_after=100_000, version=first, content=bytes(len(CONTENT)))
    new = Answer(version=version, ignores_versions=ignores_versions)
    server.answers = [old, Answer(status=403), new]
    with pytest.raises(DatasetError, match="answers 403"):
        download.fetch(server.resource(checksum=None), str(tmp_path))

    path = download.fetch(server.resource(checksum=None), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == CONTENT
    assert server.versions[:3] == [None, first, first]
    assert not list(tmp_path.rglob("*.part*"))


def test_continues_the_same_version(server: Server, tmp_path: pathlib.Path) -> None:
    server.answers = [
        Answer(breaks_off_after=100_000, version='"a"'),
        Answer(version='"a"'),
    ]

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == CONTENT
    assert (server.starts, server.versions) == ([None, "bytes=100000-"], [None, '"a"'])


def test_weak_versions_are_not_asked_for(server: Server, tmp_path: pathlib.Path) -> None:
    server.answers = [
        Answer(breaks_off_after=100_000, version='W/"a"'),
        Answer(version='W/"a"'),
    ]

    download.fetch(server.resource(), str(tmp_path))

    assert server.versions == [None, None]


def test_starts_over_if_another_range_comes(server: Server, tmp_path: pathlib.Path) -> None:
    server.answers = [
        Answer(breaks_off_after=100_000),
        Answer(moves_ranges_by=7),
        Answer(),
    ]

    path = download.fetch(server.resource(checksum=None), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == CONTENT


def test_accepts_a_part_that_is_complete(server: Server, tmp_path: pathlib.Path) -> None:
    write(tmp_path / "sub" / "scans.bin.part", CONTENT)

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == CONTENT
    assert server.starts == [f"bytes={len(CONTENT)}-"]


def test_starts_over_if_the_part_is_too_long(server: Server, tmp_path: pathlib.Path) -> None:
    write(tmp_path / "sub" / "scans.bin.part", CONTENT + b"surplus")

    path = download.fetch(server.resource(checksum=None), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == CONTENT


def test_works_without_content_length(server: Server, tmp_path: pathlib.Path) -> None:
    server.answers = [Answer(sends_length=False)]

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == CONTENT


def test_refuses_a_web_page(server: Server, tmp_path: pathlib.Path) -> None:
    server.answers = [Answer(content_type="text/html; charset=utf-8")]

    with pytest.raises(DatasetError, match="is a web page.*log in.*sub/scans.bin"):
        download.fetch(server.resource(checksum=None), str(tmp_path))

    assert not (tmp_path / "sub" / "scans.bin").exists()


@pytest.mark.parametrize("content", [gzip.compress(CONTENT)[:-20], b"<html>log in</html>"])
def test_a_file_without_a_checksum_is_checked_by_that_of_gzip(
    content: bytes, server: Server, tmp_path: pathlib.Path
) -> None:
    """It was cut off without a length, or a web page is sent as another type."""
    server.answers = [
        Answer(sends_length=False, content=content),
        Answer(sends_length=False, content=gzip.compress(CONTENT)),
    ]
    resource = server.resource(checksum=None, filename="scan.nii.gz")

    with pytest.raises(DatasetError, match="is not a complete gzip file"):
        download.fetch(resource, str(tmp_path))
    assert not files_below(tmp_path) or {path.name for path in files_below(tmp_path)} == {
        ".download.lock"
    }
    assert gzip.decompress(pathlib.Path(download.fetch(resource, str(tmp_path))).read_bytes())


def test_an_encoding_is_refused(server: Server, tmp_path: pathlib.Path) -> None:
    server.answers = [Answer(encoding="gzip")]

    with pytest.raises(DatasetError, match="is sent with the encoding 'gzip'"):
        download.fetch(server.resource(checksum=None), str(tmp_path))

    assert not (tmp_path / "sub" / "scans.bin").exists()


@pytest.mark.parametrize("status", [401, 403, 404, 416])
def test_refusal_is_not_repeated(status: int, server: Server, tmp_path: pathlib.Path) -> None:
    server.answers = [Answer(status=status)]

    with pytest.raises(DatasetError, match=f"the server answers {status}"):
        download.fetch(server.resource(), str(tmp_path))

    assert len(server.starts) == 1


def test_wrong_checksum_is_named_and_removed(server: Server, tmp_path: pathlib.Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()

    with pytest.raises(DatasetError, match=f"sha256:{digest} instead of sha256:00"):
        download.fetch(server.resource("sha256:00"), str(tmp_path))
    download.fetch(server.resource(f"sha256:{digest}"), str(tmp_path))

    assert server.starts == [None, None]


def test_does_not_fetch_again(server: Server, tmp_path: pathlib.Path) -> None:
    for _ in range(2):
        download.fetch(server.resource(), str(tmp_path))

    assert len(server.starts) == 1


def test_replaces_a_file_with_another_checksum(server: Server, tmp_path: pathlib.Path) -> None:
    write(tmp_path / "sub" / "scans.bin", b"cut off")

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/scans", "scans.zip"])
def test_other_addresses_are_refused(url: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="neither an http nor an https address"):
        download.fetch(facts.Resource(url, "scans.zip"), str(tmp_path))


@pytest.mark.parametrize("location", ["file:///etc/hostname", None])
def test_is_not_led_to_other_addresses(
    location: str | None, server: Server, tmp_path: pathlib.Path
) -> None:
    server.answers = [Answer(status=302, location=location)]

    with pytest.raises(DatasetError, match="the server answers 302"):
        download.fetch(server.resource(None), str(tmp_path))


def test_unreachable_server(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_download, "PAUSE_S", 1e-3)
    resource = facts.Resource("http://127.0.0.1:9/scans.zip", "scans.zip")

    with pytest.raises(DatasetError, match="broke off 7 times.*refused"):
        download.fetch(resource, str(tmp_path))


@pytest.mark.parametrize("status", [201, 202, 203, 204, 205])
def test_an_answer_without_a_file_is_no_file(
    status: int, server: Server, tmp_path: pathlib.Path
) -> None:
    server.answers = [Answer(status=status)]

    with pytest.raises(DatasetError, match=f"the server answers {status} .*which is not a file"):
        download.fetch(server.resource(None), str(tmp_path))

    assert not (tmp_path / "sub" / "scans.bin").exists()


@pytest.mark.parametrize("length", ["many", "-1", "1e9", "²"])
def test_a_length_that_is_no_number_is_an_error(
    length: str, server: Server, tmp_path: pathlib.Path
) -> None:
    server.answers = [Answer(length=length)]

    with pytest.raises(DatasetError, match="broke off 7 times .* the server says that the file"):
        download.fetch(server.resource(None), str(tmp_path))


@pytest.mark.parametrize("location", ["http://[", "http://localhost:port/", "http://\u00e9\x00/"])
def test_an_address_that_is_none_is_an_error(
    location: str, server: Server, tmp_path: pathlib.Path
) -> None:
    server.answers = [Answer(status=302, location=location)]

    with pytest.raises(DatasetError):
        download.fetch(server.resource(None), str(tmp_path))


def test_a_download_does_not_take_forever(
    server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_download, "MAX_HOURS", 0.0)
    with pytest.raises(DatasetError, match="not complete after 0 hours. What has arrived is kept"):
        download.fetch(server.resource(), str(tmp_path))
    monkeypatch.undo()

    assert pathlib.Path(download.fetch(server.resource(), str(tmp_path))).read_bytes() == CONTENT


def test_what_a_killed_process_was_writing_is_removed(
    server: Server, tmp_path: pathlib.Path
) -> None:
    machine = _processes.name_this_process().split("~")[0]
    leftover = tmp_path / "sub" / f".scans.bin.part.version~{machine}~{2**30}~1~{'0' * 32}.tmp"
    leftover.parent.mkdir()
    leftover.touch()

    download.fetch(server.resource(), str(tmp_path))

    assert not leftover.exists()


def test_two_processes_at_once_fetch_once(server: Server, tmp_path: pathlib.Path) -> None:
    server.answers = [Answer(breaks_off_after=100_000), Answer()]
    arguments = (server.resource(), str(tmp_path))
    threads = [threading.Thread(target=download.fetch, args=arguments) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (tmp_path / "sub" / "scans.bin").read_bytes() == CONTENT
    assert server.starts == [None, "bytes=100000-"]


def test_full_disk_is_refused(
    server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_disk(monkeypatch, free=len(CONTENT) - 1)

    with pytest.raises(DatasetError, match="0.0 GB left"):
        download.fetch(server.resource(), str(tmp_path))

    assert (tmp_path / "sub" / "scans.bin.part").stat().st_size == 0


def test_a_disk_that_gets_full_is_named_and_the_download_goes_on_later(
    server: Server, tmp_path: pathlib.Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch)
        with pytest.raises(DatasetError, match=f"disk of '{tmp_path}/sub' is full, but .* takes"):
            download.fetch(server.resource(), str(tmp_path))
    assert (tmp_path / "sub" / "scans.bin.part").read_bytes() == CONTENT[:100_000]

    path = download.fetch(server.resource(), str(tmp_path))

    assert pathlib.Path(path).read_bytes() == CONTENT
    assert server.starts == [None, "bytes=100000-"]


def test_obtain_unpacks_archives_alone(
    server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tar(tmp_path / "content.tar.gz", {"case/image.bin": b"image"})
    monkeypatch.setattr(file_server, "CONTENT", (tmp_path / "content.tar.gz").read_bytes())
    root = tmp_path / "root"

    download.obtain(
        [server.resource(None, "parts/a.tar.gz"), server.resource(None, "b.bin")], str(root)
    )

    assert (root / "parts" / "case" / "image.bin").read_bytes() == b"image"
    assert (root / "b.bin").exists()


def test_the_page_of_a_redirection_is_not_read(server: Server, tmp_path: pathlib.Path) -> None:
    """Whatever its length is said to be."""
    resource = server.resource()
    server.answers = [
        Answer(status=302, location=resource.url, length="9" * 30),
        Answer(),
    ]

    download.fetch(resource, str(tmp_path))

    assert (tmp_path / "sub/scans.bin").read_bytes() == CONTENT
