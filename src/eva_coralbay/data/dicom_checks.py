"""What is wrong with the files of a DICOM series: alone, and together."""

import collections
import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pydicom
from loguru import logger
from pydicom import uid

from eva_coralbay import _messages
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data.dicom_header import File

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

_RESCALE = ("RescaleSlope", "RescaleIntercept")
"""The tags that say what HU a stored value is."""

_MAX_EQUAL_FITS = 0.25
"""The largest part of the slices that may share one slope and intercept by chance.

That is where a scanner fits both to each slice. If a larger part shares them, they are not fitted,
and slices with other ones are of another series.
"""

_GEOMETRY = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
"""The tags that say where the voxels lie, and how many numbers each has."""

_MIN_SLICES = 10
"""The least number of slices."""

_POSITION_TOLERANCE = 0.01
"""How near in mm slices are that lie at one position."""

_LINE_TOLERANCE = (0.1, 0.05)
"""How far a slice may lie from where even slices lie, in mm and as a part of their distance.

The larger one counts: positions that are rounded to 0.1 mm are even, whatever the distance is.
"""

_GAP = 1.5
"""From which multiple of the usual distance on a slice may be missing in between."""

_WHOLE = 0.2
"""How far that multiple is from a whole number at most if one is."""

_MAX_VOXELS = 2**31
"""The largest number of voxels of a series: compressed ones may take little of the disk."""

_SHIFT_TOLERANCE = 0.5
"""How far in mm slices may lie beside the line from the first to the last one."""

_TILT_TOLERANCE = 0.5
"""The angle in degrees below which a gantry is not tilted."""

_ORIENTATION_TOLERANCE = 1e-3
"""How much the direction cosines of slices may differ."""

_SPACING_TOLERANCE = 1e-3
"""How much the pixel spacing of slices may differ, as a part of it."""

_ELEMENT_BYTES = 8
"""How many bytes of an element come before its value, at least."""


class UnusableSeriesError(Exception):
    """The files are not a usable CT scan. The message quotes nothing from the headers."""


def check(files: Sequence[File], *, case: str) -> list[File]:
    """Checks that files are the slices of a CT scan, which lie evenly behind each other.

    Args:
        files: The files of a series.
        case: The id of the case, for the log.

    Returns:
        The slices, without copies and without the few other files among many slices.

    Raises:
        UnusableSeriesError: If they are no such scan.
    """
    slices = _leave_out_strays(files, case)
    _raise(_find_problem_of_files(slices))
    slices = _leave_out_copies(slices, case)
    _raise(_find_problem_of_slices([file.header for file in slices]))
    return slices


def _raise(problem: str | None) -> None:
    if problem is not None:
        raise UnusableSeriesError(problem)


def _leave_out_strays(files: Sequence[File], case: str) -> list[File]:
    """Leaves out what is not a slice, where nearly all files are, and names it in the log."""
    kinds = [_find_problem_of_kind(file.header) for file in files]
    slices = [file for file, kind in zip(files, kinds, strict=True) if kind is None]
    strays = [file for file, kind in zip(files, kinds, strict=True) if kind is not None]
    if not strays or len(slices) < max(_MIN_SLICES, 2 * len(strays)):
        return list(files)
    reasons = _messages.list_names(sorted({str(kind) for kind in kinds if kind is not None}))
    _log_left_out(strays, files, case, reasons)
    return slices


def _leave_out_copies(files: Sequence[File], case: str) -> list[File]:
    """Leaves out files that show the same pixels at the same place as another one."""
    places = [str([file.header.get(tag) for tag in (*_GEOMETRY, *_RESCALE)]) for file in files]
    shared = collections.Counter(places)
    known: set[tuple[str, str]] = set()
    slices, copies = [], []
    for file, place in zip(files, places, strict=True):
        content = (place, file.hash_pixels() if shared[place] > 1 else "")
        is_copy = shared[place] > 1 and content in known
        (copies if is_copy else slices).append(file)
        known.add(content)
    if copies:
        _log_left_out(copies, files, case, "a copy of another slice")
    return slices


def _log_left_out(left_out: Sequence[File], files: Sequence[File], case: str, why: str) -> None:
    names = _messages.list_names(pathlib.Path(file.path).name for file in left_out)
    logger.warning(
        f"Case '{case}': {len(left_out)} of {len(files)} files are left out ({why}): {names}."
    )


def _find_problem_of_files(files: Sequence[File]) -> str | None:
    """Returns why a series is to be set aside, as far as its files say one by one."""
    found = collections.Counter(map(_find_problem_of_file, files))
    if set(found) == {None}:
        return _find_problem_of_rescale([file.header for file in files])
    del found[None]
    problem, number = found.most_common(1)[0]
    return problem if number == len(files) else f"{number} of them: {problem}"


def _find_problem_of_rescale(headers: Sequence[pydicom.Dataset]) -> str | None:
    """Returns whether many slices are rescaled in one way, and others in another.

    Scanners state one intercept and slope for all slices, or fit them to each slice.
    """
    found = collections.Counter(tuple(float(h[tag].value) for tag in _RESCALE) for h in headers)
    _, most = found.most_common(1)[0]
    others = len(headers) - most
    if others and most > max(1, _MAX_EQUAL_FITS * len(headers)):
        return (
            f"mixed: {others} slices have another RescaleSlope or RescaleIntercept than the others"
        )
    return None


def _find_problem_of_file(file: File) -> str | None:
    """Returns why a file is not a slice that can be used."""
    modality = file.header.get("Modality")
    if modality in (None, "CT") and file.pixel_bytes <= 0:
        return "truncated: no pixels follow the header"
    return _find_problem_of_kind(file.header) or _find_problem_of_pixels(file)


def _find_problem_of_kind(header: pydicom.Dataset) -> str | None:
    """Returns why a file is not a slice of a CT scan."""
    modality = header.get("Modality")
    if modality != "CT":
        return f"the modality is {_name(modality, _MODALITIES)}not CT"
    if f"{header.get('SOPClassUID')}.".startswith(f"{uid.SecondaryCaptureImageStorage}."):
        return "a secondary capture, not a scan"
    if int(header.get("NumberOfFrames") or 1) > 1:
        return "several frames in a file (enhanced CT): convert it to NIfTI"
    if any(kind in str(header.get("ImageType")).upper() for kind in ("LOCALIZER", "SCOUT")):
        return "a localizer, not a scan"
    if int(header.get("SamplesPerPixel") or 1) != 1:
        return "a color image, not a scan"
    return None


def _find_problem_of_pixels(file: File) -> str | None:
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
    problem = _find_problem_of_bits(header) or _find_problem_of_place(header)
    if problem is not None:
        return problem
    need = _ELEMENT_BYTES + int(header.Rows) * int(header.Columns) * int(header.BitsAllocated) // 8
    # without meta information it is not compressed
    syntax = header.file_meta.get("TransferSyntaxUID", uid.ImplicitVRLittleEndian)
    if not syntax.is_compressed and file.pixel_bytes < need:
        return "truncated: it is shorter than its pixels"
    return None


def _find_problem_of_bits(header: pydicom.Dataset) -> str | None:
    """Returns why the bits of a pixel cannot be what the header says.

    Whoever reads them masks those beyond the highest one, each reader in its own way.
    """
    allocated, stored, highest = (
        header.get(tag) for tag in ("BitsAllocated", "BitsStored", "HighBit")
    )
    if allocated not in (8, 16, 32):
        return "BitsAllocated is not 8, 16 or 32"
    if stored is None or not 0 < stored <= allocated:
        return "BitsStored is missing or is not from 1 to BitsAllocated"
    if highest is not None and highest != stored - 1:
        return "HighBit is not BitsStored - 1: other readers would see other values"
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
    if max(abs(float(value)) for value in header.ImagePositionPatient) > grid_lib.MAX_POSITION_MM:
        return "ImagePositionPatient is invalid: farther away than any scanner states"
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
    if len(headers) * int(headers[0].Rows) * int(headers[0].Columns) > _MAX_VOXELS:
        return f"too large: more than {_MAX_VOXELS:,} voxels"
    if len({(int(header.Rows), int(header.Columns)) for header in headers}) > 1:
        return "mixed: the slices differ in size"
    spacings = np.array([header.PixelSpacing for header in headers], dtype=np.float64)
    if np.abs(spacings / spacings[0] - 1).max() > _SPACING_TOLERANCE:
        return "mixed: the slices differ in pixel spacing"
    cosines = np.array([header.ImageOrientationPatient for header in headers], dtype=np.float64)
    if np.abs(cosines - cosines[0]).max() > _ORIENTATION_TOLERANCE:
        return "mixed: the slices differ in orientation"
    directions = cosines_of(headers[0])
    if np.abs(directions @ directions.T - np.eye(2)).max() > _ORIENTATION_TOLERANCE:
        return "ImageOrientationPatient is invalid: no unit vectors at a right angle"
    return _find_problem_of_positions(headers)


def _find_problem_of_positions(headers: Sequence[pydicom.Dataset]) -> str | None:
    """Returns what is wrong with where the slices lie."""
    normal, positions = normal_of(headers[0]), positions_of(headers)
    heights = positions @ normal
    order = np.argsort(heights)
    gaps = np.diff(heights[order])
    duplicates = int((gaps < _POSITION_TOLERANCE).sum())
    if duplicates:
        return f"{duplicates} slices lie at the position of another one"
    typical = float(np.median(gaps))
    wide = gaps[(gaps > _GAP * typical) & (gaps > typical + 2 * _LINE_TOLERANCE[0])] / typical
    if len(wide) and np.abs(wide - np.rint(wide)).max() < _WHOLE:
        return f"{int((np.rint(wide) - 1).sum())} slices are missing"
    even = np.linspace(heights.min(), heights.max(), len(heights))
    # the ends may be the ones that are off
    residuals = heights[order] - even
    residual = float(np.abs(residuals - (residuals.max() + residuals.min()) / 2).max())
    if residual > max(_LINE_TOLERANCE[0], _LINE_TOLERANCE[1] * typical):
        return (
            f"the slices lie unevenly, {gaps.min():.2f} to {gaps.max():.2f} mm from each other, up "
            f"to {residual:.2f} mm from where even ones would"
        )
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


def positions_of(headers: Sequence[pydicom.Dataset]) -> npt.NDArray[np.float64]:
    """Returns the LPS+ positions of the slices in mm, of shape [slices, 3]."""
    return np.array([header.ImagePositionPatient for header in headers], dtype=np.float64)


def cosines_of(header: pydicom.Dataset) -> npt.NDArray[np.float64]:
    """Returns the LPS+ directions along a row and along a column, of shape [2, 3]."""
    return np.array(header.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)


def normal_of(header: pydicom.Dataset) -> npt.NDArray[np.float64]:
    """Returns the LPS+ direction across a slice."""
    return np.cross(*cosines_of(header))
