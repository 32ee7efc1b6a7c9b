"""The headers of DICOM files: read without a word about patients, and within bounds.

pydicom repeats values of a header in its warnings, which would reach the terminal and logs; it
inflates deflated files as a whole before it reads them. Neither happens here.
"""

import contextlib
import errno
import logging
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import pydicom
from pydicom import uid
from pydicom.filereader import read_file_meta_info

from eva_coralbay import _atomic_files, _hashes

_TAGS = [
    "BitsAllocated", "BitsStored", "Columns", "HighBit", "ImageOrientationPatient",
    "ImagePositionPatient", "ImageType", "Modality", "NumberOfFrames",
    "PhotometricInterpretation", "PixelPaddingRangeLimit", "PixelPaddingValue",
    "PixelRepresentation", "PixelSpacing", "RescaleIntercept", "RescaleSlope", "RescaleType",
    "Rows", "SamplesPerPixel", "SeriesInstanceUID", "SOPClassUID",
]  # fmt: skip
"""What is read of a header: nothing that tells of a patient.

GantryDetectorTilt is not among them: positions and orientation say whether the slices lie straight
behind each other, also where they were straightened and the tag was left as it was.
"""

_PREAMBLE = 128
"""The number of bytes before the mark of a DICOM file."""

_MARK = b"DICM"
"""What follows the preamble."""

_FIRST_GROUPS = (0x0002, 0x0008)
"""The groups that a file without preamble begins with: its meta information, or its content."""

_REPRESENTATIONS = (b"AE", b"CS", b"DA", b"IS", b"LO", b"OB", b"SH", b"TM", b"UI", b"UL")
"""The value representations that the first element of a file may have."""

_MAX_FIRST = 256
"""The longest first value of a file that does not state its representation, in bytes."""


class File(NamedTuple):
    """A file of a series."""

    path: str

    header: pydicom.FileDataset
    """What `_TAGS` name."""

    pixel_start: int
    """Where the pixels begin, with the element that holds them."""

    pixel_bytes: int
    """How much there is behind the header: the pixels and what says so."""

    @property
    def end_of_pixels(self) -> int | None:
        """Where the element of the pixels ends, None if they are compressed."""
        header = self.header
        # without meta information it is implicit
        syntax = header.file_meta.get("TransferSyntaxUID", uid.ImplicitVRLittleEndian)
        if syntax.is_compressed:
            return None
        bits = int(header.Rows) * int(header.Columns) * int(header.BitsAllocated)
        element = 8 if syntax.is_implicit_VR else 12
        return self.pixel_start + element + -(-bits // 16) * 2

    def hash_pixels(self) -> str:
        """Returns the hash of all that lies behind the header."""
        return _hashes.hash_file(self.path, start=self.pixel_start)


class DeflatedError(Exception):
    """The file is deflated: a small one may be of any size when it is inflated."""


FAILURES = (
    errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT,
)  # fmt: skip
"""Errors of the system that are no fault of a file, so that trying again may help."""


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keeps what pydicom says of a header from the terminal and from logs, in all threads.

    All of it, whatever the message, as it repeats values of the header, which may name a patient.

    Use it in the thread that starts others, as the filters of warnings belong to the process.
    """
    pydicom_logger = logging.getLogger("pydicom")
    was_disabled, pydicom_logger.disabled = pydicom_logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        pydicom_logger.disabled = was_disabled


def is_dicom(path: str) -> bool:
    """Returns whether a file begins as a DICOM file, with or without preamble.

    Raises:
        OSError: If the disk or the network fails, so that it cannot be told.
    """
    try:
        with pathlib.Path(path).open("rb") as file:
            start = file.read(_PREAMBLE + len(_MARK))
    except OSError as error:
        if error.errno in FAILURES:
            raise
        return False
    return start[_PREAMBLE:] == _MARK or _begins_without_preamble(start)


@contextlib.contextmanager
def for_gdcm(files: Sequence[File]) -> Iterator[list[str]]:
    """Gives GDCM what it reads right: files with a preamble and with nothing behind the pixels.

    Without a preamble it reads no meta information, and what is left behind the pixels of a damaged
    file it takes for elements of any size.

    Args:
        files: The files, of which the headers were checked.

    Yields:
        Their paths, of temporary copies where one is needed.
    """
    with _atomic_files.private_folder() as folder:
        paths = []
        for index, file in enumerate(files):
            path = pathlib.Path(file.path)
            has_preamble, end = _has_preamble(file.path), file.end_of_pixels
            if not has_preamble or (end is not None and end < path.stat().st_size):
                copy = folder / str(index)
                preamble = b"" if has_preamble else bytes(_PREAMBLE) + _MARK
                with path.open("rb") as source:
                    copy.write_bytes(preamble + source.read(-1 if end is None else end))
                path = copy
            paths.append(str(path))
        yield paths


def _has_preamble(path: str) -> bool:
    """Returns whether a file has a preamble, or needs none as it has no meta information."""
    with pathlib.Path(path).open("rb") as file:
        start = file.read(_PREAMBLE + len(_MARK))
    return start[_PREAMBLE:] == _MARK or int.from_bytes(start[:2], "little") != _FIRST_GROUPS[0]


def is_directory(header: pydicom.FileDataset) -> bool:
    """Returns whether a file is the directory of a medium, whatever its name is."""
    stated = header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
    return stated == uid.MediaStorageDirectoryStorage


def read(path: str) -> File:
    """Reads a header.

    Args:
        path: The file.

    Raises:
        DeflatedError: If the file is deflated.
        Exception: Nearly anything, for a damaged file.
    """
    with pathlib.Path(path).open("rb") as file:
        _refuse_deflated(file, path)
        header = pydicom.dcmread(
            file, stop_before_pixels=True, specific_tags=_TAGS, force=is_dicom(path)
        )
        start = file.tell()
    return File(path, header, start, pathlib.Path(path).stat().st_size - start)


def _refuse_deflated(file: BinaryIO, path: str) -> None:
    """Raises an error for a deflated file, of which only the start is read."""
    start = file.read(_PREAMBLE + len(_MARK))
    file.seek(0)
    if start[_PREAMBLE:] != _MARK:
        return
    syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        raise DeflatedError


def _begins_without_preamble(start: bytes) -> bool:
    """Returns whether bytes are the first element of a file without preamble."""
    group, element = int.from_bytes(start[:2], "little"), int.from_bytes(start[2:4], "little")
    if len(start) < 16 or group not in _FIRST_GROUPS or element > 0x0100:
        return False
    length = int.from_bytes(start[4:8], "little")
    return start[4:6] in _REPRESENTATIONS or 0 < length <= _MAX_FIRST
