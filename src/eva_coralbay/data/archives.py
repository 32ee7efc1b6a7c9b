"""Archives (zip and tar) that are unpacked as a whole or not at all, and only where they may be."""

import gzip
import io
import pathlib
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from eva_coralbay import _disk_space, _download, _progress
from eva_coralbay.errors import DatasetError, EvaCoralbayError

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
"""The ends of the names of the files that can be unpacked."""

_CHUNK = 1 << 20
"""How many bytes are read at once."""

_MAX_READ = 1 << 24
"""The largest piece that a tar may want to be read at once: its names, but no content."""

_RESERVE = 1 << 28
"""How many bytes of the disk are left free by an archive that does not say how large it is."""


class _Member(NamedTuple):
    """An entry of an archive."""

    name: str
    kind: str
    """One of "file", "folder" and "other", which is links and devices."""
    size: int
    """The number of bytes of a file."""
    content: IO[bytes] | None
    """What a file holds; to be read before the next entry."""


def is_archive(path: str) -> bool:
    """Whether the name of a file is that of an archive."""
    return path.lower().endswith(ENDINGS)


def extract(archive: str, folder: str) -> None:
    """Unpacks an archive (zip or tar, compressed or not) as a whole or not at all.

    What it holds is merged into the folder. Files that are there already are replaced. The disk
    is never filled: what an archive says of its size is checked before each file is written.

    Args:
        archive: The path of the archive.
        folder: The folder to unpack it into; it is made if missing.

    Raises:
        DatasetError: If the archive is damaged, does not fit on the disk, or holds anything but
            files and folders that lie inside the folder.
    """
    try:
        _extract(archive, folder)
    except DatasetError:
        raise
    except EvaCoralbayError as error:  # of the lock or the disk
        raise DatasetError(str(error)) from error


def _extract(archive: str, folder: str) -> None:
    with _download.locked(folder):
        temporary = pathlib.Path(folder, ".unpacking")
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
        try:
            temporary.mkdir()
            _unpack(archive, temporary)
            _check_merge(archive, temporary, pathlib.Path(folder))
            _merge(temporary, pathlib.Path(folder))
        except EvaCoralbayError:
            raise
        except OSError as error:
            if isinstance(error, gzip.BadGzipFile) or error.filename is None:
                raise _broken(archive, error) from error
            raise DatasetError(
                f"Archive '{archive}' cannot be unpacked: '{error.filename}': {error.strerror}. "
                "Nothing of it was kept. Choose a root that can be written to."
            ) from error
        except Exception as error:  # zipfile and tarfile raise almost anything for foreign bytes
            raise _broken(archive, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _broken(archive: str, error: Exception) -> DatasetError:
    return DatasetError(
        f"Archive '{archive}' cannot be unpacked: {error or type(error).__name__}. Nothing of it "
        "was kept. Delete it and get it again."
    )


def _unpack(archive: str, folder: pathlib.Path) -> None:
    with (
        pathlib.Path(archive).open("rb") as file,
        _progress.read(
            file,
            desc=pathlib.Path(archive).name,
            total=pathlib.Path(archive).stat().st_size,
        ) as stream,
    ):
        is_zip = archive.lower().endswith(".zip")
        size, members = _open_zip(stream) if is_zip else _open_tar(stream, archive)
        what = f"the content of '{archive}'"
        _disk_space.check(folder, size, what=what)
        with _disk_space.full_disk_named(str(folder.parent), size, what=what):
            for member in members:
                if not is_zip:
                    _disk_space.check(folder, member.size + _RESERVE, what=what)
                _write(member, _inside(folder, member, archive))


def _open_zip(stream: Any) -> tuple[int, Iterator[_Member]]:
    """Returns the unpacked size and the entries of a zip archive."""
    archive = zipfile.ZipFile(stream)
    return sum(info.file_size for info in archive.infolist()), _zip_members(archive)


def _zip_members(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        if info.filename.endswith(("/", "\\")):
            yield _Member(info.filename, "folder", 0, None)
        elif stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            yield _Member(info.filename, "other", 0, None)
        else:
            with archive.open(info) as content:
                yield _Member(info.filename, "file", info.file_size, content)


def _open_tar(stream: Any, path: str) -> tuple[int, Iterator[_Member]]:
    """Returns the size of the file, which is that of its content at least, and its entries."""
    is_gzip = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    content: Any = _BoundedReader(gzip.GzipFile(fileobj=stream) if is_gzip else stream)
    archive = tarfile.TarFile(fileobj=content)
    return pathlib.Path(path).stat().st_size, _tar_members(archive)


class _BoundedReader(io.RawIOBase):
    """Refuses to read much at once, which a tar wants if the length of a name is a lie."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_READ:
            raise tarfile.ReadError(f"a name or an attribute in it takes {size} bytes")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _tar_members(archive: tarfile.TarFile) -> Iterator[_Member]:
    for info in archive:
        if info.isdir():
            yield _Member(info.name, "folder", 0, None)
        else:
            content = archive.extractfile(info) if info.isfile() else None
            kind = "other" if content is None else "file"
            yield _Member(info.name, kind, info.size, content)
    while archive.fileobj and archive.fileobj.read(_CHUNK):
        pass  # the checksum of the content is behind the last entry


def _inside(folder: pathlib.Path, member: _Member, archive: str) -> pathlib.Path:
    """Returns where to write an entry, after checking that this does no harm."""
    name = pathlib.PureWindowsPath(member.name)  # takes / and \ for separators
    if name.anchor or ".." in name.parts:
        problem = "would be written outside of the folder"
    elif member.kind == "other":
        problem = "is a link or a device"
    else:
        return folder.joinpath(*name.parts)
    raise DatasetError(
        f"Archive '{archive}' is not trusted: its member '{member.name}' {problem}. Nothing of "
        "it was kept."
    )


def _write(member: _Member, path: pathlib.Path) -> None:
    if member.content is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(member.content, file, _CHUNK)


def _check_merge(archive: str, source: pathlib.Path, target: pathlib.Path) -> None:
    """Checks that no file takes the place of a folder, or a folder that of a file."""
    for child in source.iterdir():
        other = target / child.name
        if other.exists() and child.is_dir() != other.is_dir():
            kind = "folder" if child.is_dir() else "file"
            raise DatasetError(
                f"Archive '{archive}' holds a {kind} with the path of '{other}', which exists "
                f"and is not a {kind}. Nothing was extracted: move '{other}' away, or choose an "
                "empty root."
            )
        if child.is_dir():
            _check_merge(archive, child, other)


def _merge(source: pathlib.Path, target: pathlib.Path) -> None:
    """Moves what a folder holds into another on the same disk."""
    for child in sorted(source.iterdir()):
        if child.is_dir() and (target / child.name).is_dir():
            _merge(child, target / child.name)
        else:
            child.replace(target / child.name)
