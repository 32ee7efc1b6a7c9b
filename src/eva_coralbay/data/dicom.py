"""CT series of DICOM files: what belongs together, what is wrong with it, and its voxels.

pydicom reads the headers, SimpleITK the pixels. Of the headers nothing is kept but where the voxels
lie.
"""

import collections
import os
from collections.abc import Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK
from eva.vision.data import tv_tensors as eva_tv_tensors
from pydicom import uid

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import DatasetError

_TAGS = [
    "BitsAllocated", "Columns", "ImageOrientationPatient", "ImagePositionPatient", "ImageType",
    "Modality", "NumberOfFrames", "PhotometricInterpretation", "PixelSpacing", "RescaleIntercept",
    "RescaleSlope", "RescaleType", "Rows", "SamplesPerPixel", "SeriesInstanceUID", "SOPClassUID",
]  # fmt: skip
"""What is read of a header: nothing that tells of a patient.

GantryDetectorTilt is not among them: positions and orientation say whether the slices lie straight
behind each other, also where they were straightened and the tag was left as it was.
"""

_MODALITIES = (
    "CR", "DX", "ES", "IO", "IVUS", "KO", "MG", "MR", "NM", "OP", "OPT", "OT", "PR", "PT", "PX",
    "REG", "RF", "RTDOSE", "RTIMAGE", "RTPLAN", "RTSTRUCT", "SC", "SEG", "SM", "SR", "US", "XA",
    "XC",
)  # fmt: skip
"""The modalities that a reason names. What is not known could tell of a patient."""

_INTERPRETATIONS = (
    "MONOCHROME1", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT",
)  # fmt: skip
"""The photometric interpretations that a reason names."""

_RESCALE_TYPES = ("ED", "EDW", "HU_MOD", "MGML", "OD", "PCT", "US", "Z_EFF")
"""The rescale types that a reason names."""

_GEOMETRY = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
"""The tags that say where the voxels lie, and how many numbers each has."""

_MIN_SLICES = 10
"""The least number of slices."""

_POSITION_TOLERANCE = 0.01
"""How near in mm slices are that lie at one position."""

_SPACING_TOLERANCE = 0.05
"""How much the distance of slices may vary, as a part of it."""

_SHIFT_TOLERANCE = 0.5
"""How far in mm slices may lie beside the line from the first to the last one."""

_TILT_TOLERANCE = 0.5
"""The angle in degrees below which a gantry is not tilted."""

_ORIENTATION_TOLERANCE = 1e-3
"""How much the direction cosines of slices may differ."""

_ELEMENT_BYTES = 8
"""How many bytes of an element come before its value, at least."""

_READERS = 8
"""How many headers are read at a time: they wait for the disk."""


class _File(NamedTuple):
    """A file of a series."""

    path: str

    header: pydicom.FileDataset
    """What `_TAGS` name."""

    pixel_bytes: int
    """How much there is behind the header: the pixels and what says so."""


def find_series(folder: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Finds the DICOM files of a folder.

    Args:
        folder: The folder.
        names: The names of the files to look at.

    Returns:
        The paths of each series in the order of their names, by the UID of the series; those
        whose header is damaged or has none are under "".
    """
    paths = [os.path.join(folder, name) for name in names]
    series: dict[str, list[str]] = {}
    with futures.ThreadPoolExecutor(_READERS) as pool:
        for path, series_uid in zip(paths, pool.map(_read_series_uid, paths), strict=True):
            if series_uid is not None:
                series.setdefault(series_uid, []).append(path)
    return series


def read_series(paths: Sequence[str], *, case: str) -> eva_tv_tensors.Volume:
    """Reads a series.

    Args:
        paths: Its files.
        case: The id of the case, for the error messages.

    Returns:
        The scan in HU, float32, of shape [1, D, H, W], with a float64 affine.

    Raises:
        DatasetError: If it is not a CT scan whose slices lie evenly behind each other, says why.
    """
    try:
        files = [_read_header(path) for path in paths]
        problem = _find_problem_of_files(files) or _find_problem_of_slices(
            [file.header for file in files]
        )
        if problem is None:
            order, affine = _arrange([file.header for file in files])
            array = _read_pixels([files[i].path for i in order])
            if np.isfinite(array).all():
                return grid_lib.reorient(array, affine)
            problem = "voxels are NaN or infinite"
    except Exception as error:  # pydicom raises almost anything for a damaged file
        problem = f"unreadable ({type(error).__name__})"
    raise DatasetError(f"Case '{case}', DICOM series of {len(paths)} files: {problem}.")


def _read_series_uid(path: str) -> str | None:
    """Returns the UID of the series of a file, None if it is no DICOM file."""
    if os.path.basename(path) == "DICOMDIR":
        return None
    if not (_is_dicom(path) or path.lower().endswith(".dcm")):
        return None
    try:
        return str(_read_header(path).header.get("SeriesInstanceUID", ""))
    except Exception:  # it is reported when the series is read
        return ""


def _is_dicom(path: str) -> bool:
    """Returns whether a file begins as a DICOM file."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _read_header(path: str) -> _File:
    with open(path, "rb") as file:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
        return _File(path, header, os.path.getsize(path) - file.tell())


def _find_problem_of_files(files: Sequence[_File]) -> str | None:
    """Returns why a series is to be set aside, as far as its files say one by one."""
    found = collections.Counter(map(_find_problem_of_file, files))
    if set(found) == {None}:
        return None
    del found[None]
    problem, number = found.most_common(1)[0]
    return problem if number == len(files) else f"{number} of them: {problem}"


def _find_problem_of_file(file: _File) -> str | None:
    header = file.header
    modality = header.get("Modality")
    if modality in (None, "CT") and file.pixel_bytes <= 0:
        return "truncated (or deflated): no pixels follow the header"
    if modality != "CT":
        return f"the modality is {_name(modality, _MODALITIES)}not CT"
    return _find_problem_of_kind(header) or _find_problem_of_pixels(file)


def _find_problem_of_kind(header: pydicom.Dataset) -> str | None:
    """Returns why a file with the modality CT is no slice of a scan."""
    if f"{header.get('SOPClassUID')}.".startswith(f"{uid.SecondaryCaptureImageStorage}."):
        return "a secondary capture, not a scan"
    if int(header.get("NumberOfFrames") or 1) > 1:
        return "several frames in a file (enhanced CT): convert it to NIfTI"
    if any(kind in str(header.get("ImageType")).upper() for kind in ("LOCALIZER", "SCOUT")):
        return "a localizer, not a scan"
    if int(header.get("SamplesPerPixel") or 1) != 1:
        return "a color image, not a scan"
    return None


def _find_problem_of_pixels(file: _File) -> str | None:
    """Returns why the pixels of a slice cannot be used."""
    header = file.header
    interpretation = header.get("PhotometricInterpretation")
    if interpretation != "MONOCHROME2":  # SimpleITK inverts the pixels of MONOCHROME1
        known = _name(interpretation, _INTERPRETATIONS)
        return f"the photometric interpretation is {known}not MONOCHROME2"
    if header.get("RescaleSlope") is None or header.get("RescaleIntercept") is None:
        return "not HU: RescaleSlope or RescaleIntercept is missing"
    if float(header.RescaleSlope) <= 0:  # SimpleITK takes 1 for 0
        return "not HU: RescaleSlope is not above 0"
    if header.get("RescaleType") not in (None, "", "HU"):
        return f"not HU: RescaleType is {_name(header.RescaleType, _RESCALE_TYPES)}not HU"
    problem = _find_problem_of_place(header)
    if problem is not None:
        return problem
    need = _ELEMENT_BYTES + int(header.Rows) * int(header.Columns) * int(header.BitsAllocated) // 8
    if not header.file_meta.TransferSyntaxUID.is_compressed and file.pixel_bytes < need:
        return "truncated: it is shorter than its pixels"
    return None


def _find_problem_of_place(header: pydicom.Dataset) -> str | None:
    """Returns why the header of a slice does not say where its voxels lie."""
    for tag, number in _GEOMETRY.items():
        if not header.get(tag):
            return f"{tag} is missing"
        if np.shape(header.get(tag)) != (number,):
            return f"{tag} is invalid: it does not have {number} numbers"
        if not np.isfinite(np.array(header.get(tag), dtype=np.float64)).all():
            return f"{tag} is invalid: NaN or infinite"
    if min(map(float, header.PixelSpacing)) <= 0:
        return "PixelSpacing is invalid: it is not above 0"
    return None


def _name(value: object, known: Sequence[str]) -> str:
    """Returns what a reason says of the value of a tag, before what it should be."""
    if not value:
        return "missing, "
    return f"{value}, " if str(value) in known else ""


def _find_problem_of_slices(headers: Sequence[pydicom.Dataset]) -> str | None:
    """Returns why a series is to be set aside, as far as its slices say together."""
    if len(headers) < _MIN_SLICES:
        return f"too few slices: {len(headers)}, at least {_MIN_SLICES} are needed"
    for tag, what in (("Rows", "size"), ("Columns", "size"), ("PixelSpacing", "pixel spacing")):
        if len({str(header.get(tag)) for header in headers}) > 1:
            return f"mixed: the slices differ in {what}"
    cosines = np.array([header.ImageOrientationPatient for header in headers], dtype=np.float64)
    if np.abs(cosines - cosines[0]).max() > _ORIENTATION_TOLERANCE:
        return "mixed: the slices differ in orientation"
    if abs(np.linalg.norm(_normal(headers[0])) - 1) > _ORIENTATION_TOLERANCE:
        return "ImageOrientationPatient is invalid: no unit vectors at a right angle"
    return _find_problem_of_positions(headers)


def _find_problem_of_positions(headers: Sequence[pydicom.Dataset]) -> str | None:
    """Returns what is wrong with where the slices lie."""
    normal, positions = _normal(headers[0]), _positions(headers)
    heights = positions @ normal
    order = np.argsort(heights)
    gaps = np.diff(heights[order])
    duplicates = int((gaps < _POSITION_TOLERANCE).sum())
    if duplicates:
        return f"{duplicates} slices lie at the position of another one"
    typical = float(np.median(gaps))
    wrong = np.abs(gaps - typical) > _SPACING_TOLERANCE * typical
    if wrong.any():
        return _describe_gaps(gaps, wrong, typical)
    first = positions[order[0]]
    way = positions[order[-1]] - first
    along = (heights - heights.min()) / np.ptp(heights)
    shift = float(np.linalg.norm(positions - first - along[:, None] * way, axis=1).max())
    if shift > _SHIFT_TOLERANCE:
        return f"the slices do not lie behind each other, but up to {shift:.1f} mm to the side"
    tilt = float(np.degrees(np.arccos(np.clip(way @ normal / np.linalg.norm(way), -1, 1))))
    if tilt > _TILT_TOLERANCE:
        return f"the gantry is tilted by {tilt:.1f} degrees"
    return None


def _describe_gaps(
    gaps: npt.NDArray[np.float64], wrong: npt.NDArray[np.bool_], typical: float
) -> str:
    multiples = gaps[wrong] / typical
    whole = np.rint(multiples)
    if (np.abs(multiples - whole) <= _SPACING_TOLERANCE * whole).all() and (whole >= 2).all():
        return f"{int((whole - 1).sum())} slices are missing"
    return f"the slices lie unevenly, {gaps.min():.2f} to {gaps.max():.2f} mm from each other"


def _arrange(
    headers: Sequence[pydicom.Dataset],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Returns the order of the slices, and the affine from (column, row, slice) to RAS+ in mm."""
    positions = _positions(headers)
    order = np.argsort(positions @ _normal(headers[0]))
    along_row, along_column = _cosines(headers[0])
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


def _positions(headers: Sequence[pydicom.Dataset]) -> npt.NDArray[np.float64]:
    """Returns the LPS+ positions of the slices in mm, of shape [slices, 3]."""
    return np.array([header.ImagePositionPatient for header in headers], dtype=np.float64)


def _cosines(header: pydicom.Dataset) -> npt.NDArray[np.float64]:
    """Returns the LPS+ directions along a row and along a column, of shape [2, 3]."""
    return np.array(header.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)


def _normal(header: pydicom.Dataset) -> npt.NDArray[np.float64]:
    return np.cross(*_cosines(header))
