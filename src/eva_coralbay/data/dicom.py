"""CT series of DICOM files: what belongs together, what is wrong with it, and its voxels.

pydicom reads the headers, SimpleITK the pixels. Of the headers nothing is kept but where the voxels
lie.
"""

import os
import pathlib
from collections.abc import Sequence
from concurrent import futures

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK
from eva.vision.data import tv_tensors as eva_tv_tensors

from eva_coralbay.data import dicom_checks, dicom_header, reorientation
from eva_coralbay.errors import DatasetError

_READERS = 8
"""How many headers are read at a time: they wait for the disk."""

_AIR = -1024.0
"""The HU of what a scanner has not measured."""

_MAX_HU = 3071.0
"""The HU above which a padding value is none that a scanner measures."""

_UNSIGNED = 2**16
"""What a negative value of 16 bits grows by when it is read without a sign."""

_FAILED = "failed"
"""In the place of the UID of a series where the disk has failed; UIDs have digits and dots."""

_LACK_OF_MEMORY = ("bad_alloc", "allocate memory", "allocation failed")
"""What SimpleITK's messages have in them when there is too little memory."""


def find_series(folder: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Finds the DICOM files of a folder.

    Args:
        folder: The folder.
        names: The names of the files to look at.

    Returns:
        The paths of each series in the order of their names, by the UID of the series; those
        whose header is damaged or has none are under "". Hidden files are left out, such as
        `._IM0001.dcm`, which macOS puts beside each file on foreign disks. A file that the disk
        fails to give may be of any series, so it is in each: none is taken as whole without it.
    """
    paths = [os.path.join(folder, name) for name in names if not name.startswith(".")]
    series: dict[str, list[str]] = {}
    failed = []
    with dicom_header.silent(), futures.ThreadPoolExecutor(_READERS) as pool:
        for path, series_uid in zip(paths, pool.map(_read_series_uid, paths), strict=True):
            if series_uid is _FAILED:
                failed.append(path)
            elif series_uid is not None:
                series.setdefault(series_uid, []).append(path)
    if failed and not series:
        return {"": failed}
    return {series_uid: [*found, *failed] for series_uid, found in series.items()}


def read_series(paths: Sequence[str], *, case: str) -> eva_tv_tensors.Volume:
    """Reads a series.

    Files that are not slices, such as a localizer or a report among many slices, and copies of a
    slice are left out; the log names them.

    Args:
        paths: Its files.
        case: The id of the case, for the error messages.

    Returns:
        The scan in HU, float32, of shape [1, D, H, W], with a float64 affine.

    Raises:
        DatasetError: If it is not a CT scan whose slices lie evenly behind each other, says why. An
            `OSError` or a `MemoryError`, which may be none of the scan's fault, is its cause.
    """
    cause = None
    try:
        with dicom_header.silent():
            volume = _read(paths, case)
        if volume.isfinite().all():
            return volume
        problem = "voxels are NaN or infinite"
    except dicom_checks.UnusableSeriesError as error:
        problem = str(error)
    except dicom_header.DeflatedError:
        problem = "deflated (transfer syntax 1.2.840.10008.1.2.1.99): convert it to NIfTI"
    except Exception as error:  # pydicom raises almost anything for a damaged file
        problem, cause = f"unreadable ({type(error).__name__})", _find_cause(error, paths)
    # what pydicom says of a header may tell of a patient
    raise DatasetError(f"Case '{case}', DICOM series of {len(paths)} files: {problem}.") from cause


def _read(paths: Sequence[str], case: str) -> eva_tv_tensors.Volume:
    files = dicom_checks.check([dicom_header.read(path) for path in paths], case=case)
    order, affine = _arrange([file.header for file in files])
    with dicom_header.for_gdcm([files[i] for i in order]) as ordered:
        array = _read_pixels(ordered)
    for index, number in enumerate(order):
        _replace_padding(array[:, :, index], files[number].header)
    return reorientation.reorient(array, affine)


def _find_cause(error: Exception, paths: Sequence[str]) -> OSError | MemoryError | None:
    """Returns what of the system caused an error, if that can be told."""
    if isinstance(error, OSError | MemoryError):
        return error
    if any(part in str(error) for part in _LACK_OF_MEMORY):
        return MemoryError()
    try:
        for path in paths:
            with pathlib.Path(path).open("rb") as file:
                while file.read(2**20):
                    pass
    except OSError as cause:
        return cause
    return None


def place_slices(
    slices: npt.NDArray[np.float32], paths: Sequence[str], *, case: str
) -> eva_tv_tensors.Volume:
    """Puts values that are known for each file of a series where its voxels lie.

    Args:
        slices: The values, of shape [files, rows, columns], in the order of the files.
        paths: The files of the series.
        case: The id of the case, for the error messages.

    Returns:
        The values on the grid that `read_series` returns for these files.

    Raises:
        DatasetError: If there are other numbers of them than of files, or a header is damaged.
    """
    if len(slices) != len(paths):
        raise DatasetError(
            f"Case '{case}', DICOM series of {len(paths)} files: there are values for "
            f"{len(slices)} of them."
        )
    files, affine = order_slices(paths, case=case)
    numbers = {path: number for number, path in enumerate(paths)}
    ordered = [numbers[path] for path in files]
    return reorientation.reorient(slices[ordered].transpose(2, 1, 0), affine)


def order_slices(paths: Sequence[str], *, case: str) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Returns the slices of a series in order, and where the voxels of their stack lie.

    Args:
        paths: The files of the series.
        case: The id of the case, for the error messages.

    Returns:
        The files that are slices, along the direction across them, and the affine from (column,
        row, slice) to RAS+ world positions in mm.

    Raises:
        DatasetError: If they are no such slices, or a header is damaged.
    """
    try:
        with dicom_header.silent():
            files = dicom_checks.check([dicom_header.read(path) for path in paths], case=case)
        order, affine = _arrange([file.header for file in files])
    except Exception as error:  # pydicom raises almost anything for a damaged file
        reason = error if isinstance(error, dicom_checks.UnusableSeriesError) else "unreadable"
        # what pydicom says of a header may tell of a patient
        raise DatasetError(
            f"Case '{case}', DICOM series of {len(paths)} files: {reason}."
        ) from None
    return [files[index].path for index in order], affine


def _read_series_uid(path: str) -> str | None:
    """Returns the UID of the series of a file, None if it is not a DICOM file or a directory."""
    try:
        is_dicom = dicom_header.is_dicom(path)
        if not (is_dicom or path.lower().endswith(".dcm")):
            return None
        header = dicom_header.read(path).header
        if dicom_header.is_directory(header):
            return None
        if not (path.lower().endswith(".dcm") or header.preamble or header.get("SOPClassUID")):
            return None  # other bytes may begin as a file without preamble does
        return str(header.get("SeriesInstanceUID", ""))
    except Exception as error:  # it is reported when the series is read
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in dicom_header.FAILURES:
            return _FAILED
        return "" if pathlib.Path(path).name != "DICOMDIR" else None


def _arrange(
    headers: Sequence[pydicom.Dataset],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Returns the order of the slices, and the affine from (column, row, slice) to RAS+ in mm."""
    positions = dicom_checks.positions_of(headers)
    order = np.argsort(positions @ dicom_checks.normal_of(headers[0]))
    along_row, along_column = dicom_checks.cosines_of(headers[0])
    row_distance, column_distance = (float(value) for value in headers[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = along_row * column_distance
    affine[:3, 1] = along_column * row_distance
    affine[:3, 2] = (positions[order[-1]] - positions[order[0]]) / (len(headers) - 1)
    affine[:3, 3] = positions[order[0]]
    return order, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _read_pixels(paths: Sequence[str]) -> npt.NDArray[np.float32]:
    """Returns the HU with the axes (column, row, slice)."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(paths)
    reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    return SimpleITK.GetArrayFromImage(reader.Execute()).transpose(2, 1, 0)


def _replace_padding(plane: npt.NDArray[np.float32], header: pydicom.Dataset) -> None:
    """Makes air of padding that a missing or a wrong sign makes bright, in place.

    Some scanners pad with -2000, which is 63536 where it is stored or stated without a sign. All
    values up to the range limit are padding (DICOM PS3.3, C.7.5.1.1.2).
    """
    stated = header.get("PixelPaddingValue"), header.get("PixelPaddingRangeLimit")
    values = [value for value in stated if isinstance(value, int)]
    if not isinstance(stated[0], int):
        return
    slope, intercept = float(header.RescaleSlope), float(header.RescaleIntercept)
    for offset in (0, _UNSIGNED):
        ends = [(value + offset) * slope + intercept for value in (min(values), max(values))]
        if min(ends) > _MAX_HU:
            half = abs(slope) / 2
            plane[(plane > min(ends) - half) & (plane < max(ends) + half)] = _AIR
