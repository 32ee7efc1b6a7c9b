"""Tests of resampling to another spacing."""

import os

import numpy as np
import numpy.typing as npt
import pytest
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from eva.vision.data.datasets.segmentation import _utils as eva_utils
from eva.vision.data.transforms import spatial as eva_spatial
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import nifti, resampling
from tests.eva_coralbay.data.volumes import assert_holds_world_content, rotation, world_content

REAL_DATA = os.environ.get("EVA_CORALBAY_REAL_DATA")

needs_real_data = pytest.mark.skipif(
    not REAL_DATA, reason="EVA_CORALBAY_REAL_DATA does not name a folder with real CT"
)

SPACINGS = (0.5, 0.75, 0.796875, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.906, 5.0)
"""Voxel sizes in mm; many of their ratios put new voxels halfway between two old ones."""


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
    volume, mask = random_case(shape, grid_lib.straight_affine(old, origin), seed=seed)

    expected_volume, expected_mask = eva_spatial.Spacing(pixdim=new)(volume, mask)

    assert_close(resampling.resample(volume, new), expected_volume)
    assert torch.equal(resampling.resample_mask(mask, volume, new).long(), expected_mask)


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
    affine = rotation(angles) @ grid_lib.straight_affine(old, (10.0, -20.0, 30.0))
    volume, mask = random_case(shape, affine, seed=seed)

    expected_volume, expected_mask = eva_spatial.Spacing(pixdim=new)(volume, mask)

    assert_close(resampling.resample(volume, new), expected_volume)
    assert torch.equal(resampling.resample_mask(mask, volume, new).long(), expected_mask)


def test_ties_between_voxels_of_rotated_scans_are_decided_as_by_eva() -> None:
    affine = rotation((0.0, 0.25, 0.0)) @ grid_lib.straight_affine((2.0, 1.0, 1.0), (10, -20, 30))
    volume, mask = random_case((20, 2, 9), affine, seed=0)

    _, expected_mask = eva_spatial.Spacing(pixdim=(1.0, 1.0, 0.75))(volume, mask)

    assert torch.equal(
        resampling.resample_mask(mask, volume, (1.0, 1.0, 0.75)).long(), expected_mask
    )


def test_resampling_of_a_tilted_gantry_equals_eva() -> None:
    affine = grid_lib.straight_affine((5.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    affine[1, 0] = 5.0 * np.tan(np.deg2rad(15.0))
    volume, mask = random_case((9, 24, 20), affine, seed=0)

    expected_volume, expected_mask = eva_spatial.Spacing(pixdim=(2.0, 1.5, 1.5))(volume, mask)

    assert_close(resampling.resample(volume, (2.0, 1.5, 1.5)), expected_volume)
    resampled_mask = resampling.resample_mask(mask, volume, (2.0, 1.5, 1.5))
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
    affine = rotation(angles) @ grid_lib.straight_affine((2.0, 1.0, 1.5), (10.0, -20.0, 30.0))
    content = torch.from_numpy(world_content(shape, affine))
    volume = eva_tv_tensors.Volume(content[None], affine=torch.from_numpy(affine))

    resampled = resampling.resample(volume, new)

    assert resampled.affine is not None
    np.testing.assert_allclose(grid_lib.spacing(resampled.affine), new, atol=1e-3)
    depth, height, width = (length - 1 for length in resampled.shape[1:])
    inside = resampled[:, :depth, :height, :width]  # the last voxels may lie outside
    inside = eva_tv_tensors.Volume(inside, affine=resampled.affine)
    assert_holds_world_content(inside, atol=1e-2)


@pytest.mark.parametrize("new", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0)])
def test_a_spacing_that_is_none_is_an_error(new: tuple[float, ...]) -> None:
    volume, _ = random_case((3, 3, 3), np.eye(4), seed=0)

    with pytest.raises(ValueError, match="three positive numbers"):
        resampling.resample(volume, new)


def test_a_scan_of_the_wanted_spacing_is_left_alone() -> None:
    affine = grid_lib.straight_affine((1.5, 1.5, 1.5004), (0.0, 0.0, 0.0))
    volume, mask = random_case((5, 6, 7), affine, seed=0)

    resampled = resampling.resample(volume, (1.5, 1.5, 1.5))

    assert torch.equal(resampled, volume)
    assert torch.equal(resampling.resample_mask(mask, volume, (1.5, 1.5, 1.5)), mask)


def test_resampling_does_not_change_its_input() -> None:
    affine = grid_lib.straight_affine((2.0, 1.5, 3.0), (0.0, 0.0, 0.0))
    volume, _ = random_case((5, 6, 7), affine, seed=0)
    before = volume.clone()

    resampling.resample(volume, (1.5, 1.5, 1.5))

    assert torch.equal(volume, before)


def test_resampling_is_exact_when_matrix_products_are_not() -> None:
    affine = grid_lib.straight_affine((2.0, 1.7, 0.8), (0.0, 0.0, 0.0))
    volume, _ = random_case((30, 40, 50), affine, seed=0)
    expected = resampling.resample(volume, (1.5, 1.5, 1.5))
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(resampling.resample(volume, (1.5, 1.5, 1.5)), expected)
    finally:
        torch.set_float32_matmul_precision(precision)


@needs_real_data
@pytest.mark.parametrize("case", ["openkbp_pt_1", "openkbp_pt_112", "openkbp_pt_48"])
def test_real_scans_are_read_and_resampled_as_by_eva(case: str) -> None:
    image = f"{REAL_DATA}/openkbp_oar/imagesTr/{case}_0000.nii.gz"
    label = f"{REAL_DATA}/openkbp_oar/labelsTr/{case}.nii.gz"
    eva_volume = eva_utils.load_volume_tensor(image)
    eva_mask = eva_utils.load_mask_tensor(label, image)

    volume = nifti.read_scan(image, case=case)
    mask = nifti.read_mask(label, case=case, like=grid_lib.Grid.of(volume), labels=range(6))

    assert torch.equal(volume[0], eva_volume[:, 0])
    assert torch.equal(mask[0].long(), eva_mask[:, 0])
    np.testing.assert_allclose(np.asarray(volume.affine), np.asarray(eva_volume.affine), atol=1e-4)
    expected_volume, expected_mask = eva_spatial.Spacing(pixdim=(3.0, 3.0, 3.0))(
        eva_tv_tensors.Volume(eva_volume.transpose(0, 1), affine=eva_volume.affine),
        tv_tensors.Mask(eva_mask.transpose(0, 1)),
    )
    assert_close(resampling.resample(volume, (3.0, 3.0, 3.0)), expected_volume)
    resampled_mask = resampling.resample_mask(mask, volume, (3.0, 3.0, 3.0))
    assert torch.equal(resampled_mask.long(), expected_mask)


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
