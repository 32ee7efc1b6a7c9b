"""Orientation, spacing and resampling: the only module that knows the axis order of a file.

NIfTI files store a volume in any order of axes. Everything behind this module has the axes
(D, H, W) of `ORIENTATION` and an affine whose columns are in that order, so that
`affine @ (d, h, w, 1)` is the RAS+ world position of a voxel in mm.
"""

import math
import zlib
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from isal import igzip, igzip_lib
from monai import transforms as monai_transforms
from monai.data import meta_tensor
from monai.data import utils as monai_data_utils
from monai.networks import utils as monai_networks_utils
from nibabel import filebasedimages, nifti1, orientations, spatialimages, volumeutils
from torchvision import tv_tensors

from eva_coralbay.errors import DatasetError

ORIENTATION = "SPL"
"""The direction in which each axis of (D, H, W) grows: superior, posterior, left.

It is the orientation of eva's loader, which reorients to "PLS" and puts the last axis first.
"""

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

_GRID_TOLERANCE = 0.1
"""How far, in voxels, the corners of a mask's grid may lie from those of its image."""

_INTEGER_TOLERANCE = 1e-3
"""How far a stored label value may lie from an integer."""

_SPACING_TOLERANCE = 1e-3
"""Below this difference a spacing (in mm) or a scale counts as unchanged, as in MONAI."""

_SHEAR_TOLERANCE = 1e-3
"""How far, in voxels, shear may move a voxel and still be ignored in resampling."""


Box = tuple[slice, slice, slice]
"""The extent of a region along the axes (D, H, W), with start and stop inside the volume."""


class Grid(NamedTuple):
    """Where the voxels of a volume lie."""

    shape: tuple[int, int, int]
    """The number of voxels along (D, H, W)."""

    affine: npt.NDArray[np.float64]
    """The matrix of shape [4, 4] from (d, h, w, 1) to RAS+ world positions in mm."""

    @classmethod
    def of(cls, volume: eva_tv_tensors.Volume) -> "Grid":
        """Returns the grid of a volume of shape [1, D, H, W]."""
        depth, height, width = volume.shape[1:]
        return cls((depth, height, width), _affine_of(volume))

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """How long it is along (D, H, W)."""
        depth, height, width = spacing(self.affine)
        return self.shape[0] * depth, self.shape[1] * height, self.shape[2] * width

    def cut(self, box: Box) -> "Grid":
        """Returns the grid of a region."""
        affine = self.affine.copy()
        affine[:3, 3] = (self.affine @ [*(extent.start for extent in box), 1.0])[:3]
        depth, height, width = (extent.stop - extent.start for extent in box)
        return Grid((depth, height, width), affine)


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


def from_array(array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> eva_tv_tensors.Volume:
    """Reorients a scan that was read from something else than NIfTI.

    Args:
        array: The HU, with the axes in any order.
        affine: The matrix of shape [4, 4] from indices of the array to RAS+ world positions in mm.

    Returns:
        The scan in HU, float32, of shape [1, D, H, W], with a float64 affine.
    """
    transform = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(ORIENTATION)
    )
    reoriented = orientations.apply_orientation(array, transform)
    return eva_tv_tensors.Volume(
        torch.from_numpy(np.array(reoriented, dtype=np.float32, order="C"))[None],
        affine=torch.from_numpy(affine @ orientations.inv_ornt_aff(transform, array.shape)),
    )


def read_mask(
    path: str, *, case: str, like: Grid, labels: Collection[int], needs_code: bool = True
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


def read_grid(path: str, *, case: str, needs_code: bool = True) -> Grid:
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


def check_same_grid(grid: Grid, like: Grid, path: str, *, case: str) -> None:
    """Checks that a mask lies on the grid of its image.

    Args:
        grid: The grid of the mask.
        like: The grid of the image.
        path: The file of the mask, for the error message.
        case: The id of the case, for the error message.

    Raises:
        DatasetError: If the shapes differ or a corner lies more than a tenth of a voxel off.
    """
    if grid.shape != like.shape or _largest_distance(grid, like) > _GRID_TOLERANCE:
        raise _error(
            f"the mask lies on another grid than the image: {_describe(grid)} instead of "
            f"{_describe(like)}",
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


def straight_affine(
    spacing_mm: Sequence[float], origin_mm: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Returns the affine of a volume whose axes are those of the patient.

    Args:
        spacing_mm: The spacing along (D, H, W) in mm.
        origin_mm: The RAS+ world position of the first voxel in mm.

    Returns:
        The affine of shape [4, 4], with the columns in the order (D, H, W).
    """
    directions = orientations.inv_ornt_aff(orientations.axcodes2ornt(ORIENTATION), (1, 1, 1)).T
    affine = directions @ np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = origin_mm
    return affine


def spacing(affine: npt.NDArray[np.floating] | torch.Tensor) -> tuple[float, float, float]:
    """Returns the distance of neighboring voxels along (D, H, W) in mm.

    Args:
        affine: The affine of shape [4, 4], with the columns in the order (D, H, W).
    """
    depth, height, width = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return float(depth), float(height), float(width)


def resample(
    volume: eva_tv_tensors.Volume, spacing_mm: Sequence[float], *, near: Box | None = None
) -> eva_tv_tensors.Volume:
    """Resamples a scan linearly to another spacing.

    Equal to MONAI's `Spacing` in its bilinear mode, and so to eva's, within 1e-3 HU. The affine
    of the result is the true one, while eva's becomes a relative scale.

    Args:
        volume: The scan of shape [1, D, H, W], with its affine.
        spacing_mm: The new spacing along (D, H, W) in mm.
        near: A region of the scan, if only the voxels are needed that it has a part in; there may
            be others around them.

    Returns:
        The scan of shape [1, D', H', W'], float32, with its affine.
    """
    plan = _plan(Grid.of(volume), spacing_mm, near)
    tensor = volume.as_subclass(torch.Tensor).float()
    if plan.is_sheared:
        tensor = _resample_jointly(tensor, volume, spacing_mm, plan.window, mode="bilinear")
    else:
        for axis in _cheapest_order(plan):
            tensor = _interpolate(tensor, plan.positions[axis], dim=axis + 1)
    return eva_tv_tensors.Volume(
        tensor, affine=torch.from_numpy(plan.target.affine), metadata=volume.metadata
    )


def resample_mask(
    mask: tv_tensors.Mask,
    like: eva_tv_tensors.Volume,
    spacing_mm: Sequence[float],
    *,
    near: Box | None = None,
) -> tv_tensors.Mask:
    """Resamples a label map to another spacing by taking the nearest voxels.

    Equal to the voxel to MONAI's `Spacing` in its nearest mode, and so to eva's.

    Args:
        mask: The label map of shape [1, D, H, W].
        like: The scan on the same grid, before it is resampled.
        spacing_mm: The new spacing along (D, H, W) in mm.
        near: As in `resample`.

    Returns:
        The label map of shape [1, D', H', W'], of the same type as before.
    """
    plan = _plan(Grid.of(like), spacing_mm, near)
    tensor = mask.as_subclass(torch.Tensor)
    if plan.is_sheared or plan.has_ties:
        nearest = _resample_jointly(tensor, like, spacing_mm, plan.window, mode="nearest")
        return tv_tensors.Mask(nearest.to(tensor.dtype))
    for axis in _cheapest_order(plan):
        tensor = _take(tensor, plan.positions[axis].round().long(), dim=axis + 1)
    return tv_tensors.Mask(tensor)


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
        orientations.io_orientation(image.affine), orientations.axcodes2ornt(ORIENTATION)
    )


def _grid(image: nifti1.Nifti1Image) -> Grid:
    """Returns the grid of an image after reorientation."""
    transform = _reorientation(image)
    affine = image.affine @ orientations.inv_ornt_aff(transform, image.shape[:3])
    depth, height, width = (image.shape[axis] for axis in np.argsort(transform[:, 0]))
    return Grid((depth, height, width), affine)


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


def _largest_distance(grid: Grid, like: Grid) -> float:
    """Returns how far the corners of two grids of one shape lie apart, in voxels of `like`."""
    corners = np.array([[*index, 1] for index in np.ndindex(2, 2, 2)], dtype=np.float64).T
    corners[:3] *= np.array(like.shape)[:, None] - 1
    return float(np.abs(np.linalg.solve(like.affine, grid.affine @ corners) - corners).max())


class _Plan(NamedTuple):
    """How a volume is resampled, axis by axis."""

    source: Grid
    target: Grid
    window: Box
    """The part of all voxels of the new spacing that the target is."""
    positions: Sequence[torch.Tensor]
    """For each axis where each new voxel lies, in voxels of the source, inside its bounds."""
    skew: float
    """How far the other axes move a position along an axis at most, in voxels."""

    @property
    def is_sheared(self) -> bool:
        """Whether the axes are so oblique to each other that they cannot be treated apart."""
        return self.skew > _SHEAR_TOLERANCE

    @property
    def has_ties(self) -> bool:
        """Whether the skew decides which voxel is the nearest to some position."""
        distances = (((axis % 1) - 0.5).abs().min() for axis in self.positions)
        return self.skew > 0 and bool(min(distances) < 2 * self.skew + 1e-9)

    def near(self, box: Box) -> "_Plan":
        """Returns the plan of the voxels that a region of the source has a part in."""
        depth, height, width = map(_extent_near, self.positions, box)
        window = depth, height, width
        positions = [axis[extent] for axis, extent in zip(self.positions, window, strict=True)]
        return self._replace(target=self.target.cut(window), window=window, positions=positions)


def _extent_near(positions: torch.Tensor, extent: slice) -> slice:
    """Returns which positions lie less than a voxel from an extent, at least one."""
    first = int(np.searchsorted(positions.numpy(), extent.start - 1, side="right"))
    last = int(np.searchsorted(positions.numpy(), extent.stop, side="left"))
    first = min(first, len(positions) - 1)
    return slice(first, max(last, first + 1))


def _plan(source: Grid, spacing_mm: Sequence[float], near: Box | None) -> _Plan:
    """Plans the target, or the part of it near a region of the source."""
    plan = _plan_whole(source, spacing_mm)
    return plan if near is None or plan.is_sheared else plan.near(near)


def _plan_whole(source: Grid, spacing_mm: Sequence[float]) -> _Plan:
    """Computes the target grid and the positions of its voxels as MONAI's `Spacing` does."""
    if len(spacing_mm) != 3 or min(spacing_mm) <= 0:
        raise ValueError(f"`spacing_mm` must be three positive numbers, got {spacing_mm}.")
    target = _target_grid(source, spacing_mm)
    to_source = np.linalg.solve(source.affine, target.affine)
    if target.shape == source.shape and np.allclose(to_source, np.eye(4), atol=_SPACING_TOLERANCE):
        identity = [torch.arange(length, dtype=torch.float64) for length in source.shape]
        return _Plan(source, source, _whole(source), identity, skew=0.0)
    off_diagonal = np.abs(to_source[:3] * (1 - np.eye(4)[:3])) @ (*target.shape, 1)
    return _Plan(
        source,
        target,
        _whole(target),
        _positions(source, target, to_source),
        skew=float(off_diagonal.max()),
    )


def _whole(grid: Grid) -> Box:
    depth, height, width = (slice(0, length) for length in grid.shape)
    return depth, height, width


def _target_grid(source: Grid, spacing_mm: Sequence[float]) -> Grid:
    """Returns the grid of another spacing with the same first voxel."""
    pixdim = np.array(
        [
            old if abs(old - new) <= _SPACING_TOLERANCE else new
            for old, new in zip(spacing(source.affine), spacing_mm, strict=True)
        ]
    )
    affine = monai_data_utils.zoom_affine(source.affine, pixdim, diagonal=False)
    shape, origin = monai_data_utils.compute_shape_offset(source.shape, source.affine, affine)
    affine[:3, 3] = origin[:3]
    depth, height, width = (int(length) for length in shape)
    return Grid((depth, height, width), affine)


def _positions(
    source: Grid, target: Grid, to_source: npt.NDArray[np.floating]
) -> list[torch.Tensor]:
    """Returns for each axis the positions of the target's voxels in voxels of the source.

    The way through normalized coordinates is that of `torch.nn.functional.affine_grid` and
    `grid_sample`, whose rounding decides between two voxels that are equally near.
    """
    theta = monai_networks_utils.to_norm_affine(
        torch.from_numpy(to_source)[None], source.shape, target.shape
    )[0]
    positions = []
    for axis, (old, new) in enumerate(zip(source.shape, target.shape, strict=True)):
        steps = torch.linspace(-1, 1, new, dtype=torch.float64) if new > 1 else torch.zeros(1)
        normalized = steps * (new - 1) / new * theta[axis, axis] + theta[axis, 3]
        positions.append((((normalized + 1) * old - 1) / 2).clamp(0, old - 1))
    return positions


def _cheapest_order(plan: _Plan) -> list[int]:
    """Returns the axes that change, those that shrink the most first."""
    old, new = spacing(plan.source.affine), spacing(plan.target.affine)
    ratios = [before / after for before, after in zip(old, new, strict=True)]
    changing = (axis for axis in range(3) if not _is_identity(plan, axis))
    return sorted(changing, key=ratios.__getitem__)


def _is_identity(plan: _Plan, axis: int) -> bool:
    length = plan.source.shape[axis]
    return plan.target.shape[axis] == length and torch.allclose(
        plan.positions[axis], torch.arange(length, dtype=torch.float64), rtol=0, atol=1e-9
    )


def _interpolate(tensor: torch.Tensor, positions: torch.Tensor, *, dim: int) -> torch.Tensor:
    """Interpolates linearly along one axis.

    It gathers and blends instead of multiplying with a matrix, which on some CPUs is done in
    bfloat16 once `torch.set_float32_matmul_precision` is lowered.
    """
    lower = positions.long()
    upper = (lower + 1).clamp(max=tensor.shape[dim] - 1)
    weights = (positions - lower).to(tensor.dtype).view([-1 if i == dim else 1 for i in range(4)])
    return _take(tensor, lower, dim=dim).lerp_(_take(tensor, upper, dim=dim), weights)


def _take(tensor: torch.Tensor, indices: torch.Tensor, *, dim: int) -> torch.Tensor:
    """Selects along one axis as `index_select` does, which is ten times slower on the last one."""
    # "clip" leaves out the check of each index; none is out of bounds
    taken = np.take(tensor.numpy(), indices.numpy(), axis=dim, mode="clip")
    return torch.from_numpy(taken)


def _resample_jointly(
    tensor: torch.Tensor,
    like: eva_tv_tensors.Volume,
    spacing_mm: Sequence[float],
    window: Box,
    *,
    mode: str,
) -> torch.Tensor:
    """Resamples a volume whose axes depend on each other (gantry tilt), slowly, with MONAI."""
    spacing_transform = monai_transforms.Spacing(pixdim=spacing_mm)
    resampled = spacing_transform(
        meta_tensor.MetaTensor(tensor, affine=torch.from_numpy(_affine_of(like))), mode=mode
    )
    return torch.as_tensor(resampled).as_subclass(torch.Tensor)[(slice(None), *window)]


def _affine_of(volume: eva_tv_tensors.Volume) -> npt.NDArray[np.float64]:
    if volume.affine is None:
        raise ValueError("The volume has no affine, so its spacing is unknown.")
    return np.asarray(volume.affine, dtype=np.float64)


def _describe(grid: Grid) -> str:
    """Returns the shape, spacing and origin of a grid as text."""
    lengths = "x".join(str(length) for length in grid.shape)
    distances = "x".join(f"{distance:.4g}" for distance in spacing(grid.affine))
    origin = ", ".join(f"{position:.4g}" for position in grid.affine[:3, 3])
    return f"{lengths} voxels (D, H, W) of {distances} mm from ({origin}) mm"


def _unreadable(error: Exception, path: str, *, case: str) -> DatasetError:
    return _error(
        f"the file is unreadable ({type(error).__name__}: {error})",
        path,
        case=case,
        fix="It may be cut off or damaged: copy or download it again.",
    )


def _error(problem: str, path: str, *, case: str, fix: str) -> DatasetError:
    return DatasetError(f"Case '{case}', file '{path}': {problem}. {fix}")
