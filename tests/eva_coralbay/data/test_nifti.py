"""Tests of reading and writing NIfTI files."""

import gzip
import os
import pathlib
from collections.abc import Sequence

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel import nifti1

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import nifti, nifti_image
from eva_coralbay.errors import DatasetError
from tests.eva_coralbay.data.volumes import (
    AXIS_CODES,
    assert_holds_world_content,
    patch,
    rotation,
    save,
    stored_affine,
    world_content,
)

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

    volume = nifti.read_scan(str(tmp_path / "scan.nii.gz"), case="a")

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

    volume = nifti.read_scan(str(path), case="a")

    assert "".join(nib.orientations.aff2axcodes(volume.affine)) == "SPL"
    assert_holds_world_content(volume, atol=1e-2)


@pytest.mark.parametrize("codes", AXIS_CODES)
def test_as_nifti_stores_any_orientation_and_reads_back(tmp_path: pathlib.Path, codes: str) -> None:
    array = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    affine = grid_lib.straight_affine((5.0, 2.0, 1.0), (10.0, 20.0, -30.0))

    image = nifti_image.as_nifti(array, affine, orientation=codes)
    image.to_filename(tmp_path / "scan.nii")
    volume = nifti.read_scan(str(tmp_path / "scan.nii"), case="a")

    assert "".join(nib.orientations.aff2axcodes(image.affine)) == codes
    np.testing.assert_array_equal(volume[0], array)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)


def test_hounsfield_units_are_neither_truncated_nor_wrapped(tmp_path: pathlib.Path) -> None:
    values = np.array([1.9, -1.9, 40000.0, -1000.5, 0.0, 3071.25, 12.0, -7.5], dtype=np.float32)
    save(tmp_path / "scan.nii.gz", values.reshape(2, 2, 2), np.eye(4))

    volume = nifti.read_scan(str(tmp_path / "scan.nii.gz"), case="a")

    assert sorted(volume.flatten().tolist()) == sorted(values.tolist())


def test_slope_and_intercept_are_applied(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "scan.nii"
    stored = np.arange(8, dtype=np.int16).reshape(2, 2, 2)
    image = nifti1.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.5, -1024.0)
    image.to_filename(path)
    with path.open("r+b") as file:  # nibabel stores what, scaled, gives the array
        file.seek(352)
        file.write(stored.tobytes(order="F"))

    volume = nifti.read_scan(str(path), case="a")

    assert sorted(volume.flatten().tolist()) == [-1024.0 + 0.5 * value for value in range(8)]


def test_published_files_without_a_code_are_taken_as_they_are(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "scan.nii")
    image = nifti1.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.diag([2.0, 2.0, 5.0, 1.0]))
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    image.to_filename(path)

    with pytest.raises(DatasetError, match="sform_code and qform_code are 0"):
        nifti.read_grid(path, case="a")
    grid = nifti.read_grid(path, case="a", needs_code=False)
    assert grid.shape == (4, 3, 2)
    assert grid_lib.spacing(grid.affine) == (5.0, 2.0, 2.0)


def test_a_slope_that_makes_one_label_of_two_is_an_error(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mask.nii"
    save(path, np.arange(8, dtype=np.int16).reshape(2, 2, 2) % 3, np.eye(4))
    patch(path, 112, np.float32(1e-40).tobytes())

    with pytest.raises(DatasetError, match="scl_slope. makes 1 label values of 3"):
        nifti.read_mask(
            str(path), case="a", like=nifti.read_grid(str(path), case="a"), labels=range(3)
        )


@pytest.mark.parametrize(
    ("name", "is_gzip", "right"), [("a.nii", True, ".nii.gz"), ("a.nii.gz", False, ".nii")]
)
def test_a_wrong_suffix_says_how_to_rename(
    tmp_path: pathlib.Path, name: str, is_gzip: bool, right: str
) -> None:
    source = tmp_path / ("source.nii.gz" if is_gzip else "source.nii")
    save(source, np.ones((4, 4, 4), np.int16), np.eye(4))
    source.rename(tmp_path / name)

    with pytest.raises(DatasetError, match=rf"(?i)rename it so that it ends in {right}\b"):
        nifti.read_scan(str(tmp_path / name), case="a")


@pytest.mark.parametrize("name", ["A.NII.GZ", "a.Nii", "a.nii.GZ"])
def test_a_suffix_may_be_in_upper_case(tmp_path: pathlib.Path, name: str) -> None:
    source = tmp_path / ("source.nii.gz" if name.lower().endswith(".gz") else "source.nii")
    save(source, np.ones((4, 4, 4), np.int16), np.eye(4))
    source.rename(tmp_path / name)

    assert nifti.is_nifti(str(tmp_path / name))
    assert nifti.read_scan(str(tmp_path / name), case="a").sum() == 64


def test_a_gzip_of_several_members_is_read(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "source.nii"
    save(source, np.ones((4, 4, 4), np.int16), np.eye(4))
    content = source.read_bytes()
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))

    assert nifti.read_scan(str(path), case="a").sum() == 64


def test_read_grid_agrees_with_the_scan(tmp_path: pathlib.Path) -> None:
    affine = stored_affine("PIR", spacing_mm=(1.0, 2.0, 3.0))
    path = save(tmp_path / "scan.nii.gz", world_content((4, 5, 6), affine), affine)

    grid, volume = nifti.read_grid(path, case="a"), nifti.read_scan(path, case="a")

    assert grid.shape == volume.shape[1:] == (5, 4, 6)
    np.testing.assert_array_equal(grid.affine, volume.affine)


def test_a_trailing_axis_of_one_is_dropped(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "scan.nii", np.zeros((2, 3, 4, 1), np.int16), np.eye(4))

    assert nifti.read_scan(path, case="a").shape == (1, 4, 3, 2)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "IPR", "ASL"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.int64])
def test_a_mask_stored_in_another_orientation_is_read_on_the_grid_of_the_image(
    tmp_path: pathlib.Path, codes: str, dtype: npt.DTypeLike
) -> None:
    affine = grid_lib.straight_affine((3.0, 2.0, 1.0), (0.0, 0.0, 0.0))
    labels = np.random.default_rng(0).integers(0, 4, size=(4, 5, 6))
    image = nifti_image.as_nifti(labels.astype(np.int16), affine, orientation="LPS")
    mask = nifti_image.as_nifti(labels.astype(np.int16), affine, orientation=codes)
    image.to_filename(tmp_path / "image.nii")
    save(tmp_path / "mask.nii", np.asarray(mask.dataobj).astype(dtype), mask.affine)

    read = nifti.read_mask(
        str(tmp_path / "mask.nii"),
        case="a",
        like=nifti.read_grid(str(tmp_path / "image.nii"), case="a"),
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

    mask = nifti.read_mask(
        path, case="a", like=nifti.read_grid(path, case="a"), labels=range(largest + 1)
    )

    assert mask.dtype == dtype
    assert mask.max() == largest


def test_nearly_integer_labels_are_rounded_and_not_truncated(tmp_path: pathlib.Path) -> None:
    array = np.array([0, 0.9999, 2.0001, 3, 0, 1, 2, 2.9999], dtype=np.float32).reshape(2, 2, 2)
    path = save(tmp_path / "mask.nii", array, np.eye(4))

    mask = nifti.read_mask(path, case="a", like=nifti.read_grid(path, case="a"), labels=range(4))

    assert sorted(mask.flatten().tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([0, 1, 2, 7], "unknown label values 7;"),
        ([0, 1, 2, -1], "unknown label values -1;"),
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
        nifti.read_mask(path, case="liver_7", like=nifti.read_grid(path, case="a"), labels=range(3))


def test_a_gap_in_the_known_labels_is_unknown(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "mask.nii", np.full((2, 2, 2), 1, np.uint8), np.eye(4))

    with pytest.raises(DatasetError, match="unknown label values 1;"):
        nifti.read_mask(path, case="a", like=nifti.read_grid(path, case="a"), labels=(0, 2))


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
        nifti.read_mask(mask, case="a", like=nifti.read_grid(image, case="a"), labels=range(2))


def test_a_mask_of_another_shape_is_an_error_that_names_both(tmp_path: pathlib.Path) -> None:
    image = save(tmp_path / "image.nii", np.zeros((3, 4, 5), np.uint8), np.eye(4))
    mask = save(tmp_path / "mask.nii", np.zeros((3, 4, 6), np.uint8), np.eye(4))

    with pytest.raises(DatasetError, match="6x4x3 voxels .* instead of 5x4x3 voxels"):
        nifti.read_mask(mask, case="a", like=nifti.read_grid(image, case="a"), labels=range(2))


def test_rounding_in_the_affine_of_a_mask_is_no_other_grid(tmp_path: pathlib.Path) -> None:
    image = save(tmp_path / "image.nii", np.zeros((3, 3, 3), np.uint8), np.eye(4))
    mask = save(tmp_path / "mask.nii", np.zeros((3, 3, 3), np.uint8), np.eye(4) * 1.001)

    read = nifti.read_mask(mask, case="a", like=nifti.read_grid(image, case="a"), labels=range(2))

    assert read.shape == (1, 3, 3, 3)


@needs_real_data
@pytest.mark.parametrize("case", ["openkbp_pt_1", "openkbp_pt_112", "openkbp_pt_48"])
def test_the_parotids_lie_on_their_sides(case: str) -> None:
    image = f"{REAL_DATA}/openkbp_oar/imagesTr/{case}_0000.nii.gz"
    label = f"{REAL_DATA}/openkbp_oar/labelsTr/{case}.nii.gz"
    volume = nifti.read_scan(image, case=case)
    mask = nifti.read_mask(label, case=case, like=grid_lib.Grid.of(volume), labels=range(6))

    right, left, mandible, cord = (center_of(mask[0] == value, volume) for value in (3, 4, 5, 2))

    assert right[0] > left[0] + 40  # RAS+ world: x grows to the right
    assert mandible[1] > cord[1] + 20  # y grows to the front
    columns = [(mask[0] == value).nonzero()[:, 2].float().mean() for value in (3, 4)]
    assert columns[0] < columns[1]  # W grows to the left


def center_of(structure: torch.Tensor, volume: eva_tv_tensors.Volume) -> npt.NDArray[np.float64]:
    """Returns the RAS+ world position of the middle of a structure in mm."""
    index = structure.nonzero().double().mean(dim=0)
    return np.asarray(volume.affine) @ [*index.tolist(), 1.0]
