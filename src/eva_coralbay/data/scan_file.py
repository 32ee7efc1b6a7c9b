"""A prepared scan as a file, of which a crop is read without the rest.

A file is a prefix (magic, version, length and CRC-32 of the header), the header as JSON and the
compressed chunks of its arrays, in C order, one behind the other. Each chunk has its own CRC-32,
which is checked whenever it is read. Equal scans make equal files.
"""

import hashlib
import itertools
import json
import os
import pathlib
import struct
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import blosc2
import numpy as np
import numpy.typing as npt
import torch
from isal import isal_zlib
from typing_extensions import override

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import preparation
from eva_coralbay.data.label_values import IGNORE_LABEL
from eva_coralbay.errors import DatasetError

VERSION = 1
"""The version of the format and of what is done to a scan: files of another one are not read."""

_MAGIC = b"CORALBAY"

_PREFIX = struct.Struct("<8sIII")
"""Magic, version, length of the header, CRC-32 of the header."""

_EDGE = 32
"""The edge of the chunks of image and label map, in voxels."""

_COMPRESSION: dict[str, Any] = {
    "codec": blosc2.Codec.ZSTD,
    "clevel": 5,
    "filters": [blosc2.Filter.BITSHUFFLE],
    "filters_meta": [0],
    "nthreads": 1,
}

_DECOMPRESSION: dict[str, Any] = {"nthreads": 1}

_END_BYTES = 2**16
"""How much of each end of a large file its fingerprint is of."""

_NUM_SAMPLES = 16
"""How many samples between the ends it is of."""

_SAMPLE_BYTES = 2**12
"""The size of each."""

Identity = tuple[int, int, int]
"""What tells a file from one that replaced it: inode, size and time of change."""


class StoreError(DatasetError):
    """A prepared scan is missing or damaged, or cannot be written."""

    def __init__(self, message: str, *, problems: dict[str, str] | None = None) -> None:
        """Initializes the error.

        Args:
            message: What is wrong, where, and what to do.
            problems: What is wrong with each case, if the others are as they should be.
        """
        super().__init__(message)
        self.problems = problems or {}


class _Array(NamedTuple):
    """Where the chunks of an array lie."""

    dtype: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    offsets: Sequence[int]
    """Where each chunk starts in the file, and where the last one ends."""
    checksums: Sequence[int]

    @property
    def cells(self) -> tuple[int, ...]:
        """The number of chunks along each axis."""
        return tuple(-(-size // edge) for size, edge in zip(self.shape, self.chunk, strict=True))

    def chunk_shape(self, cell: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape of a chunk, which is smaller at the upper ends."""
        return tuple(
            min(edge, size - index * edge)
            for index, edge, size in zip(cell, self.chunk, self.shape, strict=True)
        )


class StoredScan(preparation.PreparedScan):
    """A prepared scan in a file.

    It reads with `pread` only, so that a copy of it in a forked process is safe to use.
    """

    def __init__(
        self, path: str, *, key: str, on_damage: Callable[[Identity], Any] | None = None
    ) -> None:
        """Opens the file and reads its header.

        Args:
            path: The file.
            key: The key that it was written with.
            on_damage: Called with the identity of the file when it turns out to be damaged.

        Raises:
            StoreError: If the file is missing or its header is damaged.
        """
        self._path = path
        self._on_damage = on_damage
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise StoreError(
                f"Prepared scan '{path}' cannot be opened ({error.strerror}). Prepare the data "
                "set (again)."
            ) from error
        weakref.finalize(self, os.close, self._file)
        self._identity = _identity_of(os.fstat(self._file))
        header, position = self._read_header(key)
        self._affine = np.array(header["affine"], dtype=np.float64)
        self._counts = np.array(header["label_counts"], dtype=np.int64)
        self._sources: list[str] | None = header.get("sources")
        self._arrays: dict[str, _Array] = {}
        for name, array in header["arrays"].items():
            offsets = list(itertools.accumulate(array["sizes"], initial=position))
            self._arrays[name] = _Array(
                array["dtype"],
                tuple(array["shape"]),
                tuple(array["chunk"]),
                offsets,
                array["checksums"],
            )
            position = offsets[-1]
        if position != self._identity[1]:
            raise self._damage(f"{self._identity[1]} bytes instead of {position}")

    @property
    def identity(self) -> Identity:
        """The identity of the file."""
        return self._identity

    @property
    def sources(self) -> list[str] | None:
        """The fingerprints of the files that it was prepared from, None if they are unknown."""
        return self._sources

    @property
    @override
    def grid(self) -> grid_lib.Grid:
        depth, height, width = self._arrays["image"].shape
        return grid_lib.Grid((depth, height, width), self._affine)

    @property
    @override
    def label_counts(self) -> npt.NDArray[np.int64]:
        return self._counts

    @override
    def read_image(self, box: preparation.Box) -> torch.Tensor:
        return torch.from_numpy(self._read("image", box, np.float32)[None])

    @override
    def read_mask(self, box: preparation.Box) -> torch.Tensor:
        labels = self._read("mask", box)[None]
        # torch has next to no operations on uint16
        return torch.from_numpy(labels if labels.dtype == np.uint8 else labels.astype(np.int32))

    @override
    def locate(self, label: int, index: int) -> tuple[int, int, int]:
        _, height, width = self.grid.shape
        rows = self._read("rows", (slice(label, label + 1), *self.whole[:2]))
        ends = np.cumsum(rows, dtype=np.int64)
        row = int(np.searchsorted(ends, index, side="right"))
        y, x = divmod(row, height)
        labels = self._read("mask", (slice(y, y + 1), slice(x, x + 1), slice(0, width)))
        within_row = index - (int(ends[row - 1]) if row else 0)
        return y, x, int(np.flatnonzero(labels == label)[within_row])

    def check(self) -> None:
        """Reads the whole file and compares its checksums.

        Raises:
            StoreError: If it is damaged.
        """
        for name, array in self._arrays.items():
            for _ in self._read_parts(name, range(int(np.prod(array.cells)))):
                pass

    def _read_header(self, key: str) -> tuple[dict[str, Any], int]:
        """Returns the header and the position behind it."""
        prefix = self._pread(_PREFIX.size, 0)
        if len(prefix) < _PREFIX.size:
            raise self._damage("it is cut off")
        magic, version, length, checksum = _PREFIX.unpack(prefix)
        if magic != _MAGIC or version != VERSION:
            raise self._damage("its first bytes are wrong")
        if _PREFIX.size + length > self._identity[1]:
            raise self._damage("it is cut off")
        content = self._pread(length, _PREFIX.size)
        if isal_zlib.crc32(content) != checksum:
            raise self._damage("the checksum of the header is wrong")
        header = json.loads(content)
        if header["key"] != key:
            raise self._damage(f"it is that of '{header['key']}'")
        return header, _PREFIX.size + length

    def _read(
        self, name: str, box: Sequence[slice], dtype: npt.DTypeLike | None = None
    ) -> npt.NDArray[Any]:
        """Reads a region of an array, as another type if one is given."""
        array = self._arrays[name]
        shape = [extent.stop - extent.start for extent in box]
        region = np.empty(shape, dtype=dtype or array.dtype)
        parts = itertools.product(*map(_cut, box, array.chunk))
        cells, sources, targets = zip(*(zip(*axes, strict=True) for axes in parts), strict=True)
        chunks = self._read_chunks(name, cells)
        for source, target, chunk in zip(sources, targets, chunks, strict=True):
            region[target] = chunk[source]
        return region

    def _read_chunks(
        self, name: str, cells: Sequence[tuple[int, ...]]
    ) -> Iterator[npt.NDArray[Any]]:
        """Reads and decompresses chunks."""
        array = self._arrays[name]
        numbers = np.asarray(np.ravel_multi_index(np.transpose(cells), array.cells)).tolist()
        for cell, part in zip(cells, self._read_parts(name, numbers), strict=True):
            chunk = np.empty(array.chunk_shape(cell), dtype=array.dtype)
            blosc2.decompress2(part, dst=chunk, **_DECOMPRESSION)
            yield chunk

    def _read_parts(self, name: str, numbers: Sequence[int]) -> Iterator[memoryview]:
        """Reads compressed chunks, those that lie behind each other in one go."""
        array = self._arrays[name]
        for start, stop in _runs(numbers):
            offsets = array.offsets[numbers[start] : numbers[stop - 1] + 2]
            content = memoryview(self._pread(offsets[-1] - offsets[0], offsets[0]))
            bounds = itertools.pairwise(offset - offsets[0] for offset in offsets)
            for position, (first, last) in zip(range(start, stop), bounds, strict=True):
                part = content[first:last]
                if isal_zlib.crc32(part) != array.checksums[numbers[position]]:
                    raise self._damage(
                        f"the checksum of chunk {numbers[position]} of the {name} is wrong"
                    )
                yield part

    def _pread(self, length: int, position: int) -> bytes:
        try:
            return os.pread(self._file, length, position)
        except OSError as error:
            raise self._damage(f"it cannot be read: {error.strerror}") from error

    def _damage(self, problem: str) -> StoreError:
        """Reports that the file is damaged."""
        if self._on_damage is not None:
            self._on_damage(self._identity)
        return StoreError(
            f"Prepared scan '{self._path}' is damaged: {problem}. Prepare the data set again."
        )


def encode(scan: preparation.PreparedScan, *, key: str, sources: Sequence[str] = ()) -> bytes:
    """Returns the content of the file of a prepared scan.

    Args:
        scan: The scan. Its HU are rounded to integers.
        key: What tells it from others.
        sources: The fingerprints of the files that it was prepared from.
    """
    image = scan.read_image(scan.whole)[0].round().clamp_(-(2**15), 2**15 - 1).to(torch.int16)
    arrays = {"image": (image.numpy(), (_EDGE,) * 3)}
    if len(scan.label_counts):
        labels = scan.read_mask(scan.whole)[0].numpy()
        mask = labels.astype(_type_of(labels, len(scan.label_counts)))
        rows = _count_rows(mask, len(scan.label_counts))
        arrays |= {"mask": (mask, (_EDGE,) * 3), "rows": (rows, (1, *rows.shape[1:]))}
    tables, chunks = {}, []
    for name, (array, chunk) in arrays.items():
        compressed = [_compress(part) for part in _split(array, chunk)]
        tables[name] = {
            "dtype": array.dtype.name,
            "shape": array.shape,
            "chunk": chunk,
            "sizes": [len(content) for content in compressed],
            "checksums": [isal_zlib.crc32(content) for content in compressed],
        }
        chunks += compressed
    header = {
        "key": key,
        "affine": scan.grid.affine.tolist(),
        "label_counts": scan.label_counts.tolist(),
        "arrays": tables,
        **({"sources": list(sources)} if sources else {}),
    }
    content = json.dumps(header).encode()
    prefix = _PREFIX.pack(_MAGIC, VERSION, len(content), isal_zlib.crc32(content))
    return b"".join([prefix, content, *chunks])


def identity(path: str) -> Identity | None:
    """Returns the identity of a file, None if there is no such file."""
    try:
        return _identity_of(pathlib.Path(path).stat())
    except FileNotFoundError:
        return None


def fingerprint(path: str) -> str:
    """Returns what tells the content of a file from others.

    It is the hash of a small file, and of the size, both ends and samples of a large one: the end
    of a `.gz` holds the checksum of its content.

    Args:
        path: The file.
    """
    size = pathlib.Path(path).stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with pathlib.Path(path).open("rb") as file:
        if size <= 4 * _END_BYTES:
            digest.update(file.read())
        else:
            step = (size - 2 * _END_BYTES) // _NUM_SAMPLES
            places = [_END_BYTES + index * step for index in range(_NUM_SAMPLES)]
            for start, length in (
                (0, _END_BYTES),
                *((place, _SAMPLE_BYTES) for place in places),
                (size - _END_BYTES, _END_BYTES),
            ):
                file.seek(start)
                digest.update(file.read(length))
    return digest.hexdigest()[:32]


def _identity_of(status: os.stat_result) -> Identity:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _type_of(labels: npt.NDArray[np.integer], num_labels: int) -> npt.DTypeLike:
    """Returns the type that a label map is stored in; only `IGNORE_LABEL` needs a sign."""
    if labels.dtype.kind == "i" and labels.min() == IGNORE_LABEL:
        return np.int16
    return np.uint8 if num_labels <= 2**8 else np.uint16


def _count_rows(mask: npt.NDArray[np.integer], num_labels: int) -> npt.NDArray[np.uint16]:
    """Returns how many voxels of each label each row has, of shape [labels, D, H]."""
    depth, height, _ = mask.shape
    rows = np.empty((num_labels, depth, height), dtype=np.uint16)
    # the first place of each row is for voxels with `IGNORE_LABEL`
    places = num_labels + 1
    first = np.arange(height)[:, None] * places - IGNORE_LABEL
    for index, section in enumerate(mask):
        counts = np.bincount((first + section).ravel(), minlength=height * places)
        rows[:, index] = counts.reshape(height, places)[:, 1:].T
    return rows


def _split(array: npt.NDArray[Any], chunk: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
    """Cuts an array into chunks, those at the upper ends smaller."""
    for start in itertools.product(
        *(range(0, size, edge) for size, edge in zip(array.shape, chunk, strict=True))
    ):
        box = (slice(at, at + edge) for at, edge in zip(start, chunk, strict=True))
        yield np.ascontiguousarray(array[tuple(box)])


def _compress(chunk: npt.NDArray[Any]) -> bytes:
    parameters = {**_COMPRESSION, "typesize": chunk.itemsize}
    return blosc2.compress2(chunk, **parameters)  # type: ignore[reportReturnType]  # never a str


def _cut(extent: slice, edge: int) -> list[tuple[int, slice, slice]]:
    """Cuts an extent along an axis where the chunks end.

    Returns:
        For each chunk its index, what to take of it, and where in the extent that belongs.
    """
    parts = []
    for index in range(extent.start // edge, -(-extent.stop // edge)):
        first = max(extent.start, index * edge)
        last = min(extent.stop, (index + 1) * edge)
        source = slice(first - index * edge, last - index * edge)
        parts.append((index, source, slice(first - extent.start, last - extent.start)))
    return parts


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Returns where runs of consecutive numbers start and stop."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    return itertools.pairwise([0, *breaks.tolist(), len(numbers)])
