"""Tests that a header that lies and a file that is broken are errors."""

import gzip
import itertools
import math
import pathlib
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel import nifti1

from eva_coralbay.data import nifti
from eva_coralbay.errors import DatasetError
from tests.eva_coralbay.data.volumes import (
    AXIS_CODES,
    patch,
    rotation,
    save,
    stored_affine,
)

AFFINES = st.builds(
    lambda codes, angles, spacing_mm, origin: place(
        rotation(angles) @ stored_affine(codes, spacing_mm=spacing_mm), origin
    ),
    codes=st.sampled_from(AXIS_CODES),
    angles=st.tuples(*[st.sampled_from((0.0, 0.3))] * 3),
    spacing_mm=st.tuples(*[st.sampled_from((1.0, 1.02, 3.0))] * 3),
    origin=st.tuples(*[st.sampled_from((0.0, -50.0))] * 3),
)
"""Affines of files, some of which are equal in a part."""


@settings(max_examples=150, deadline=None)
@given(
    sform=AFFINES | st.none(),
    qform=AFFINES | st.none(),
    is_same=st.booleans(),
    pixdim=st.none() | st.tuples(*[st.sampled_from((1.0, 2.0, 0.0, -1.0, np.nan))] * 3),
    unit=st.sampled_from((2, 2, 0, 1, 3, 10)),
)
def test_itk_reads_the_same_millimeters_and_directions_or_the_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
    sform: npt.NDArray[np.float64] | None,
    qform: npt.NDArray[np.float64] | None,
    is_same: bool,
    pixdim: tuple[float, float, float] | None,
    unit: int,
) -> None:
    path = str(tmp_path_factory.mktemp("itk") / "scan.nii")
    write_header(path, sform, sform if is_same else qform, pixdim=pixdim, unit=unit)

    try:
        volume = nifti.read_scan(path, case="a")
    except DatasetError:
        return

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    image, offsets = SimpleITK.ReadImage(path), []
    for index in itertools.product(*((0, length - 1) for length in image.GetSize())):
        (place_in_array,) = (volume[0] == image.GetPixel(index)).nonzero().tolist()
        ours = np.asarray(volume.affine) @ [*place_in_array, 1]
        theirs = image.TransformIndexToPhysicalPoint(index)
        offsets.append(ours[:3] - np.multiply(theirs, (-1, -1, 1)))
    np.testing.assert_allclose(offsets, np.broadcast_to(offsets[0], (8, 3)), atol=0.6)


@pytest.mark.parametrize("is_same", [True, False])
def test_where_sform_and_qform_agree_but_for_the_origin_the_file_is_read(
    tmp_path: pathlib.Path, is_same: bool
) -> None:
    path, affine = str(tmp_path / "scan.nii"), np.diag([2.0, 2.0, 2.0, 1.0])
    write_header(path, affine, affine if is_same else place(affine, (30.0, 0.0, 0.0)))

    np.testing.assert_array_equal(nifti.read_grid(path, case="a").affine[:3, 3], (6, 8, 0))


LYING_HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "sform and pixdim": (
        {"sform": np.diag([2.0, 2, 2, 1]), "pixdim": (1.0, 2.0, 2.0)},
        "2 x 2 x 2 mm by the affine and 1 x 2 x 2 mm by pixdim",
    ),
    "sform and qform": (
        {"sform": np.diag([2.0, 2, 2, 1]), "qform": np.diag([-2.0, 2, 2, 1])},
        "RAS with 2 x 2 x 2 mm by the one and to LAS with 2 x 2 x 2 mm by the other",
    ),
    "meters": (
        {"sform": np.diag([2e-3, 2e-3, 2e-3, 1]), "unit": 1},
        "meters: .* 0.002 x 0.002 x 0.002 mm, others as 2 x 2 x 2 mm",
    ),
    "micrometers and seconds": (
        {"sform": np.diag([2e3, 2e3, 2e3, 1]), "unit": 3 + 8},
        "micrometers: .* 2000 x 2000 x 2000 mm, others as 2 x 2 x 2 mm",
    ),
    "zero": ({"sform": np.eye(4), "pixdim": (0.0, 1.0, 1.0)}, "pixdim. 0 x 1 x 1 is impossible"),
    "negative": ({"qform": np.eye(4), "pixdim": (-1.0, 1.0, 1.0)}, "-1 x 1 x 1 is impossible"),
    "nan": ({"qform": np.eye(4), "pixdim": (np.nan, 1.0, 1.0)}, "nan x 1 x 1 is impossible"),
    "too large": ({"sform": np.diag([1e3, 1e3, 1e3, 1])}, "1000 x 1000 x 1000 mm is impossible"),
    "too small": ({"sform": np.diag([1e-3, 1e-3, 1e-3, 1])}, "0.001 .* mm is impossible"),
    "too long": (
        {"sform": np.diag([90.0, 90, 90, 1]), "shape": (120, 2, 2)},
        "1.08e.04 x 180 x 180 mm long",
    ),
    "too far away": (
        {"sform": np.array([[1, 0, 0, 0], [0, 1, 0, 2e6], [0, 0, 1, 0], [0, 0, 0, 1.0]])},
        "lies 0 x 2e.06 x 0 mm from the origin",
    ),
    "a code of no unit": ({"sform": np.eye(4), "unit": 5}, "the unknown code 5"),
    "a tilted gantry": (
        {"sform": np.array([[2, 0, 0, 0], [0, 2, 0.1, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])},
        "not at right angles, but off by 1.9 degrees",
    ),
    "axes in a plane": (
        {"sform": np.array([[1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0.01, 0], [0, 0, 0, 1]])},
        "singular",
    ),
    "one axis twice": (
        {"sform": np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])},
        "singular",
    ),
}
"""Headers that contradict themselves or cannot be, and what their error says."""


@pytest.mark.parametrize("kind", LYING_HEADERS)
def test_a_header_that_lies_is_an_error(tmp_path: pathlib.Path, kind: str) -> None:
    arguments, problem = LYING_HEADERS[kind]
    write_header(str(tmp_path / "scan.nii"), **arguments)

    with pytest.raises(DatasetError, match=f"Case 'a', file '.*scan.nii': .*{problem}"):
        nifti.read_scan(str(tmp_path / "scan.nii"), case="a")


@pytest.mark.parametrize("quaternion", [3.0, np.nan])
@pytest.mark.parametrize("sform", [np.eye(4), None])
def test_a_qform_that_is_no_rotation_is_an_error(
    tmp_path: pathlib.Path, quaternion: float, sform: npt.NDArray[np.float64] | None
) -> None:
    write_header(str(tmp_path / "scan.nii"), sform, np.eye(4))
    patch(tmp_path / "scan.nii", 256, np.float32(quaternion).tobytes())

    with pytest.raises(DatasetError, match=r"qform is not a rotation: its quaternion \(b, c, d\)"):
        nifti.read_scan(str(tmp_path / "scan.nii"), case="a")


@pytest.mark.parametrize(
    ("slope", "intercept", "first"), [(0, 7, 0.0), (np.nan, 7, 0.0), (2, 7, 7.0), (-1, 7, 7.0)]
)
def test_a_slope_of_0_or_nan_means_that_the_values_are_not_scaled(
    tmp_path: pathlib.Path, slope: float, intercept: float, first: float
) -> None:
    write_header(str(tmp_path / "scan.nii"), np.eye(4))
    patch(tmp_path / "scan.nii", 112, np.float32([slope, intercept]).tobytes())

    volume = nifti.read_scan(str(tmp_path / "scan.nii"), case="a")
    nearest = volume.numpy().ravel()[np.abs(volume.numpy() - first).argmin()]
    assert nearest == first
    assert volume.max() - volume.min() == 119 * (abs(slope) if slope in (2, -1) else 1)


@pytest.mark.parametrize("scale", [(np.inf, 0), (2, np.nan), (2, -np.inf)])
def test_a_scale_of_the_values_that_is_not_finite_is_an_error(
    tmp_path: pathlib.Path, scale: tuple[float, float]
) -> None:
    write_header(str(tmp_path / "scan.nii"), np.eye(4))
    patch(tmp_path / "scan.nii", 112, np.float32(scale).tobytes())

    with pytest.raises(DatasetError, match=r"the scale of the values \(scl_slope, scl_inter\) is"):
        nifti.read_scan(str(tmp_path / "scan.nii"), case="a")


@pytest.mark.parametrize("offset", [np.inf, -np.inf, np.nan, -352.0, 1e30, 1.0, 0.0])
def test_an_impossible_place_of_the_voxels_is_an_error(
    tmp_path: pathlib.Path, offset: float
) -> None:
    path = tmp_path / "scan.nii"
    save(path, np.ones((4, 4, 4), np.int16), np.eye(4))
    patch(path, 108, np.float32(offset).tobytes())

    with pytest.raises(DatasetError, match="Case 'a', file '.*scan.nii'"):
        nifti.read_scan(str(path), case="a")


def test_no_more_is_read_than_the_header_states(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "scan.nii.gz"
    save(tmp_path / "small.nii", np.ones((4, 4, 4), np.int16), np.eye(4))
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write((tmp_path / "small.nii").read_bytes())
        for _ in range(300):
            file.write(bytes(2**20))

    tracemalloc.start()
    with pytest.raises(DatasetError, match="far more than the voxels that its header states"):
        nifti.read_scan(str(path), case="a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 16 * 2**20


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_no_memory_is_taken_for_voxels_that_a_file_cannot_hold(
    tmp_path: pathlib.Path, name: str
) -> None:
    path = tmp_path / "scan.nii"
    save(path, np.ones((4, 4, 4), np.int16), np.eye(4))
    patch(path, 40, np.array([3, 1000, 1000, 1000], np.int16).tobytes())
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))

    tracemalloc.start()
    with pytest.raises(DatasetError, match="unreadable: its header states 2,000,000,352 bytes"):
        nifti.read_scan(str(tmp_path / name), case="a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 4 * 2**20


def _truncate(path: pathlib.Path) -> None:
    save(path, np.random.default_rng(0).normal(size=(20, 20, 20)), np.eye(4))
    path.write_bytes(path.read_bytes()[:-5000])


def _corrupt(path: pathlib.Path) -> None:
    save(path, np.random.default_rng(0).normal(size=(20, 20, 20)), np.eye(4))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)


def _without_orientation(path: pathlib.Path) -> None:
    image = nifti1.Nifti1Image(np.zeros((2, 2, 2), np.int16), None)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    image.to_filename(path)


def _singular(path: pathlib.Path) -> None:
    image = nifti1.Nifti1Image(np.zeros((2, 2, 2), np.int16), None)
    image.header["sform_code"] = 1
    image.to_filename(path)


def _rgb(path: pathlib.Path) -> None:
    dtype = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    save(path, np.zeros((2, 2, 2), dtype), np.eye(4))


BROKEN_SCANS: dict[str, tuple[Callable[[pathlib.Path], Any], str]] = {
    "missing": (lambda path: None, "unreadable .FileNotFoundError"),
    "empty": (lambda path: path.write_bytes(b""), "unreadable"),
    "no gzip": (lambda path: path.write_bytes(b"<html>not found</html>" * 50), "unreadable"),
    "truncated": (_truncate, "unreadable"),
    "corrupt": (_corrupt, "unreadable"),
    "2D": (
        lambda path: save(path, np.zeros((4, 4), np.int16), np.eye(4)),
        r"shape \(4, 4\)",
    ),
    "one slice": (
        lambda path: save(path, np.zeros((4, 4, 1), np.int16), np.eye(4)),
        r"shape \(4, 4, 1\)",
    ),
    "4D": (
        lambda path: save(path, np.zeros((4, 4, 4, 2), np.int16), np.eye(4)),
        r"shape \(4, 4, 4, 2\)",
    ),
    "rgb": (_rgb, "the voxels are of type"),
    "NaN": (
        lambda path: save(path, np.full((2, 2, 2), np.nan), np.eye(4)),
        "8 voxels are NaN",
    ),
    "no orientation": (_without_orientation, "orientation and spacing are missing"),
    "singular": (_singular, "spacing is missing"),
}
"""How a scan can be broken, and what its error says."""


@pytest.mark.parametrize("kind", BROKEN_SCANS)
def test_a_broken_scan_is_an_error_that_names_case_and_file(
    tmp_path: pathlib.Path, kind: str
) -> None:
    write, problem = BROKEN_SCANS[kind]
    write(tmp_path / "broken.nii.gz")

    with pytest.raises(DatasetError, match=f"Case 'c1', file '.*broken.nii.gz': .*{problem}"):
        nifti.read_scan(str(tmp_path / "broken.nii.gz"), case="c1")


def test_a_file_of_another_format_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="not a NIfTI file. Convert it"):
        nifti.read_scan(str(tmp_path / "scan.nrrd"), case="a")


def place(affine: npt.NDArray[np.float64], origin: Sequence[float]) -> npt.NDArray[np.float64]:
    """Returns an affine with another origin."""
    placed = affine.copy()
    placed[:3, 3] = origin
    return placed


def write_header(
    path: str,
    sform: npt.NDArray[np.float64] | None = None,
    qform: npt.NDArray[np.float64] | None = None,
    *,
    pixdim: Sequence[float] | None = None,
    unit: int = 2,
    shape: tuple[int, int, int] = (4, 5, 6),
) -> None:
    """Writes a scan whose header says about its place what it is told to."""
    image = nifti1.Nifti1Image(np.zeros(shape, np.int16), None)
    image.set_qform(qform, code=0 if qform is None else 1)
    image.set_sform(sform, code=0 if sform is None else 1)
    if qform is None and sform is not None:
        image.header["pixdim"][1:4] = np.linalg.norm(sform[:3, :3], axis=0)
    if pixdim is not None:
        image.header["pixdim"][1:4] = pixdim
    image.header["xyzt_units"] = unit
    image.header["vox_offset"] = 352
    content = np.arange(math.prod(shape), dtype=np.int16)
    pathlib.Path(path).write_bytes(image.header.binaryblock + bytes(4) + content.tobytes())
