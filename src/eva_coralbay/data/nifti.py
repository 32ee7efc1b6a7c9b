"""NIfTI files: reading scans and label maps on the grid of `eva_coralbay.data.grid`.

No more is read of a file than its header says it holds.
"""

import math
import os
import pathlib
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from isal import igzip
from nibabel import nifti1, nifti2, orientations, volumeutils
from torchvision import tv_tensors

from eva_coralbay import _messages
from eva_coralbay.data import foreign_files, nifti_header
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data.foreign_files import UnusableError
from eva_coralbay.data.label_values import IGNORE_LABEL

_SUFFIXES = (".nii.gz", ".nii")
"""The ends of the names of NIfTI files, in lower or upper case."""

_GZIP = b"\x1f\x8b"
"""How a gzip file begins."""

_MAX_GZIP_RATIO = 1032
"""How many bytes a byte of a gzip file holds at most."""

_MAX_SURPLUS = 2**20
"""How many bytes a file may hold behind the voxels that its header states."""

_PLACE_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
    "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units",
)  # fmt: skip
"""The fields of a header that, with the spacing, say where the voxels lie."""

_INTEGER_TOLERANCE = 1e-3
"""How far a stored label value may lie from an integer."""


def is_nifti(path: str | os.PathLike[str]) -> bool:
    """Whether the name of a file is that of a NIfTI file: `.nii` or `.nii.gz` in any case."""
    return os.fspath(path).lower().endswith(_SUFFIXES)


def read_scan(path: str, *, case: str, needs_code: bool = True) -> eva_tv_tensors.Volume:
    """Reads a CT scan.

    Args:
        path: The NIfTI file.
        case: The id of the case, for the error messages.
        needs_code: Whether a file whose sform and qform codes are both 0 is refused; otherwise
            its affine is taken as it is, for published data that are as they are.

    Returns:
        The scan in HU, float32, of shape [1, D, H, W], with a float64 affine.

    Raises:
        DatasetError: If the file is unreadable, is not a volume, has no orientation, contradicts
            itself about its spacing, or holds values that are not finite.
    """
    with foreign_files.reading(path, case=case):
        header = _read_header(path, needs_code=needs_code)
        values = _reorient(_scale(_read_voxels(path, header), header), header)
        array = np.array(values, dtype=np.float32, order="C")
        if not np.isfinite(array).all():
            raise UnusableError(
                f"{np.count_nonzero(~np.isfinite(array))} voxels are NaN or infinite",
                "Export the scan again, or leave the case out.",
            )
    affine = torch.from_numpy(header.grid.affine)
    return eva_tv_tensors.Volume(torch.from_numpy(array)[None], affine=affine)


def read_mask(
    path: str,
    *,
    case: str,
    like: grid_lib.Grid,
    labels: Collection[int],
    ignored: int | None = None,
    needs_code: bool = True,
) -> tv_tensors.Mask:
    """Reads a label map that lies on the grid of an image.

    The two files may store their axes in different orders: the grids are compared after both
    are reoriented.

    Args:
        path: The NIfTI file.
        case: The id of the case, for the error messages.
        like: The grid of the image.
        labels: The label values that may occur.
        ignored: Another value that may occur, which becomes `IGNORE_LABEL`.
        needs_code: As for `read_scan`.

    Returns:
        The label map of shape [1, D, H, W], in the smallest of uint8, int16 and int32 that
        holds all `labels`; in int16 if there is an `ignored` value.

    Raises:
        DatasetError: If the file is unreadable, is not a volume, has no orientation, contradicts
            itself about its spacing, lies on another grid, or holds values that are not known
            labels.
    """
    with foreign_files.reading(path, case=case):
        header = _read_header(path, needs_code=needs_code)
        check_same_grid(header.grid, like, path, case=case)
        array = _as_labels(_read_voxels(path, header), header, labels=labels, ignored=ignored)
        array = np.ascontiguousarray(_reorient(array, header))
    return tv_tensors.Mask(torch.from_numpy(array)[None])


def read_grid(path: str, *, case: str, needs_code: bool = True) -> grid_lib.Grid:
    """Reads where the voxels of a file lie, after reorientation, from its header alone.

    Args:
        path: The NIfTI file.
        case: The id of the case, for the error messages.
        needs_code: As for `read_scan`.

    Returns:
        The grid of the file.

    Raises:
        DatasetError: If the header is unreadable, has no orientation, contradicts itself about the
            spacing, or does not describe a volume.
    """
    with foreign_files.reading(path, case=case):
        return _read_header(path, needs_code=needs_code).grid


def check_same_grid(grid: grid_lib.Grid, like: grid_lib.Grid, path: str, *, case: str) -> None:
    """Checks that a mask lies on the grid of its image.

    Args:
        grid: The grid of the mask.
        like: The grid of the image.
        path: The file of the mask, for the error message.
        case: The id of the case, for the error message.

    Raises:
        DatasetError: If the shapes differ or a corner lies more than a tenth of a voxel off.
    """
    if not grid.equals(like):
        raise foreign_files.problem(
            f"the mask lies on another grid than the image: {grid.describe()} instead of "
            f"{like.describe()}",
            path,
            case=case,
            fix="Resample the mask to the grid of the image.",
        )


def like_file(
    array: npt.NDArray[Any], path: str, *, case: str
) -> nifti1.Nifti1Image | nifti2.Nifti2Image:
    """Returns values on the grid of a file as an image in which each voxel lies where it did.

    Args:
        array: The values, of shape [D, H, W] or [D, H, W, channels] on the grid of `read_scan`.
        path: The NIfTI file whose order of axes, place in the world and units are taken.
        case: The id of the case, for the error messages.

    Returns:
        The image. What its header says of the place of the voxels is what the file's says.

    Raises:
        DatasetError: If the header of the file cannot be read.
    """
    with foreign_files.reading(path, case=case):
        header = _read_header(path, needs_code=False)
        with _open(path) as file:
            source = nifti_header.decode(file.read(nifti_header.SIZE))
    back = orientations.ornt_transform(
        orientations.axcodes2ornt(grid_lib.ORIENTATION), orientations.io_orientation(header.affine)
    )
    # nibabel turns the first three axes and leaves the last one
    stored = orientations.apply_orientation(array, back)
    is_second = isinstance(source, nifti2.Nifti2Header)
    image = (nifti2.Nifti2Image if is_second else nifti1.Nifti1Image)(stored, header.affine)
    for field in _PLACE_FIELDS:
        image.header[field] = source[field]
    image.header["pixdim"][:4] = source["pixdim"][:4]
    return image


def _read_header(path: str, *, needs_code: bool) -> nifti_header.Header:
    """Reads the header of a file and checks that it describes a volume."""
    if not is_nifti(path):
        raise UnusableError("not a NIfTI file", "Convert it to .nii.gz.")
    with _open(path) as file:
        return nifti_header.parse(file.read(nifti_header.SIZE), needs_code=needs_code)


def _open(path: str) -> Any:
    """Opens a file, and decompresses it while it is read if its name says that it is compressed."""
    with pathlib.Path(path).open("rb") as file:
        is_gzip = file.read(len(_GZIP)) == _GZIP
    is_named_so = path.lower().endswith(".gz")
    if is_gzip and not is_named_so:
        raise UnusableError(
            "the file is unreadable: it is compressed by gzip, which its name does not say",
            "Rename it so that it ends in .nii.gz.",
        )
    if is_named_so and not is_gzip:
        raise UnusableError(
            "the file is unreadable: it is not compressed by gzip, though its name says so",
            "If it is a NIfTI file, rename it so that it ends in .nii; if not, copy or download "
            "it again.",
        )
    return igzip.open(path, "rb") if is_gzip else pathlib.Path(path).open("rb")


def _read_voxels(path: str, header: nifti_header.Header) -> npt.NDArray[Any]:
    """Reads the numbers of a file as they are stored; the array may be read-only.

    Raises:
        UnusableError: If there are fewer or many more than the header says.
    """
    size = pathlib.Path(path).stat().st_size
    ratio = _MAX_GZIP_RATIO if path.lower().endswith(".gz") else 1
    if not 0 <= header.offset <= header.end <= ratio * size:
        raise _cut_off(header.end, size)
    with _open(path) as file:
        content = file.read(header.end)
        # reads the checksum of a .gz too, which is behind all voxels
        surplus = len(file.read(_MAX_SURPLUS + 1))
    if len(content) < header.end:
        raise _cut_off(header.end, len(content))
    if surplus > _MAX_SURPLUS:
        raise UnusableError(
            "it holds far more than the voxels that its header states",
            "Its shape or its type is wrong: export it again.",
        )
    stored = np.frombuffer(content, header.dtype, math.prod(header.shape), header.offset)
    return stored.reshape(header.shape, order="F")


def _cut_off(stated: int, found: int) -> UnusableError:
    return UnusableError(
        f"the file is unreadable: its header states {stated:,} bytes, but it holds {found:,}",
        foreign_files.DAMAGED,
    )


def _scale(stored: npt.NDArray[Any], header: nifti_header.Header) -> npt.NDArray[Any]:
    """Returns the values of stored numbers."""
    return volumeutils.apply_read_scaling(stored, header.slope, header.intercept)


def _reorient(array: npt.NDArray[Any], header: nifti_header.Header) -> npt.NDArray[Any]:
    """Returns a view with the axes (D, H, W) in the directions of `ORIENTATION`."""
    return orientations.apply_orientation(array, header.reorientation)


def _as_labels(
    stored: npt.NDArray[Any],
    header: nifti_header.Header,
    *,
    labels: Collection[int],
    ignored: int | None,
) -> npt.NDArray[Any]:
    """Checks that an array holds known labels only, and returns them in the smallest type."""
    array = _scale(stored, header)
    if array.dtype.kind == "f":
        array = _as_integers(array)
    if header.is_scaled:
        _check_kept_apart(stored, array)
    values = set(labels) if ignored is None else {*labels, ignored}
    largest = max(values)
    known = np.zeros(largest + 1, dtype=bool)
    known[list(values)] = True
    in_range = array.min() >= 0 and array.max() <= largest
    if not in_range or not (known.all() or known[array].all()):
        unknown = sorted(set(np.unique(array).tolist()) - values)
        raise UnusableError(
            "the mask holds the unknown label values "
            f"{_messages.list_names(map(str, unknown))}; known are {_list_values(values)}",
            "Correct the mask, or add the labels to the description of the data set.",
        )
    if ignored is None:
        return array.astype(_smallest_type(largest))
    marked = array.astype(np.int16)
    marked[array == ignored] = IGNORE_LABEL
    return marked


def _list_values(values: set[int]) -> str:
    ordered = sorted(values)
    if ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]} to {ordered[-1]}"
    return f"{ordered[0]} to {ordered[-2]} and {ordered[-1]}"


def _check_kept_apart(stored: npt.NDArray[Any], array: npt.NDArray[Any]) -> None:
    """Checks that slope and intercept have not made one label of two."""
    before, after = len(np.unique(stored)), len(np.unique(array))
    if after < before:
        raise UnusableError(
            f"its slope (scl_slope) makes {after} label values of {before}",
            "Store label values as they are, with a slope of 1.",
        )


def _as_integers(array: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Rounds the values of a mask that is stored as float or scaled."""
    rounded = np.rint(array)
    is_near = np.abs(array - rounded) <= _INTEGER_TOLERANCE
    if not is_near.all():
        raise UnusableError(
            f"the mask holds values that are not integers, such as {array[~is_near][0]}",
            "Store labels, not probabilities or interpolated values.",
        )
    return rounded.clip(-(2**31), 2**31).astype(np.int64)


def _smallest_type(largest: int) -> npt.DTypeLike:
    fitting = (kind for kind in (np.uint8, np.int16) if largest <= np.iinfo(kind).max)
    return next(fitting, np.int32)
