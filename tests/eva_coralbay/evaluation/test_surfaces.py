"""Tests the distances of surfaces against other implementations and the definition itself."""

import os
import pathlib
import warnings

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import surface_distance
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai import metrics as monai_metrics
from scipy import ndimage
from scipy.spatial import distance

from eva_coralbay.evaluation import surfaces

_Mask = npt.NDArray[np.bool_]


def _pair(seed: int) -> tuple[_Mask, _Mask, tuple[float, float, float]]:
    """A random smooth segmentation, another one near it, and a random spacing."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(4, 24, size=3)
    sigma, level = rng.uniform(0.5, 3.0), rng.uniform(-0.01, 0.05)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), sigma)
    other = field + rng.uniform(0, 0.1) * ndimage.gaussian_filter(rng.standard_normal(shape), 1)
    truth, prediction = field > level, other > level
    truth.flat[rng.integers(truth.size)] = prediction.flat[rng.integers(truth.size)] = True
    depth, height, width = rng.uniform(0.4, 6.0, size=3).tolist()
    return truth, prediction, (depth, height, width)


def _by_deepmind(
    truth: _Mask, prediction: _Mask, spacing: tuple[float, float, float], tolerance: float
) -> tuple[float, float]:
    distances = surface_distance.compute_surface_distances(truth, prediction, spacing)
    return (
        surface_distance.compute_surface_dice_at_tolerance(distances, tolerance),
        surface_distance.compute_robust_hausdorff(distances, 95.0),
    )


@pytest.mark.parametrize("seed", range(200))
def test_random_cases_equal_deepminds(seed: int) -> None:
    truth, prediction, spacing = _pair(seed)
    tolerance = float(np.random.default_rng(seed).uniform(0.0, 4.0))
    ours = surfaces.measure(truth, prediction, spacing)
    nsd, hd95 = _by_deepmind(truth, prediction, spacing, tolerance)
    assert ours.nsd(tolerance) == pytest.approx(nsd, abs=1e-7)
    assert ours.hausdorff(95.0) == pytest.approx(hd95, abs=1e-9)


def _real_cases() -> list[pathlib.Path]:
    root = os.environ.get("EVA_CORALBAY_REAL_DATA")
    folder = pathlib.Path(root or "/nowhere") / "openkbp_oar" / "labelsTr"
    return sorted(folder.glob("*.nii.gz"))[:12]


@pytest.mark.skipif(not _real_cases(), reason="EVA_CORALBAY_REAL_DATA names no labeled scans")
def test_organs_of_twelve_patients_equal_deepminds() -> None:
    """Five organs a patient, drawn by clinicians, against a copy that was moved and thinned."""
    for index, path in enumerate(_real_cases()):
        image = nib.load(path)
        labels, spacing = np.asarray(image.dataobj), image.header.get_zooms()
        for label in range(1, 6):
            truth = labels == label
            prediction = np.roll(truth, (index % 3, 1, -(index % 2)), (0, 1, 2))
            if label % 2:
                prediction = ndimage.binary_erosion(prediction)
            if not truth.any() or not prediction.any():
                continue
            ours = surfaces.measure(truth, prediction, spacing)
            nsd, hd95 = _by_deepmind(truth, prediction, spacing, 2.0)
            assert ours.nsd(2.0) == pytest.approx(nsd, abs=1e-6), (path.name, label)
            assert ours.hausdorff(95.0) == pytest.approx(hd95, abs=1e-5), (path.name, label)


@pytest.mark.parametrize("seed", range(10))
def test_nsd_equals_monais(seed: int) -> None:
    truth, prediction, spacing = _pair(seed)
    one_hot = [torch.from_numpy(np.stack([~mask, mask]))[None] for mask in (prediction, truth)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = monai_metrics.compute_surface_dice(
            *one_hot, class_thresholds=[1.5], spacing=spacing, use_subvoxels=True
        )
    assert surfaces.measure(truth, prediction, spacing).nsd(1.5) == pytest.approx(
        float(expected), abs=1e-5
    )


@given(seed=st.integers(1000, 10_000))
@settings(deadline=None, max_examples=15)
def test_distances_are_the_shortest_of_all(seed: int) -> None:
    """By brute force: all elements of one surface against all of the other."""
    truth, prediction, spacing = _pair(seed)
    ours = surfaces.measure(truth, prediction, spacing)
    points = [_elements(mask) * np.array(spacing) for mask in (truth, prediction)]
    table = distance.cdist(points[0], points[1])
    assert ours.truth.distances == pytest.approx(np.sort(table.min(axis=1)), abs=1e-9)
    assert ours.prediction.distances == pytest.approx(np.sort(table.min(axis=0)), abs=1e-9)


def _elements(mask: _Mask) -> npt.NDArray[np.intp]:
    """The corners whose eight neighbors are not all alike, one by one."""
    padded = np.pad(mask, 1)
    corners = np.ndindex(*(length - 1 for length in padded.shape))
    blocks = ((c, padded[c[0] : c[0] + 2, c[1] : c[1] + 2, c[2] : c[2] + 2]) for c in corners)
    return np.array([corner for corner, block in blocks if 0 < block.sum() < 8])


def test_a_box_around_both_is_enough() -> None:
    truth, prediction, spacing = _pair(3)
    near = surfaces.measure(truth, prediction, spacing)
    far = surfaces.measure(np.pad(truth, 5), np.pad(prediction, 5), spacing)
    assert near.nsd(1.0) == pytest.approx(far.nsd(1.0))
    assert near.hausdorff() == pytest.approx(far.hausdorff())


def test_a_shift_by_one_thick_slice_is_as_far_as_the_slice_is_thick() -> None:
    truth = np.zeros((12, 20, 20), dtype=bool)
    truth[3:8, 4:16, 4:16] = True
    shifted = surfaces.measure(truth, np.roll(truth, 1, axis=0), (5.0, 1.0, 1.0))
    assert shifted.hausdorff() == 5.0
    assert 0.3 < shifted.nsd(4.9) < 0.9
    assert shifted.nsd(5.0) == 1.0


@pytest.mark.parametrize("spacing", [0.1, 0.7, 0.3, float(np.float32(0.7))])
@pytest.mark.parametrize("start", range(4))
def test_a_distance_of_just_the_tolerance_counts_wherever_it_lies(
    start: int, spacing: float
) -> None:
    """Three voxels of 0.1 mm are 0.30000000000000004 mm at some places, and less at others."""
    truth, prediction = np.zeros((2, 16, 4, 4), dtype=bool)
    truth[start + 2], prediction[start + 5] = True, True
    distances = surfaces.measure(truth, prediction, (spacing, 1.0, 1.0))

    assert distances.nsd(round(3 * spacing, 6)) == 1.0
    assert distances.nsd(round(3 * spacing, 6) - 0.001) < 1.0


def test_an_empty_mask_has_no_surface() -> None:
    empty, full = np.zeros((3, 3, 3), dtype=bool), np.ones((3, 3, 3), dtype=bool)
    for pair in ((empty, full), (full, empty)):
        with pytest.raises(ValueError, match="empty"):
            surfaces.measure(*pair, (1.0, 1.0, 1.0))
