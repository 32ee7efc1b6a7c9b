"""Malformed and hostile archives."""

import gzip
import io
import os
import pathlib
import stat
import tarfile
import zipfile
from typing import Any

import numpy as np

from eva_coralbay.data import archives
from tests.fuzz import mutations
from tests.fuzz.campaign import Kind

_FILES = {"images/a.bin": b"a" * 3000, "images/b.bin": bytes(range(256)), "c.txt": b"c"}

_NAMES = (
    "../evil", "a/../../evil", "/tmp/evil", "C:\\evil", "..\\evil", "images", "images/a.bin/x", "",
    ".", "./c.txt", "a\x00b", "\udcff", "a" * 300, "x/" * 600 + "y", "con", "images/../c.txt", "*",
)  # fmt: skip
"""Names of members, most of which do harm."""

_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".ZIP")


def _write(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    ending = mutations.choose(random, _ENDINGS)
    path = folder / f"archive{ending}"
    files = dict(_FILES)
    if random.random() < 0.4:
        files[mutations.choose(random, _NAMES)] = b"evil"
    content = (_zip if ending.lower() == ".zip" else _tar)(random, files)
    if random.random() < 0.4:
        content = mutations.damage(
            random, content, within=int(mutations.choose(random, (600, 9999)))
        )
    if ending in (".tar.gz", ".tgz"):
        content = gzip.compress(content, compresslevel=1)
        if random.random() < 0.3:
            content = mutations.damage(random, content)
    path.write_bytes(content)
    return path


def _zip(random: np.random.Generator, files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name.encode("utf-8", "replace").decode())
            if random.random() < 0.05:
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, content)
        if random.random() < 0.1:
            archive.writestr("bomb", bytes(2**24))
    content = bytearray(stream.getvalue())
    if random.random() < 0.15:  # the index lies about the size
        place = content.rindex(b"PK\x01\x02") + 24
        content[place : place + 4] = random.bytes(4)
    return bytes(content)


def _tar(random: np.random.Generator, files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", errors="surrogateescape") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if random.random() < 0.08:
                info.type = mutations.choose(
                    random, (tarfile.SYMTYPE, b"1", b"3", b"6", b"L", b"x", b"S")
                )
                info.linkname = "../../evil"
            archive.addfile(info, io.BytesIO(content))
    content = bytearray(stream.getvalue())
    if random.random() < 0.15:  # a header lies about the size, with the right checksum
        header = tarfile.TarInfo("lie")
        header.size = int(mutations.choose(random, (2**20, 2**33, 2**40, 2**60)))
        header.type = mutations.choose(random, (b"0", b"L", b"x", b"g"))
        place = 512 * int(random.integers(3))
        content[place:place] = header.tobuf(tarfile.GNU_FORMAT)[:512]
    return bytes(content)


def _read(path: pathlib.Path) -> Any:
    root = path.parent / "deep" / "root"
    try:
        archives.extract(str(path), str(root))
    except BaseException:
        _check_nothing(path, root)
        raise
    return root


def _files_of(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]


def _check_nothing(path: pathlib.Path, root: pathlib.Path) -> None:
    left = [one for one in _files_of(path.parent) if one not in (path, root / ".download.lock")]
    if left:
        raise AssertionError(f"a refused archive leaves {left}")


def _check(path: pathlib.Path, root: pathlib.Path) -> str | None:
    inside = [one for one in _files_of(root) if one.name != ".download.lock"]
    outside = set(_files_of(path.parent)) - {path, *_files_of(root)}
    if outside or os.path.lexists("/tmp/evil"):
        return f"written outside: {outside}"
    links = [one for one in inside if one.is_symlink() or not one.is_file()]
    return f"links or devices: {links}" if links else None


ARCHIVES = Kind("archives", _write, _read, _check)
