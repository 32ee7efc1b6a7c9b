"""Tests of orientation, spacing and resampling."""

import itertools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from eva.vision.data.datasets.segmentation import _utils as eva_utils
from eva.vision.data.transforms import spatial as eva_spatial
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel import nifti1
from torchvision import tv_tensors

from eva_coralbay.data import geometry
from eva_coralbay.errors import DatasetError

AXIS_CODES = [
    "".join(codes)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for codes in itertools.product(*axes)
]
"""The 48 orders and directions in which a file may store its axes."""

DIRECTIONS = {
    "R": (1, 0, 0),
    "L": (-1, 0, 0),
    "A": (0, 1, 0),
    "P": (0, -1, 0),
    "S": (0, 0, 1),
    "I": (0, 0, -1),
}
"""The RAS+ direction of each axis code."""

SPACINGS = (0.5, 0.75, 0.796875, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.906, 5.0)
"""Voxel sizes in mm; many of their ratios put new voxels halfway between two old ones."""

REAL_DATA = os.environ.get("EVA_CORALBAY_REAL_DATA")

needs_real_data = pytest.mark.skipif(
    not REAL_DATA, reason="EVA_CORALBAY_REAL_DATA does not name a folder with real CT"
)


@pytest.mark.parametrize("codes", AXIS_CODES)
def test_every_stored_orientation_is_read_at_its_world_position(
    tmp_path: pathlib.Path, codes: str
) -> None:
    affine = stored_affine(codes, spacing_mm=(1.0, 2.0, 3.0))
    save(tmp_path / "scan.nii.gz", world_content((4, 5, 6), affine), affine)

    volume = geometry.read_scan(str(tmp_path / "scan.nii.gz"), case="a")

    assert "".join(nib.orientations.aff2axcodes(volume.affine)) == "SPL"
    assert volume.dtype == torch.float32
    assert volume.is_contiguous()
    assert_holds_world_content(volume)


@settings(max_examples=25, deadline=None)
@given(
    codes=st.sampled_from(AXIS_CODES),
    angles=st.tuples(*[st.floats(-0.4, 0.4)] * 3),
    shape=st.tuples(*[st.integers(2, 6)] * 3),
)
def test_oblique_scans_keep_their_closest_axes_and_world_positions(
    tmp_path_factory: pytest.TempPathFactory,
    codes: str,
    angles: tuple[float, float, float],
    shape: tuple[int, int, int],
) -> None:
    affine = rotation(angles) @ stored_affine(codes, spacing_mm=(1.0, 1.5, 2.0))
    path = tmp_path_factory.mktemp("oblique") / "scan.nii"
    save(path, world_content(shape, affine), affine)

    volume = geometry.read_scan(str(path), case="a")

    assert "".join(nib.orientations.aff2axcodes(volume.affine)) == "SPL"
    assert_holds_world_content(volume, atol=1e-2)


@pytest.mark.parametrize("codes", AXIS_CODES)
def test_as_nifti_stores_any_orientation_and_reads_back(tmp_path: pathlib.Path, codes: str) -> None:
    array = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    affine = geometry.straight_affine((5.0, 2.0, 1.0), (10.0, 20.0, -30.0))

    image = geometry.as_nifti(array, affine, orientation=codes)
    image.to_filename(tmp_path / "scan.nii")
    volume = geometry.read_scan(str(tmp_path / "scan.nii"), case="a")

    assert "".join(nib.orientations.aff2axcodes(image.affine)) == codes
    np.testing.assert_array_equal(volume[0], array)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)


def test_straight_affine_points_up_back_and_left() -> None:
    affine = geometry.straight_affine((3.0, 2.0, 1.0), (7.0, 8.0, 9.0))

    np.testing.assert_array_equal(affine @ [1, 0, 0, 1], [7, 8, 12, 1])
    np.testing.assert_array_equal(affine @ [0, 1, 0, 1], [7, 6, 9, 1])
    np.testing.assert_array_equal(affine @ [0, 0, 1, 1], [6, 8, 9, 1])
    assert geometry.spacing(affine) == (3.0, 2.0, 1.0)


def test_hounsfield_units_are_neither_truncated_nor_wrapped(tmp_path: pathlib.Path) -> None:
    values = np.array([1.9, -1.9, 40000.0, -1000.5, 0.0, 3071.25, 12.0, -7.5], dtype=np.float32)
    save(tmp_path / "scan.nii.gz", values.reshape(2, 2, 2), np.eye(4))

    volume = geometry.read_scan(str(tmp_path / "scan.nii.gz"), case="a")

    assert sorted(volume.flatten().tolist()) == sorted(values.tolist())


def test_slope_and_intercept_are_applied(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "scan.nii"
    stored = np.arange(8, dtype=np.int16).reshape(2, 2, 2)
    image = nifti1.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.5, -1024.0)
    image.to_filename(path)
    with open(path, "r+b") as file:  # nibabel stores what, scaled, gives the array
        file.seek(352)
        file.write(stored.tobytes(order="F"))

    volume = geometry.read_scan(str(path), case="a")

    assert sorted(volume.flatten().tolist()) == [-1024.0 + 0.5 * value for value in range(8)]


def test_published_files_without_a_code_are_taken_as_they_are(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "scan.nii")
    image = nifti1.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.diag([2.0, 2.0, 5.0, 1.0]))
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    image.to_filename(path)

    with pytest.raises(DatasetError, match="sform_code and qform_code are 0"):
        geometry.read_grid(path, case="a")
    grid = geometry.read_grid(path, case="a", needs_code=False)
    assert grid.shape == (4, 3, 2)
    assert geometry.spacing(grid.affine) == (5.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("sform_code", "qform_code", "expected"), [(1, 0, "sform"), (0, 1, "qform"), (2, 1, "sform")]
)
def test_sform_goes_before_qform(
    tmp_path: pathlib.Path, sform_code: int, qform_code: int, expected: str
) -> None:
    affines = {"sform": np.diag([2.0, 2, 2, 1]), "qform": np.diag([-3.0, 3, 3, 1])}
    image = nifti1.Nifti1Image(np.zeros((2, 2, 2), np.int16), None)
    image.set_qform(affines["qform"], code=qform_code)
    image.set_sform(affines["sform"], code=sform_code)
    image.to_filename(tmp_path / "scan.nii")

    volume = geometry.read_scan(str(tmp_path / "scan.nii"), case="a")

    assert volume.affine is not None
    assert geometry.spacing(volume.affine) == ((2, 2, 2) if expected == "sform" else (3, 3, 3))


def test_read_grid_agrees_with_the_scan(tmp_path: pathlib.Path) -> None:
    affine = stored_affine("PIR", spacing_mm=(1.0, 2.0, 3.0))
    path = save(tmp_path / "scan.nii.gz", world_content((4, 5, 6), affine), affine)

    grid, volume = geometry.read_grid(path, case="a"), geometry.read_scan(path, case="a")

    assert grid.shape == volume.shape[1:] == (5, 4, 6)
    np.testing.assert_array_equal(grid.affine, volume.affine)


def test_a_trailing_axis_of_one_is_dropped(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "scan.nii", np.zeros((2, 3, 4, 1), np.int16), np.eye(4))

    assert geometry.read_scan(path, case="a").shape == (1, 4, 3, 2)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "IPR", "ASL"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.int64])
def test_a_mask_stored_in_another_orientation_is_read_on_the_grid_of_the_image(
    tmp_path: pathlib.Path, codes: str, dtype: npt.DTypeLike
) -> None:
    affine = geometry.straight_affine((3.0, 2.0, 1.0), (0.0, 0.0, 0.0))
    labels = np.random.default_rng(0).integers(0, 4, size=(4, 5, 6))
    image = geometry.as_nifti(labels.astype(np.int16), affine, orientation="LPS")
    mask = geometry.as_nifti(labels.astype(np.int16), affine, orientation=codes)
    image.to_filename(tmp_path / "image.nii")
    save(tmp_path / "mask.nii", np.asarray(mask.dataobj).astype(dtype), mask.affine)

    read = geometry.read_mask(
        str(tmp_path / "mask.nii"),
        case="a",
        like=geometry.read_grid(str(tmp_path / "image.nii"), case="a"),
        labels=range(4),
    )

    assert read.dtype == torch.uint8
    np.testing.assert_array_equal(read[0], labels)


@pytest.mark.parametrize(
    ("largest", "dtype"), [(255, torch.uint8), (256, torch.int16), (40000, torch.int32)]
)
def test_a_mask_has_the_smallest_type_that_holds_its_labels(
    tmp_path: pathlib.Path, largest: int, dtype: torch.dtype
) -> None:
    array = np.array([0, largest] * 4).reshape(2, 2, 2)
    path = save(tmp_path / "mask.nii", array.astype(np.int32), np.eye(4))

    mask = geometry.read_mask(
        path, case="a", like=geometry.read_grid(path, case="a"), labels=range(largest + 1)
    )

    assert mask.dtype == dtype
    assert mask.max() == largest


def test_nearly_integer_labels_are_rounded_and_not_truncated(tmp_path: pathlib.Path) -> None:
    array = np.array([0, 0.9999, 2.0001, 3, 0, 1, 2, 2.9999], dtype=np.float32).reshape(2, 2, 2)
    path = save(tmp_path / "mask.nii", array, np.eye(4))

    mask = geometry.read_mask(
        path, case="a", like=geometry.read_grid(path, case="a"), labels=range(4)
    )

    assert sorted(mask.flatten().tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([0, 1, 2, 7], r"unknown label values \[7\]"),
        ([0, 1, 2, -1], r"unknown label values \[-1\]"),
        ([0, 1, 2.5, 0], "not integers, such as 2.5"),
        ([0, 1, float("nan"), 0], "not integers, such as nan"),
    ],
)
def test_a_mask_of_other_values_is_an_error(
    tmp_path: pathlib.Path, values: Sequence[float], problem: str
) -> None:
    array = np.array([*values, *values], dtype=np.float32).reshape(2, 2, 2)
    path = save(tmp_path / "mask.nii.gz", array, np.eye(4))

    with pytest.raises(DatasetError, match=f"Case 'liver_7', file '.*mask.nii.gz': .*{problem}"):
        geometry.read_mask(
            path, case="liver_7", like=geometry.read_grid(path, case="a"), labels=range(3)
        )


def test_a_gap_in_the_known_labels_is_unknown(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "mask.nii", np.full((2, 2, 2), 1, np.uint8), np.eye(4))

    with pytest.raises(DatasetError, match=r"unknown label values \[1\]"):
        geometry.read_mask(path, case="a", like=geometry.read_grid(path, case="a"), labels=(0, 2))


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 1.0, 2.0, 1.0]),
        np.diag([-1.0, 1.0, 1.0, 1.0]),
        np.array([[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    ],
    ids=["spacing", "mirrored", "shifted"],
)
def test_a_mask_on_another_grid_is_an_error(
    tmp_path: pathlib.Path, affine: npt.NDArray[np.float64]
) -> None:
    image = save(tmp_path / "image.nii", np.zeros((3, 3, 3), np.uint8), np.eye(4))
    mask = save(tmp_path / "mask.nii", np.zeros((3, 3, 3), np.uint8), affine)

    with pytest.raises(DatasetError, match="Case 'a', file '.*mask.nii': .*another grid"):
        geometry.read_mask(
            mask, case="a", like=geometry.read_grid(image, case="a"), labels=range(2)
        )


def test_a_mask_of_another_shape_is_an_error_that_names_both(tmp_path: pathlib.Path) -> None:
    image = save(tmp_path / "image.nii", np.zeros((3, 4, 5), np.uint8), np.eye(4))
    mask = save(tmp_path / "mask.nii", np.zeros((3, 4, 6), np.uint8), np.eye(4))

    with pytest.raises(DatasetError, match="6x4x3 voxels .* instead of 5x4x3 voxels"):
        geometry.read_mask(
            mask, case="a", like=geometry.read_grid(image, case="a"), labels=range(2)
        )


def test_rounding_in_the_affine_of_a_mask_is_no_other_grid(tmp_path: pathlib.Path) -> None:
    image = save(tmp_path / "image.nii", np.zeros((3, 3, 3), np.uint8), np.eye(4))
    mask = save(tmp_path / "mask.nii", np.zeros((3, 3, 3), np.uint8), np.eye(4) * 1.001)

    read = geometry.read_mask(
        mask, case="a", like=geometry.read_grid(image, case="a"), labels=range(2)
    )

    assert read.shape == (1, 3, 3, 3)


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
    "2D": (lambda path: save(path, np.zeros((4, 4), np.int16), np.eye(4)), r"shape \(4, 4\)"),
    "one slice": (
        lambda path: save(path, np.zeros((4, 4, 1), np.int16), np.eye(4)),
        r"shape \(4, 4, 1\)",
    ),
    "4D": (
        lambda path: save(path, np.zeros((4, 4, 4, 2), np.int16), np.eye(4)),
        r"shape \(4, 4, 4, 2\)",
    ),
    "rgb": (_rgb, "the voxels are of type"),
    "NaN": (lambda path: save(path, np.full((2, 2, 2), np.nan), np.eye(4)), "8 voxels are NaN"),
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
        geometry.read_scan(str(tmp_path / "broken.nii.gz"), case="c1")


def test_a_file_of_another_format_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="not a NIfTI file. Convert it"):
        geometry.read_scan(str(tmp_path / "scan.nrrd"), case="a")


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(2, 40)] * 3),
    old=st.tuples(*[st.sampled_from(SPACINGS)] * 3),
    new=st.tuples(*[st.sampled_from(SPACINGS)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    seed=st.integers(0, 2**16),
)
def test_resampling_equals_eva(
    shape: tuple[int, int, int],
    old: tuple[float, float, float],
    new: tuple[float, float, float],
    origin: tuple[float, float, float],
    seed: int,
) -> None:
    volume, mask = random_case(shape, geometry.straight_affine(old, origin), seed=seed)

    expected_volume, expected_mask = eva_spatial.Spacing(pixdim=new)(volume, mask)

    assert_close(geometry.resample(volume, new), expected_volume)
    assert torch.equal(geometry.resample_mask(mask, volume, new).long(), expected_mask)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(2, 40)] * 3),
    old=st.tuples(*[st.sampled_from(SPACINGS) | st.floats(0.4, 6.0)] * 3),
    new=st.tuples(*[st.sampled_from(SPACINGS) | st.floats(0.7, 6.0)] * 3),
    angles=st.tuples(*[st.floats(-0.4, 0.4)] * 3),
    seed=st.integers(0, 2**16),
)
def test_resampling_of_rotated_scans_equals_eva(
    shape: tuple[int, int, int],
    old: tuple[float, float, float],
    new: tuple[float, float, float],
    angles: tuple[float, float, float],
    seed: int,
) -> None:
    affine = rotation(angles) @ geometry.straight_affine(old, (10.0, -20.0, 30.0))
    volume, mask = random_case(shape, affine, seed=seed)

    expected_volume, expected_mask = eva_spatial.Spacing(pixdim=new)(volume, mask)

    assert_close(geometry.resample(volume, new), expected_volume)
    assert torch.equal(geometry.resample_mask(mask, volume, new).long(), expected_mask)


def test_ties_between_voxels_of_rotated_scans_are_decided_as_by_eva() -> None:
    affine = rotation((0.0, 0.25, 0.0)) @ geometry.straight_affine((2.0, 1.0, 1.0), (10, -20, 30))
    volume, mask = random_case((20, 2, 9), affine, seed=0)

    _, expected_mask = eva_spatial.Spacing(pixdim=(1.0, 1.0, 0.75))(volume, mask)

    assert torch.equal(geometry.resample_mask(mask, volume, (1.0, 1.0, 0.75)).long(), expected_mask)


def test_resampling_of_a_tilted_gantry_equals_eva() -> None:
    affine = geometry.straight_affine((5.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    affine[1, 0] = 5.0 * np.tan(np.deg2rad(15.0))
    volume, mask = random_case((9, 24, 20), affine, seed=0)

    expected_volume, expected_mask = eva_spatial.Spacing(pixdim=(2.0, 1.5, 1.5))(volume, mask)

    assert_close(geometry.resample(volume, (2.0, 1.5, 1.5)), expected_volume)
    resampled_mask = geometry.resample_mask(mask, volume, (2.0, 1.5, 1.5))
    assert resampled_mask.dtype == torch.uint8
    assert torch.equal(resampled_mask.long(), expected_mask)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(8, 30)] * 3),
    new=st.tuples(*[st.floats(0.5, 4.0)] * 3),
    angles=st.tuples(*[st.floats(-0.4, 0.4)] * 3),
)
def test_the_affine_of_a_resampled_scan_is_true(
    shape: tuple[int, int, int],
    new: tuple[float, float, float],
    angles: tuple[float, float, float],
) -> None:
    affine = rotation(angles) @ geometry.straight_affine((2.0, 1.0, 1.5), (10.0, -20.0, 30.0))
    content = torch.from_numpy(world_content(shape, affine))
    volume = eva_tv_tensors.Volume(content[None], affine=torch.from_numpy(affine))

    resampled = geometry.resample(volume, new)

    assert resampled.affine is not None
    np.testing.assert_allclose(geometry.spacing(resampled.affine), new, atol=1e-3)
    depth, height, width = (length - 1 for length in resampled.shape[1:])
    inside = resampled[:, :depth, :height, :width]  # the last voxels may lie outside
    inside = eva_tv_tensors.Volume(inside, affine=resampled.affine)
    assert_holds_world_content(inside, atol=1e-2)


def test_a_scan_of_the_wanted_spacing_is_left_alone() -> None:
    affine = geometry.straight_affine((1.5, 1.5, 1.5004), (0.0, 0.0, 0.0))
    volume, mask = random_case((5, 6, 7), affine, seed=0)

    resampled = geometry.resample(volume, (1.5, 1.5, 1.5))

    assert torch.equal(resampled, volume)
    assert torch.equal(geometry.resample_mask(mask, volume, (1.5, 1.5, 1.5)), mask)


def test_resampling_does_not_change_its_input() -> None:
    affine = geometry.straight_affine((2.0, 1.5, 3.0), (0.0, 0.0, 0.0))
    volume, _ = random_case((5, 6, 7), affine, seed=0)
    before = volume.clone()

    geometry.resample(volume, (1.5, 1.5, 1.5))

    assert torch.equal(volume, before)


def test_resampling_is_exact_when_matrix_products_are_not() -> None:
    affine = geometry.straight_affine((2.0, 1.7, 0.8), (0.0, 0.0, 0.0))
    volume, _ = random_case((30, 40, 50), affine, seed=0)
    expected = geometry.resample(volume, (1.5, 1.5, 1.5))
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(geometry.resample(volume, (1.5, 1.5, 1.5)), expected)
    finally:
        torch.set_float32_matmul_precision(precision)


@pytest.mark.parametrize("new", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0)])
def test_a_spacing_that_is_none_is_an_error(new: tuple[float, ...]) -> None:
    volume, _ = random_case((3, 3, 3), np.eye(4), seed=0)

    with pytest.raises(ValueError, match="three positive numbers"):
        geometry.resample(volume, new)


@needs_real_data
@pytest.mark.parametrize("case", ["openkbp_pt_1", "openkbp_pt_112", "openkbp_pt_48"])
def test_real_scans_are_read_and_resampled_as_by_eva(case: str) -> None:
    image = f"{REAL_DATA}/openkbp_oar/imagesTr/{case}_0000.nii.gz"
    label = f"{REAL_DATA}/openkbp_oar/labelsTr/{case}.nii.gz"
    eva_volume = eva_utils.load_volume_tensor(image)
    eva_mask = eva_utils.load_mask_tensor(label, image)

    volume = geometry.read_scan(image, case=case)
    mask = geometry.read_mask(label, case=case, like=geometry.Grid.of(volume), labels=range(6))

    assert torch.equal(volume[0], eva_volume[:, 0])
    assert torch.equal(mask[0].long(), eva_mask[:, 0])
    np.testing.assert_allclose(np.asarray(volume.affine), np.asarray(eva_volume.affine), atol=1e-4)
    expected_volume, expected_mask = eva_spatial.Spacing(pixdim=(3.0, 3.0, 3.0))(
        eva_tv_tensors.Volume(eva_volume.transpose(0, 1), affine=eva_volume.affine),
        tv_tensors.Mask(eva_mask.transpose(0, 1)),
    )
    assert_close(geometry.resample(volume, (3.0, 3.0, 3.0)), expected_volume)
    resampled_mask = geometry.resample_mask(mask, volume, (3.0, 3.0, 3.0))
    assert torch.equal(resampled_mask.long(), expected_mask)


@needs_real_data
@pytest.mark.parametrize("case", ["openkbp_pt_1", "openkbp_pt_112", "openkbp_pt_48"])
def test_the_parotids_lie_on_their_sides(case: str) -> None:
    image = f"{REAL_DATA}/openkbp_oar/imagesTr/{case}_0000.nii.gz"
    label = f"{REAL_DATA}/openkbp_oar/labelsTr/{case}.nii.gz"
    volume = geometry.read_scan(image, case=case)
    mask = geometry.read_mask(label, case=case, like=geometry.Grid.of(volume), labels=range(6))

    right, left, mandible, cord = (center_of(mask[0] == value, volume) for value in (3, 4, 5, 2))

    assert right[0] > left[0] + 40  # RAS+ world: x grows to the right
    assert mandible[1] > cord[1] + 20  # y grows to the front
    columns = [(mask[0] == value).nonzero()[:, 2].float().mean() for value in (3, 4)]
    assert columns[0] < columns[1]  # W grows to the left


def stored_affine(codes: str, *, spacing_mm: Sequence[float]) -> npt.NDArray[np.float64]:
    """Returns the affine of a file whose axes have the given codes."""
    affine = np.eye(4)
    for axis, (code, step) in enumerate(zip(codes, spacing_mm, strict=True)):
        affine[:3, axis] = np.multiply(DIRECTIONS[code], step)
    affine[:3, 3] = (11.0, -22.0, 33.0)
    return affine


def rotation(angles: Sequence[float]) -> npt.NDArray[np.float64]:
    """Returns the matrix that turns around the three axes of the world in turn."""
    matrix = np.eye(4)
    for axis, angle in enumerate(angles):
        first, second = (i for i in range(3) if i != axis)
        turn = np.eye(4)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def world_content(
    shape: tuple[int, int, int], affine: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Returns a volume whose values say where in the world each voxel lies."""
    indices = np.stack([*np.indices(shape), np.ones(shape)])
    x, y, z, _ = np.einsum("ij,j...->i...", affine, indices)
    return (x + 3 * y + 10 * z).astype(np.float32)


def assert_holds_world_content(volume: eva_tv_tensors.Volume, *, atol: float = 1e-4) -> None:
    """Checks that the affine puts the values of a volume where they belong."""
    depth, height, width = volume.shape[1:]
    expected = world_content((depth, height, width), np.asarray(volume.affine))
    np.testing.assert_allclose(volume[0], expected, atol=atol)


def save(path: pathlib.Path, array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> str:
    """Writes an array as it is to a NIfTI file."""
    if array.dtype == np.int64:
        nib.save(nifti1.Nifti1Image(array, affine, dtype=np.int64), path)
    else:
        nib.save(nifti1.Nifti1Image(array, affine), path)
    return str(path)


def random_case(
    shape: tuple[int, int, int], affine: npt.NDArray[np.float64], *, seed: int
) -> tuple[eva_tv_tensors.Volume, tv_tensors.Mask]:
    """Returns a scan of noise in HU and a mask of random labels."""
    random = torch.Generator().manual_seed(seed)
    volume = torch.randn(1, *shape, generator=random) * 500
    mask = torch.randint(0, 100, (1, *shape), generator=random, dtype=torch.uint8)
    return eva_tv_tensors.Volume(volume, affine=torch.from_numpy(affine)), tv_tensors.Mask(mask)


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Checks that two scans are equal within 1e-3 HU."""
    assert actual.shape == expected.shape
    difference = actual.as_subclass(torch.Tensor) - expected.as_subclass(torch.Tensor)
    assert difference.abs().max() < 1e-3


def center_of(structure: torch.Tensor, volume: eva_tv_tensors.Volume) -> npt.NDArray[np.float64]:
    """Returns the RAS+ world position of the middle of a structure in mm."""
    index = structure.nonzero().double().mean(dim=0)
    return np.asarray(volume.affine) @ [*index.tolist(), 1.0]
