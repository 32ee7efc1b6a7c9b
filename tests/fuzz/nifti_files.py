"""Malformed NIfTI files, read as scans and as label maps; nibabel and ITK are the other readers."""

import gzip
import math
import pathlib
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK
from nibabel import nifti1, nifti2, orientations

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import nifti
from tests.fuzz import mutations
from tests.fuzz.campaign import Kind

_NUM_LABELS = 4

_FIELDS = (
    "dim", "dim", "datatype", "bitpix", "pixdim", "pixdim", "vox_offset", "scl_slope", "scl_inter",
    "xyzt_units", "qform_code", "sform_code", "quatern_b", "qoffset_x", "srow_x", "srow_y",
    "srow_z", "magic", "sizeof_hdr",
)  # fmt: skip
"""The fields that decide how a file is read."""


def _write(random: np.random.Generator, folder: pathlib.Path, *, is_mask: bool) -> pathlib.Path:
    name = mutations.choose(random, ("a.nii", "a.nii.gz", "a.nii.gz", "A.NII", "a.NII.GZ"))
    is_gzip = name.lower().endswith(".gz")
    content = _well_formed(random, is_mask=is_mask)
    kind = random.integers(10)
    if kind < 4:
        content = _with_fields(random, content)
    elif kind < 6:
        content = mutations.damage(random, content, within=540)
    elif kind == 6:
        content = mutations.damage(random, content)
    elif kind == 7:
        content = mutations.choose(random, (b"", b"<html>404</html>" * 60, random.bytes(3000)))
    elif kind == 8:
        content += bytes(int(random.integers(2**25)))
    if is_gzip:
        content = gzip.compress(content, compresslevel=1)
    if random.random() < 0.2:
        content = mutations.damage(random, content)
    if random.random() < 0.05:
        name = "a.nii" if is_gzip else "a.nii.gz"
    (folder / name).write_bytes(content)
    return folder / name


def _well_formed(random: np.random.Generator, *, is_mask: bool) -> bytes:
    shape = tuple(int(length) for length in random.integers(2, 9, 3))
    dtype = mutations.choose(random, ("u1", "i2", "u2", "i4", "f4", "f8", "i8"))
    high = _NUM_LABELS if is_mask else 100
    array = random.integers(0 if is_mask else -100 * (dtype[0] != "u"), high, shape).astype(dtype)
    codes = "".join(
        mutations.choose(random, pair) for pair in random.permutation(["RL", "AP", "IS"])
    )
    affine = orientations.inv_ornt_aff(orientations.axcodes2ornt(codes), shape)
    affine = affine @ np.diag([*mutations.choose(random, ((1, 1, 1), (0.7, 0.7, 5), (2, 3, 4))), 1])
    kind = mutations.choose(random, (nifti1.Nifti1Image, nifti1.Nifti1Image, nifti2.Nifti2Image))
    image = kind(array, affine, dtype=array.dtype)
    if random.random() < 0.2:
        image.set_qform(affine, code=1)
    if random.random() < 0.2:
        image.header.set_slope_inter(float(mutations.choose(random, (2.0, 0.5, 1e-40))), 0)
        return image.header.binaryblock + bytes(4) + array.tobytes(order="F")
    if random.random() < 0.1:
        content = random.bytes(int(random.integers(40)))
        image.header.extensions.append(nifti1.Nifti1Extension("comment", content))
    content = image.to_bytes()
    return _swap(content, image.header) if random.random() < 0.1 else content


def _swap(content: bytes, header: Any) -> bytes:
    """Returns a file with the bytes of its header in the other order, as of another machine."""
    length = len(header.binaryblock)
    return header.as_byteswapped(">").binaryblock + content[length:]


def _with_fields(random: np.random.Generator, content: bytes) -> bytes:
    """Returns a file some fields of whose header are extreme."""
    is_second = int.from_bytes(content[:4], "little") == nifti2.header_dtype.itemsize
    dtype = (nifti2 if is_second else nifti1).header_dtype
    header = np.frombuffer(content[: dtype.itemsize], dtype).copy()
    for _ in range(int(random.integers(1, 3))):
        field = mutations.choose(random, _FIELDS if random.random() < 0.8 else dtype.names)
        values = header[field].reshape(-1)
        if values.dtype.kind == "S":
            values[:] = random.bytes(values.dtype.itemsize)
        elif values.dtype.kind == "f":
            values[int(random.integers(len(values)))] = mutations.choose(random, mutations.FLOATS)
        else:
            value = mutations.choose(random, mutations.EXTREMES)
            values[int(random.integers(len(values)))] = np.array(value).astype(values.dtype)
    return header.tobytes() + content[dtype.itemsize :]


def _read_scan(path: pathlib.Path) -> Any:
    return nifti.read_scan(str(path), case="case")


def _read_mask(path: pathlib.Path) -> Any:
    grid = nifti.read_grid(str(path), case="case")
    return nifti.read_mask(str(path), case="case", like=grid, labels=range(_NUM_LABELS)), grid


def _check_scan(path: pathlib.Path, volume: Any) -> str | None:
    return _compare(path, volume[0].numpy(), np.asarray(volume.affine))


def _check_mask(path: pathlib.Path, result: Any) -> str | None:
    mask, grid = result
    return _compare(path, mask[0].numpy(), grid.affine)


def _compare(path: pathlib.Path, array: Any, affine: Any) -> str | None:
    """Compares values and places with those that nibabel reads."""
    image: Any = nib.load(path)
    expected = np.squeeze(image.get_fdata()).reshape(image.shape[:3])
    if not (min(grid_lib.spacing(affine)) >= 0.02 and max(grid_lib.spacing(affine)) <= 300):
        return f"a spacing of {grid_lib.spacing(affine)}"
    if sorted(array.shape) != sorted(expected.shape):
        return f"the shape {array.shape} in place of {expected.shape}"
    corners = list(np.ndindex(2, 2, 2))
    for corner in corners[:: max(1, len(corners) // 8)]:
        stored = np.multiply(corner, np.subtract(expected.shape, 1))
        world = image.affine @ [*stored, 1]
        index = np.rint(np.linalg.solve(affine, world)[:3]).astype(int)
        if not np.allclose(array[tuple(index)], expected[tuple(stored)], atol=1e-3, rtol=1e-6):
            return f"{array[tuple(index)]} at {world} in place of {expected[tuple(stored)]}"
    total, wanted = float(array.sum(dtype=np.float64)), float(expected.sum())
    if not math.isclose(total, wanted, rel_tol=1e-5, abs_tol=1e-2):
        return f"a sum of {total} in place of {wanted}"
    return None


def _spacing_by_itk(path: pathlib.Path) -> tuple[float, ...] | None:
    """Returns the spacing that ITK reads; None if it does not read the file."""
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("NiftiImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return reader.GetSpacing()[:3]


SCANS = Kind("scans", lambda r, f: _write(r, f, is_mask=False), _read_scan, _check_scan)

MASKS = Kind("masks", lambda r, f: _write(r, f, is_mask=True), _read_mask, _check_mask)
