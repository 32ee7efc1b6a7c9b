"""Tests of unpacking archives."""

import contextlib
import gzip
import os
import pathlib
import stat
import tarfile
import zipfile

import numpy as np
import pytest

from eva_coralbay.data import archives
from eva_coralbay.errors import DatasetError
from tests.eva_coralbay.data.disk_files import (
    MAKERS,
    files_below,
    fill_disk,
    make_tar,
    make_zip,
    shrink_disk,
    write,
)

CONTENT = bytes(range(256)) * 2000


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_disk_that_gets_full_leaves_nothing_of_an_archive(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MAKERS[name](tmp_path / name, {"a.bin": b"a", "b.bin": CONTENT})
    fill_disk(monkeypatch)

    with pytest.raises(DatasetError, match=f"disk of '{tmp_path}/root' is full, but the content"):
        archives.extract(str(tmp_path / name), str(tmp_path / "root"))

    assert not files_below(tmp_path / "root")


@pytest.mark.parametrize("name", MAKERS)
def test_unpacks_and_merges(name: str, tmp_path: pathlib.Path) -> None:
    root = tmp_path / "root"
    write(root / "imagesTr" / "old.bin", b"old")
    write(root / "imagesTr" / "a.bin", b"replaced")
    files = {"imagesTr/a.bin": CONTENT, "imagesTr/deep/b.bin": b"b", "./c.txt": b""}
    MAKERS[name](tmp_path / name, files)

    archives.extract(str(tmp_path / name), str(root))

    assert {str(path.relative_to(root)): path.read_bytes() for path in files_below(root)} == {
        "imagesTr/old.bin": b"old",
        "imagesTr/a.bin": CONTENT,
        "imagesTr/deep/b.bin": b"b",
        "c.txt": b"",
    }


@pytest.mark.parametrize(("old", "new"), [("d", "d/x"), ("d/x", "d")])
def test_files_and_folders_take_no_place_of_each_other(
    old: str, new: str, tmp_path: pathlib.Path
) -> None:
    root = tmp_path / "root"
    write(root / old, b"old")
    make_zip(tmp_path / "a.zip", {"a.bin": b"a", new: b"new"})

    with pytest.raises(
        DatasetError, match="with the path of '.*root/d', which .* Nothing was extracted"
    ):
        archives.extract(str(tmp_path / "a.zip"), str(root))

    assert not (root / "a.bin").exists()
    assert (root / old).read_bytes() == b"old"


def test_unpacks_what_windows_packed(tmp_path: pathlib.Path) -> None:
    make_zip(tmp_path / "a.zip", {"images\\": b"", "images\\a.bin": b"a"})

    archives.extract(str(tmp_path / "a.zip"), str(tmp_path / "root"))

    assert (tmp_path / "root" / "images" / "a.bin").read_bytes() == b"a"


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    "evil", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "\\evil"]
)
def test_members_outside_are_refused(evil: str, name: str, tmp_path: pathlib.Path) -> None:
    MAKERS[name](tmp_path / name, {"good.bin": CONTENT, evil: b"evil"})

    with pytest.raises(DatasetError) as error:
        archives.extract(str(tmp_path / name), str(tmp_path / "root"))

    assert f"member '{evil}' would be written outside" in str(error.value)
    assert not files_below(tmp_path / "root")
    assert files_below(tmp_path) == [tmp_path / name]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_tars_are_refused(kind: bytes, tmp_path: pathlib.Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("folder/evil")
        info.type, info.linkname = kind, "../../secret"
        archive.addfile(info)

    with pytest.raises(DatasetError, match="member 'folder/evil' is a link or a device"):
        archives.extract(str(tmp_path / "a.tar"), str(tmp_path / "root"))

    assert not files_below(tmp_path / "root")


def test_links_in_zips_are_refused(tmp_path: pathlib.Path) -> None:
    info = zipfile.ZipInfo("evil")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")

    with pytest.raises(DatasetError, match="member 'evil' is a link or a device"):
        archives.extract(str(tmp_path / "a.zip"), str(tmp_path / "root"))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_archives_leave_nothing(damage: str, name: str, tmp_path: pathlib.Path) -> None:
    if (name, damage) == ("a.tar", "flipped"):
        pytest.skip("a tar has no checksum of its content")
    content = os.urandom(200_000)
    MAKERS[name](tmp_path / name, {"a.bin": content, "b.bin": content})
    damaged = bytearray((tmp_path / name).read_bytes())
    damaged[300_000] ^= 1
    (tmp_path / name).write_bytes(damaged[:300_000] if damage == "cut" else damaged)

    with pytest.raises(DatasetError, match="cannot be unpacked: .*get it again"):
        archives.extract(str(tmp_path / name), str(tmp_path / "root"))

    assert not files_below(tmp_path / "root")


def test_encrypted_archives_are_refused(tmp_path: pathlib.Path) -> None:
    make_zip(tmp_path / "a.zip", {"a.bin": b"content"})
    content = bytearray((tmp_path / "a.zip").read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    (tmp_path / "a.zip").write_bytes(content)

    with pytest.raises(DatasetError, match="cannot be unpacked: .*password"):
        archives.extract(str(tmp_path / "a.zip"), str(tmp_path / "root"))


def test_content_that_does_not_fit_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_zip(tmp_path / "a.zip", {"zeros.bin": bytes(5_000_000_000 // 1000)})
    shrink_disk(monkeypatch, free=4_999_999)

    with pytest.raises(DatasetError, match="the content of .* takes 0.0 GB"):
        archives.extract(str(tmp_path / "a.zip"), str(tmp_path / "root"))

    assert not files_below(tmp_path / "root")


def test_what_a_killed_process_left_is_cleared(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "root" / ".unpacking" / "half.bin", b"half")
    make_zip(tmp_path / "a.zip", {"a.bin": b"a"})

    archives.extract(str(tmp_path / "a.zip"), str(tmp_path / "root"))

    assert files_below(tmp_path / "root") == [tmp_path / "root" / "a.bin"]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_tar_is_stopped_before_it_fills_the_disk(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kB of zeros may unpack to all that there is; the header of each file says how much."""
    make_tar(tmp_path / name, {"a.bin": b"a", "zeros.bin": bytes(50_000_000)})
    shrink_disk(monkeypatch, free=300_000_000)

    with pytest.raises(DatasetError, match="the content of .* takes 0.3 GB"):
        archives.extract(str(tmp_path / name), str(tmp_path / "root"))

    assert not files_below(tmp_path / "root")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_the_length_of_a_name_is_not_believed(kind: bytes, tmp_path: pathlib.Path) -> None:
    """It would be read into the memory as a whole."""
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, 2**33
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**16))

    with pytest.raises(DatasetError, match="a name or an attribute in it takes 8589"):
        archives.extract(str(tmp_path / "a.tar.gz"), str(tmp_path / "root"))


def test_endings_in_upper_case_are_archives(tmp_path: pathlib.Path) -> None:
    make_zip(tmp_path / "A.ZIP", {"a.bin": b"a"})

    assert archives.is_archive(str(tmp_path / "A.ZIP"))
    archives.extract(str(tmp_path / "A.ZIP"), str(tmp_path / "root"))

    assert (tmp_path / "root" / "a.bin").read_bytes() == b"a"


@pytest.mark.parametrize("seed", range(40))
def test_any_damage_is_one_error(seed: int, tmp_path: pathlib.Path) -> None:
    random = np.random.default_rng(seed)
    name = list(MAKERS)[seed % len(MAKERS)]
    MAKERS[name](tmp_path / name, {"a.bin": CONTENT, "folder/b.txt": b"b"})
    content = bytearray((tmp_path / name).read_bytes())
    for position in random.integers(0, min(len(content), 1024), 5):
        content[position] = random.integers(256)
    (tmp_path / name).write_bytes(content)

    with contextlib.suppress(DatasetError):
        archives.extract(str(tmp_path / name), str(tmp_path / "root"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: pathlib.Path) -> None:
    make_zip(tmp_path / "a.zip", {"a.bin": b"a"})
    (tmp_path / "root" / ".download.lock").mkdir(parents=True)

    with pytest.raises(DatasetError, match="root/.download.lock' cannot be written .*: download"):
        archives.extract(str(tmp_path / "a.zip"), str(tmp_path / "root"))
