"""NIfTI files: reading scans and label maps on the grid of `eva_coralbay.data.grid`."""

import math
import zlib
from collections.abc import Collection
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from isal import igzip, igzip_lib
from nibabel import filebasedimages, nifti1, orientations, spatialimages, volumeutils
from torchvision import tv_tensors

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import DatasetError

_READ_ERRORS: Any = (
    OSError,
    EOFError,
    zlib.error,
    igzip_lib.IsalError,
    filebasedimages.ImageFileError,
)
"""What nibabel raises for files that are missing, cut off or not NIfTI."""

_HEADER_ERRORS = (spatialimages.HeaderDataError, np.linalg.LinAlgError, ValueError)
"""What nibabel raises for headers with impossible values."""

_INTEGER_TOLERANCE = 1e-3
"""How far a stored label value may lie from an integer."""


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
        DatasetError: If the file is unreadable, is not a volume, has no orientation or spacing,
            or holds values that are not finite.
    """
    image = _open(path, case=case, needs_code=needs_code)
    array = np.array(_read_array(image, path, case=case), dtype=np.float32, order="C")
    if not np.isfinite(array).all():
        raise _error(
            f"{np.count_nonzero(~np.isfinite(array))} voxels are NaN or infinite",
            path,
            case=case,
            fix="Export the scan again, or leave the case out.",
        )
    affine = torch.from_numpy(_grid(image).affine)
    return eva_tv_tensors.Volume(torch.from_numpy(array)[None], affine=affine)


def read_mask(
    path: str, *, case: str, like: grid_lib.Grid, labels: Collection[int], needs_code: bool = True
) -> tv_tensors.Mask:
    """Reads a label map that lies on the grid of an image.

    The two files may store their axes in different orders: the grids are compared after both
    are reoriented.

    Args:
        path: The NIfTI file.
        case: The id of the case, for the error messages.
        like: The grid of the image.
        labels: The label values that may occur.
        needs_code: As for `read_scan`.

    Returns:
        The label map of shape [1, D, H, W], in the smallest of uint8, int16 and int32 that
        holds all `labels`.

    Raises:
        DatasetError: If the file is unreadable, is not a volume, has no orientation or spacing,
            lies on another grid, or holds values that are no known labels.
    """
    image = _open(path, case=case, needs_code=needs_code)
    check_same_grid(_grid(image), like, path, case=case)
    array = _as_labels(_read_array(image, path, case=case), path, case=case, labels=labels)
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
        DatasetError: If the header is unreadable, or has no orientation or spacing, or the file
            does not hold a volume.
    """
    return _grid(_open(path, case=case, needs_code=needs_code))


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
        raise _error(
            f"the mask lies on another grid than the image: {grid.describe()} instead of "
            f"{like.describe()}",
            path,
            case=case,
            fix="Resample the mask to the grid of the image.",
        )


def as_nifti(
    array: npt.NDArray[Any], affine: npt.NDArray[np.float64], *, orientation: str = "LPS"
) -> nifti1.Nifti1Image:
    """Returns a volume as a NIfTI image.

    Args:
        array: The volume of shape [D, H, W].
        affine: Its affine of shape [4, 4], with the columns in the order (D, H, W).
        orientation: The axis codes in which the image stores the volume.

    Returns:
        The image, with sform and qform set.
    """
    transform = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(orientation)
    )
    stored = nifti1.Nifti1Image(
        orientations.apply_orientation(array, transform),
        affine @ orientations.inv_ornt_aff(transform, array.shape),
    )
    stored.set_sform(stored.affine, code="scanner")
    stored.set_qform(stored.affine, code="scanner")
    stored.header.set_xyzt_units("mm")
    return stored


def _open(path: str, *, case: str, needs_code: bool) -> nifti1.Nifti1Image:
    """Opens a NIfTI file, reads its header and checks that it describes a volume."""
    if not path.endswith((".nii", ".nii.gz")):
        raise _error("not a NIfTI file", path, case=case, fix="Convert it to .nii.gz.")
    try:
        image = nib.load(path)
        if not isinstance(image, nifti1.Nifti1Image):
            raise filebasedimages.ImageFileError("not a NIfTI file")
        _check_volume(image, path, case=case)
        _check_oriented(image, path, case=case, needs_code=needs_code)
    except DatasetError:
        raise
    except _READ_ERRORS as error:
        raise _unreadable(error, path, case=case) from error
    except _HEADER_ERRORS as error:
        raise _error(
            f"the header is invalid ({error})", path, case=case, fix="Export the file again."
        ) from error
    return image


def _check_volume(image: nifti1.Nifti1Image, path: str, *, case: str) -> None:
    """Checks that there are three axes of more than one voxel, and one number a voxel."""
    shape = image.shape
    if len(shape) < 3 or min(shape[:3]) < 2 or max(shape[3:], default=1) > 1:
        raise _error(
            f"the shape {shape} is not that of one volume",
            path,
            case=case,
            fix="Store one 3D volume a file, with two or more voxels along each axis.",
        )
    dtype = np.dtype(image.get_data_dtype())
    if dtype.kind not in "iuf":
        raise _error(
            f"the voxels are of type {dtype}",
            path,
            case=case,
            fix="Store one number a voxel.",
        )


def _check_oriented(image: nifti1.Nifti1Image, path: str, *, case: str, needs_code: bool) -> None:
    """Checks that the header says where the voxels lie, by sform or qform."""
    header = image.header
    if needs_code and header["sform_code"] == 0 and header["qform_code"] == 0:
        raise _error(
            "orientation and spacing are missing (sform_code and qform_code are 0)",
            path,
            case=case,
            fix="Write the affine of the scan to the file with a code above 0.",
        )
    affine = image.affine
    if affine is None or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        raise _error(
            f"the affine is singular or not finite, so the spacing is missing: {affine}",
            path,
            case=case,
            fix="Write the affine of the scan to the file.",
        )


def _reorientation(image: nifti1.Nifti1Image) -> npt.NDArray[Any]:
    """Returns the nibabel transform from the stored axes to those of `ORIENTATION`."""
    return orientations.ornt_transform(
        orientations.io_orientation(image.affine), orientations.axcodes2ornt(grid_lib.ORIENTATION)
    )


def _grid(image: nifti1.Nifti1Image) -> grid_lib.Grid:
    """Returns the grid of an image after reorientation."""
    transform = _reorientation(image)
    affine = image.affine @ orientations.inv_ornt_aff(transform, image.shape[:3])
    depth, height, width = (image.shape[axis] for axis in np.argsort(transform[:, 0]))
    return grid_lib.Grid((depth, height, width), affine)


def _read_array(image: nifti1.Nifti1Image, path: str, *, case: str) -> npt.NDArray[Any]:
    """Reads the voxels, scaled by slope and intercept and reoriented, of shape [D, H, W].

    The array may be read-only.
    """
    try:
        content = _read_bytes(path)
    except _READ_ERRORS as error:
        raise _unreadable(error, path, case=case) from error
    layout: Any = image.dataobj
    if len(content) < layout.offset + layout.dtype.itemsize * math.prod(layout.shape):
        raise _unreadable(EOFError("fewer voxels than the header says"), path, case=case)
    stored = np.frombuffer(content, layout.dtype, math.prod(layout.shape), layout.offset)
    return orientations.apply_orientation(
        volumeutils.apply_read_scaling(stored, layout.slope, layout.inter).reshape(
            image.shape[:3], order="F"
        ),
        _reorientation(image),
    )


def _read_bytes(path: str) -> bytes:
    """Reads a file as a whole; read in parts, the checksum of a .gz would never be looked at."""
    with open(path, "rb") as file:
        content = file.read()
    return igzip.decompress(content) if path.endswith(".gz") else content


def _as_labels(
    array: npt.NDArray[Any], path: str, *, case: str, labels: Collection[int]
) -> npt.NDArray[Any]:
    """Checks that an array holds known labels only, and returns them in the smallest type."""
    if array.dtype.kind == "f":
        array = _as_integers(array, path, case=case)
    largest = max(labels)
    known = np.zeros(largest + 1, dtype=bool)
    known[list(labels)] = True
    in_range = array.min() >= 0 and array.max() <= largest
    if not in_range or not (known.all() or known[array].all()):
        unknown = sorted(set(np.unique(array).tolist()) - set(labels))
        raise _error(
            f"the mask holds the unknown label values {unknown[:10]}; "
            f"known are {sorted(labels)[0]} to {largest}",
            path,
            case=case,
            fix="Correct the mask, or add the labels to the description of the data set.",
        )
    return np.array(array, dtype=_smallest_type(largest), order="C")


def _as_integers(array: npt.NDArray[Any], path: str, *, case: str) -> npt.NDArray[Any]:
    """Rounds the values of a mask that is stored as float or scaled."""
    rounded = np.rint(array)
    deviation = np.abs(array - rounded)
    if not (deviation <= _INTEGER_TOLERANCE).all():
        raise _error(
            "the mask holds values that are not integers, such as "
            f"{array[~(deviation <= _INTEGER_TOLERANCE)][0]}",
            path,
            case=case,
            fix="Store labels, not probabilities or interpolated values.",
        )
    return rounded.astype(np.int64)


def _smallest_type(largest: int) -> npt.DTypeLike:
    fitting = (kind for kind in (np.uint8, np.int16) if largest <= np.iinfo(kind).max)
    return next(fitting, np.int32)


def _unreadable(error: Exception, path: str, *, case: str) -> DatasetError:
    return _error(
        f"the file is unreadable ({type(error).__name__}: {error})",
        path,
        case=case,
        fix="It may be cut off or damaged: copy or download it again.",
    )


def _error(problem: str, path: str, *, case: str, fix: str) -> DatasetError:
    return DatasetError(f"Case '{case}', file '{path}': {problem}. {fix}")
