"""The headers of NIfTI files: where the voxels lie, and what in a header cannot be.

A header states the spacing up to three times (sform, qform, pixdim) and in a unit, and programs
choose differently among them. A file on whose millimeters or directions ITK and nibabel disagree is
refused with both values.
"""

import logging
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from nibabel import nifti1, nifti2, orientations

from eva_coralbay.data import foreign_files
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data.foreign_files import UnusableError

SIZE = nifti2.header_dtype.itemsize
"""The number of bytes of the longest header."""

_KINDS = {
    nifti1.header_dtype.itemsize: nifti1.Nifti1Header,
    nifti2.header_dtype.itemsize: nifti2.Nifti2Header,
}
"""The versions of the format by the number that a header begins with, which is its size."""

_MAX_VOXELS = 2**31
"""The largest number of voxels: 1024 x 1024 x 2048 of them."""

_MILLIMETERS = {1: 1000.0, 3: 0.001}
"""What a unit of length is in mm where it is another, by its code; no unit means mm."""

_UNITS = {1: "meters", 3: "micrometers"}
"""The names of these units."""

_SPACINGS_MM = (0.02, 300.0)
"""The least and the largest distance of two voxels."""

_MAX_EXTENT_MM = 10_000.0
"""The largest length of a scan: no patient and no table is longer."""

_SPACING_TOLERANCE = 0.01
"""How much two statements of the spacing in a header may differ, as a part of it."""

_DIRECTION_TOLERANCE = 0.5
"""How far, in voxels, sform and qform may move the corners of a scan apart."""

_MIN_INDEPENDENCE = 0.1
"""The least volume of a voxel whose edges have length 1: below, the axes lie in one plane."""

_MAX_SHEAR = 0.5
"""By how many degrees the angle of two axes may differ from a right one, as for DICOM."""

_QUIET = logging.getLogger(f"{__name__}.mended")
"""Where nibabel says which values of a header it has mended."""

_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


class Header(NamedTuple):
    """What the header of a file says of its voxels."""

    shape: tuple[int, int, int]
    """The number of voxels along the stored axes."""

    affine: npt.NDArray[np.float64]
    """The matrix of shape [4, 4] from stored indices to RAS+ world positions in mm."""

    dtype: np.dtype[Any]
    """The stored type, which is a number."""

    offset: int
    """Where the voxels begin, in bytes."""

    slope: float
    """What a stored number is multiplied by."""

    intercept: float
    """What is added to it then."""

    @property
    def end(self) -> int:
        """Where the voxels end, in bytes."""
        return self.offset + self.dtype.itemsize * math.prod(self.shape)

    @property
    def is_scaled(self) -> bool:
        """Whether the stored numbers are not yet the values."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    @property
    def reorientation(self) -> npt.NDArray[Any]:
        """The transform of nibabel from the stored axes to those of `ORIENTATION`."""
        return orientations.ornt_transform(
            orientations.io_orientation(self.affine),
            orientations.axcodes2ornt(grid_lib.ORIENTATION),
        )

    @property
    def grid(self) -> grid_lib.Grid:
        """The grid after reorientation."""
        transform = self.reorientation
        depth, height, width = (self.shape[axis] for axis in np.argsort(transform[:, 0]))
        affine = self.affine @ orientations.inv_ornt_aff(transform, self.shape)
        return grid_lib.Grid((depth, height, width), affine)


def parse(content: bytes, *, needs_code: bool) -> Header:
    """Reads a header and checks that it describes a volume.

    Args:
        content: The first `SIZE` bytes of a file.
        needs_code: Whether a header whose sform and qform codes are both 0 is refused.

    Raises:
        UnusableError: If it is not a header, gives no position of the voxels or contradicting ones,
            or describes no volume.
    """
    header = decode(content)
    shape = _shape_of(header)
    _check_type(header)
    affine = _affine_of(header, needs_code=needs_code)
    _check_extent(shape, affine)
    slope, intercept = _scaling_of(header)
    return Header(
        shape,
        affine,
        header.get_data_dtype(),
        _offset_of(header),
        slope,
        intercept,
    )


def decode(content: bytes) -> Any:
    """Returns the header that a file begins with, as nibabel reads and mends it.

    Args:
        content: The first `SIZE` bytes of a file.

    Raises:
        UnusableError: If it is not a header.
    """
    sizes = [int.from_bytes(content[:4], order) for order in ("little", "big")]
    kind = next((_KINDS[size] for size in sizes if size in _KINDS), None)
    if kind is None or len(content) < kind.template_dtype.itemsize:
        raise UnusableError(
            "the file is unreadable: it does not begin with a NIfTI header", foreign_files.DAMAGED
        )
    header = kind(content[: kind.template_dtype.itemsize], check=False)
    _check_pixdim(header)
    try:
        header.check_fix(logger=_QUIET, error_level=40)
    except Exception as error:  # nibabel raises almost anything for impossible values
        message = f"the header is invalid ({error})"
        raise UnusableError(message, "Export the file again.") from error
    return header


def _check_pixdim(header: Any) -> None:
    """Checks the spacing that is stated beside sform and qform, before nibabel mends it."""
    distances = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not (np.isfinite(distances).all() and (distances > 0).all()):
        raise UnusableError(
            f"the spacing (pixdim) {_join(distances)} is impossible",
            "Write the spacing of the scan to the file.",
        )


def _shape_of(header: Any) -> tuple[int, int, int]:
    """Returns the number of voxels along the three axes of a file, each at least two."""
    shape = tuple(int(length) for length in header.get_data_shape())
    if len(shape) < 3 or min(shape[:3]) < 2 or max(shape[3:], default=1) > 1:
        raise UnusableError(
            f"the shape {shape} is not that of one volume",
            "Store one 3D volume a file, with two or more voxels along each axis.",
        )
    first, second, third = shape[:3]
    if first * second * third > _MAX_VOXELS:
        raise UnusableError(
            f"the shape {shape} has more than {_MAX_VOXELS:,} voxels", "Crop or resample the scan."
        )
    return first, second, third


def _check_type(header: Any) -> None:
    """Checks that a voxel is a number."""
    dtype = np.dtype(header.get_data_dtype())
    if dtype.kind not in "iuf":
        raise UnusableError(f"the voxels are of type {dtype}", "Store one number a voxel.")


def _offset_of(header: Any) -> int:
    """Returns where the voxels begin, which is behind the header."""
    offset = float(header["vox_offset"])
    if not header.single_vox_offset <= offset < 2**53:
        raise UnusableError(
            f"the voxels begin at byte {offset:g} (vox_offset), which is not behind the header",
            foreign_files.DAMAGED,
        )
    return int(offset)


def _scaling_of(header: Any) -> tuple[float, float]:
    """Returns slope and intercept of the values; a slope of 0 or NaN means that there are none."""
    slope, intercept = (float(header[f"scl_{name}"]) for name in ("slope", "inter"))
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise UnusableError(
            f"the scale of the values (scl_slope, scl_inter) is {slope:g} and {intercept:g}",
            "Export the file again.",
        )
    return slope, intercept


def _affine_of(header: Any, *, needs_code: bool) -> npt.NDArray[np.float64]:
    """Returns where the voxels lie, after checking that all parts of the header agree on it."""
    has_sform, has_qform = (int(header[f"{name}form_code"]) > 0 for name in "sq")
    if needs_code and not (has_sform or has_qform):
        raise UnusableError(
            "orientation and spacing are missing (sform_code and qform_code are 0)",
            "Write the affine of the scan to the file with a code above 0.",
        )
    if has_qform:
        _check_qform(header)
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    _check_regular(affine)
    _check_spacing(header, affine)
    _check_angles(affine)
    if has_sform and has_qform:
        _check_directions(header)
    return affine


def _check_qform(header: Any) -> None:
    """Checks that the qform is a rotation, before nibabel computes it."""
    quaternion = np.array([header[f"quatern_{name}"] for name in "bcd"], dtype=np.float64)
    # rounding may make it a little longer than 1; NaN is not shorter than anything
    if not (quaternion**2).sum() <= 1 + 1e-5:
        raise UnusableError(
            f"the qform is not a rotation: its quaternion (b, c, d) is {_join(quaternion, ', ')}",
            "Write the qform again, or set qform_code to 0 if the sform is right.",
        )


def _check_regular(affine: npt.NDArray[np.float64]) -> None:
    """Checks that an affine has three directions."""
    distances = np.linalg.norm(affine[:3, :3], axis=0)
    is_regular = np.isfinite(affine).all() and (distances > 0).all()
    if not is_regular or abs(np.linalg.det(affine[:3, :3] / distances)) < _MIN_INDEPENDENCE:
        rows = "; ".join(_join(row, ", ") for row in affine[:3])
        raise UnusableError(
            f"the affine is singular or not finite, so the spacing is missing: [{rows}]",
            "Write the affine of the scan to the file.",
        )


def _check_spacing(header: Any, affine: npt.NDArray[np.float64]) -> None:
    """Checks that all programs read the same distance of voxels in mm, and that it can be."""
    unit = int(header["xyzt_units"]) & 7  # the other bits are the unit of time
    distances = np.linalg.norm(affine[:3, :3], axis=0)
    stated = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if unit not in (0, 2, *_UNITS):
        raise UnusableError(
            f"the unit of length (xyzt_units) has the unknown code {unit}",
            "Write the file again in mm.",
        )
    if unit in _UNITS:
        raise UnusableError(
            f"the unit of length (xyzt_units) is {_UNITS[unit]}: some programs read the spacing "
            f"as {_join(distances)} mm, others as {_join(distances * _MILLIMETERS[unit])} mm",
            "Write the file again in mm.",
        )
    if (np.abs(stated - distances) > _SPACING_TOLERANCE * distances).any():
        raise UnusableError(
            f"the spacing is {_join(distances)} mm by the affine and {_join(stated)} mm by "
            "pixdim, which other programs (ITK) read",
            "Write the file again with the right one in both places.",
        )
    low, high = _SPACINGS_MM
    if distances.min() < low or distances.max() > high:
        raise UnusableError(
            f"a spacing of {_join(distances)} mm is impossible",
            f"Write the spacing of the scan in mm to the file: {low} to {high} are possible.",
        )


def _check_angles(affine: npt.NDArray[np.float64]) -> None:
    """Checks that the axes are at right angles: voxels are resampled and measured as boxes."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(directions.T @ directions - np.eye(3)).max()
    shear = math.degrees(math.asin(min(float(cosines), 1.0)))
    if shear > _MAX_SHEAR:
        raise UnusableError(
            f"the axes are not at right angles, but off by {shear:.1f} degrees, as in a scan with "
            "a tilted gantry",
            "Resample the scan to a straight grid, and its mask with it.",
        )


def _check_directions(header: Any) -> None:
    """Checks that sform and qform describe the same directions; the origins may differ."""
    sform, qform = (np.asarray(form) for form in (header.get_sform(), header.get_qform()))
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(header.get_data_shape()[:3]) - 1)
    apart = np.linalg.solve(sform[:3, :3], (qform - sform)[:3, :3] @ corners.T)
    if not np.abs(apart).max() <= _DIRECTION_TOLERANCE:
        raise UnusableError(
            f"sform and qform contradict each other: the axes point to {_describe(sform)} by the "
            f"one and to {_describe(qform)} by the other, {np.abs(apart).max():.1f} voxels apart",
            "Find out which of them is right, and write the file again with both equal.",
        )


def _check_extent(shape: tuple[int, int, int], affine: npt.NDArray[np.float64]) -> None:
    lengths = np.array(shape) * np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.max() > _MAX_EXTENT_MM:
        raise UnusableError(
            f"it is {_join(lengths)} mm long, longer than any patient",
            "Write the spacing of the scan in mm to the file.",
        )
    if np.abs(affine[:3, 3]).max() > grid_lib.MAX_POSITION_MM:
        raise UnusableError(
            f"it lies {_join(np.abs(affine[:3, 3]))} mm from the origin, farther than any scanner "
            "states",
            "Write the affine of the scan to the file.",
        )


def _describe(affine: npt.NDArray[np.float64]) -> str:
    """Returns the directions of the axes and the spacing as text."""
    directions = "".join(str(code) for code in orientations.aff2axcodes(affine))
    return f"{directions} with {_join(np.linalg.norm(affine[:3, :3], axis=0))} mm"


def _join(values: npt.NDArray[np.floating], separator: str = " x ") -> str:
    return separator.join(f"{value:.4g}" for value in values)
