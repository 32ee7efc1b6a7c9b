"""A prepared scan as a file, of which a crop is read without the rest.

A file is a prefix (magic, version, length and CRC-32 of the header), the header as JSON and the
compressed chunks of its arrays, in C order, one behind the other. Each chunk has its own CRC-32,
which is checked whenever it is read. Equal scans make equal files.
"""

import itertools
import json
import os
import struct
import weakref
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import blosc2
import numpy as np
import numpy.typing as npt
import torch
from isal import isal_zlib
from typing_extensions import override

from eva_coralbay.data import geometry, prepared
from eva_coralbay.data.errors import DatasetError

VERSION = 1
"""The version of the format and of what is done to a scan: files of another one are not read."""

_MAGIC = b"CORALBAY"

_PREFIX = struct.Struct("<8sIII")
"""Magic, version, length of the header, CRC-32 of the header."""

_EDGE = 32
"""The edge of the chunks of image and label map, in voxels."""

_COMPRESSION: Dict[str, Any] = {
    "codec": blosc2.Codec.ZSTD,
    "clevel": 5,
    "filters": [blosc2.Filter.BITSHUFFLE],
    "filters_meta": [0],
    "nthreads": 1,
}

_DECOMPRESSION: Dict[str, Any] = {"nthreads": 1}

Identity = Tuple[int, int, int]
"""What tells a file from one that replaced it: inode, size and time of change."""


class StoreError(DatasetError):
    """A prepared scan is missing or damaged, or cannot be written."""


class _Array(NamedTuple):
    """Where the chunks of an array lie."""

    dtype: str
    shape: Tuple[int, ...]
    chunk: Tuple[int, ...]
    offsets: Sequence[int]
    """Where each chunk starts in the file, and where the last one ends."""
    checksums: Sequence[int]

    @property
    def cells(self) -> Tuple[int, ...]:
        """The number of chunks along each axis."""
        return tuple(-(-size // edge) for size, edge in zip(self.shape, self.chunk, strict=True))

    def box(self, cell: Sequence[int]) -> Tuple[slice, ...]:
        """Returns the extent of a chunk."""
        return tuple(
            slice(index * edge, min((index + 1) * edge, size))
            for index, edge, size in zip(cell, self.chunk, self.shape, strict=True)
        )


class StoredScan(prepared.PreparedScan):
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
        self._arrays: Dict[str, _Array] = {}
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
    @override
    def grid(self) -> geometry.Grid:
        depth, height, width = self._arrays["image"].shape
        return geometry.Grid((depth, height, width), self._affine)

    @property
    @override
    def label_counts(self) -> npt.NDArray[np.int64]:
        return self._counts

    @override
    def read_image(self, box: prepared.Box) -> torch.Tensor:
        return torch.from_numpy(self._read("image", box)[None]).float()

    @override
    def read_mask(self, box: prepared.Box) -> torch.Tensor:
        labels = self._read("mask", box)[None]
        # torch has next to no operations on uint16
        return torch.from_numpy(labels if labels.dtype == np.uint8 else labels.astype(np.int32))

    @override
    def locate(self, label: int, index: int) -> Tuple[int, int, int]:
        _, height, width = self.grid.shape
        rows = self._read("rows", (slice(label, label + 1), *self.whole[:2]))
        ends = np.cumsum(rows, dtype=np.int64)
        row = int(np.searchsorted(ends, index, side="right"))
        y, x = divmod(row, height)
        labels = self._read("mask", (slice(y, y + 1), slice(x, x + 1), slice(0, width)))
        within_row = index - (int(ends[row - 1]) if row else 0)
        return y, x, int(np.flatnonzero(labels == label)[within_row])

    def check(self) -> None:
        """Reads the whole file.

        Raises:
            StoreError: If it is damaged.
        """
        for name, array in self._arrays.items():
            for _ in self._read_chunks(name, list(np.ndindex(*array.cells))):
                pass

    def _read_header(self, key: str) -> Tuple[Dict[str, Any], int]:
        """Returns the header and the position behind it."""
        prefix = self._pread(_PREFIX.size, 0)
        if len(prefix) < _PREFIX.size:
            raise self._damage("it is cut off")
        magic, version, length, checksum = _PREFIX.unpack(prefix)
        if magic != _MAGIC or version != VERSION:
            raise self._damage("its first bytes are wrong")
        content = self._pread(length, _PREFIX.size)
        if len(content) < length or isal_zlib.crc32(content) != checksum:
            raise self._damage("the checksum of the header is wrong")
        header = json.loads(content)
        if header["key"] != key:
            raise self._damage(f"it is that of '{header['key']}'")
        return header, _PREFIX.size + length

    def _read(self, name: str, box: Sequence[slice]) -> npt.NDArray[Any]:
        """Reads a region of an array."""
        array = self._arrays[name]
        region = np.empty([extent.stop - extent.start for extent in box], dtype=array.dtype)
        spans = [
            range(extent.start // edge, -(-extent.stop // edge))
            for extent, edge in zip(box, array.chunk, strict=True)
        ]
        for cell, chunk in self._read_chunks(name, list(itertools.product(*spans))):
            source, target = _overlap(array.box(cell), box)
            region[target] = chunk[source]
        return region

    def _read_chunks(
        self, name: str, cells: Sequence[Tuple[int, ...]]
    ) -> Iterator[Tuple[Tuple[int, ...], npt.NDArray[Any]]]:
        """Reads chunks, those that lie behind each other in one go."""
        array = self._arrays[name]
        numbers: List[int] = np.ravel_multi_index(np.transpose(cells), array.cells).tolist()
        for _, run in itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
            positions, consecutive = zip(*run, strict=True)
            offsets = array.offsets[consecutive[0] : consecutive[-1] + 2]
            content = memoryview(self._pread(offsets[-1] - offsets[0], offsets[0]))
            bounds = itertools.pairwise(offset - offsets[0] for offset in offsets)
            for position, number, (start, stop) in zip(positions, consecutive, bounds, strict=True):
                if isal_zlib.crc32(content[start:stop]) != array.checksums[number]:
                    raise self._damage(f"the checksum of chunk {number} of the {name} is wrong")
                extents = array.box(cells[position])
                chunk = np.empty([e.stop - e.start for e in extents], dtype=array.dtype)
                blosc2.decompress2(content[start:stop], dst=chunk, **_DECOMPRESSION)
                yield cells[position], chunk

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


def encode(scan: prepared.PreparedScan, *, key: str) -> bytes:
    """Returns the content of the file of a prepared scan.

    Args:
        scan: The scan. Its HU are rounded to integers.
        key: What tells it from others.
    """
    image = scan.read_image(scan.whole)[0].round().clamp_(-(2**15), 2**15 - 1).to(torch.int16)
    arrays = {"image": (image.numpy(), (_EDGE,) * 3)}
    if len(scan.label_counts):
        kind = np.uint8 if len(scan.label_counts) <= 2**8 else np.uint16
        mask = scan.read_mask(scan.whole)[0].numpy().astype(kind)
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
    }
    content = json.dumps(header).encode()
    prefix = _PREFIX.pack(_MAGIC, VERSION, len(content), isal_zlib.crc32(content))
    return b"".join([prefix, content, *chunks])


def identity(path: str) -> Identity | None:
    """Returns the identity of a file, None if there is no such file."""
    try:
        return _identity_of(os.stat(path))
    except FileNotFoundError:
        return None


def _identity_of(status: os.stat_result) -> Identity:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _count_rows(mask: npt.NDArray[np.unsignedinteger], num_labels: int) -> npt.NDArray[np.uint16]:
    """Returns how many voxels of each label each row has, of shape [labels, D, H]."""
    depth, height, _ = mask.shape
    rows = np.empty((num_labels, depth, height), dtype=np.uint16)
    first = np.arange(height)[:, None] * num_labels
    for index, section in enumerate(mask):
        counts = np.bincount((first + section).ravel(), minlength=height * num_labels)
        rows[:, index] = counts.reshape(height, num_labels).T
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


def _overlap(
    chunk: Sequence[slice], box: Sequence[slice]
) -> Tuple[Tuple[slice, ...], Tuple[slice, ...]]:
    """Returns which part of a chunk fills which part of a region."""
    shared = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(chunk, box, strict=True)]
    source = tuple(
        slice(lo - extent.start, hi - extent.start)
        for (lo, hi), extent in zip(shared, chunk, strict=True)
    )
    target = tuple(
        slice(lo - extent.start, hi - extent.start)
        for (lo, hi), extent in zip(shared, box, strict=True)
    )
    return source, target
