"""Files and full disks for the tests of downloads and archives."""

import errno
import io
import pathlib
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import pytest


class SmallDisk(io.FileIO):
    """A file on a disk with room for 100 000 bytes."""

    def write(self, data: Any, /) -> int:
        free = 100_000 - self.tell()
        if free <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(memoryview(data)[:free])


def fill_disk(patch: pytest.MonkeyPatch) -> None:
    """Makes the disk full earlier than its free space said."""
    open_normally = pathlib.Path.open

    def open_small(path: pathlib.Path, mode: str = "r", **arguments: Any) -> Any:
        if mode not in ("ab", "wb") or path.suffix == ".lock":
            return open_normally(path, mode, **arguments)
        file = SmallDisk(path, mode)
        return file if arguments else io.BufferedWriter(file)

    patch.setattr(pathlib.Path, "open", open_small)


def make_zip(path: pathlib.Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def make_tar(path: pathlib.Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


MAKERS: dict[str, Callable[[pathlib.Path, dict[str, bytes]], None]] = {
    "a.zip": make_zip,
    "a.tar": make_tar,
    "a.tar.gz": make_tar,
    "a.tgz": make_tar,
}


def write(path: pathlib.Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def files_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files below a folder, without the lock."""
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def shrink_disk(monkeypatch: pytest.MonkeyPatch, *, free: int) -> None:
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
