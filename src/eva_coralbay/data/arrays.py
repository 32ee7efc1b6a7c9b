"""Arrays of numpy in foreign files: no more is read than a file holds, and nothing is executed."""

import math
import pathlib
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from eva_coralbay.data import foreign_files
from eva_coralbay.data.foreign_files import UnusableError

_MAX_DEFLATE_RATIO = 1032
"""How many bytes a byte of a compressed array holds at most."""


def read_npy(path: str, *, case: str | None = None) -> npt.NDArray[Any]:
    """Reads an array that `numpy.save` wrote.

    Args:
        path: The file.
        case: The id of the case, for the error messages.

    Raises:
        DatasetError: If it is cut off or damaged, or holds anything but numbers.
    """
    with foreign_files.reading(path, case=case), pathlib.Path(path).open("rb") as file:
        return _read(file, pathlib.Path(path).stat().st_size)


def read_npz(path: str, name: str, *, case: str | None = None) -> npt.NDArray[Any]:
    """Reads an array of an archive that `numpy.savez` wrote.

    Args:
        path: The file.
        name: The name of the array.
        case: The id of the case, for the error messages.

    Raises:
        DatasetError: If the archive is damaged, has no such array, or it holds anything but
            numbers.
    """
    with foreign_files.reading(path, case=case), zipfile.ZipFile(path) as archive:
        try:
            member = archive.getinfo(f"{name}.npy")
        except KeyError as error:
            raise UnusableError(f"it has no '{name}'", foreign_files.DAMAGED) from error
        bound = min(member.file_size, _MAX_DEFLATE_RATIO * pathlib.Path(path).stat().st_size)
        with archive.open(member) as file:
            return _read(file, bound)


def _read(file: Any, size: int) -> npt.NDArray[Any]:
    """Reads an array from a stream that holds as many bytes, after its header is checked."""
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise UnusableError(f"its version {version} is unknown", "Save the array again.")
    shape, is_fortran, dtype = read_header(file)
    if dtype.kind not in "biuf":
        raise UnusableError(f"it holds {dtype} and no numbers", "Save an array of numbers.")
    number = math.prod(shape)
    if min(shape, default=0) < 0 or not number * dtype.itemsize <= size:
        raise UnusableError(
            f"the file is unreadable: its header states the shape {shape} of {dtype}, which "
            f"{size:,} bytes cannot hold",
            foreign_files.DAMAGED,
        )
    content = file.read(number * dtype.itemsize)
    if len(content) < number * dtype.itemsize:
        raise EOFError("fewer numbers than the header states")
    array = np.frombuffer(content, dtype, number)
    return array.reshape(shape, order="F" if is_fortran else "C").astype(dtype.newbyteorder("="))
