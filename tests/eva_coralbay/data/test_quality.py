"""Tests what counts as a CT scan; `test_intake` has the reasons for volumes that do not."""

import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import nifti, quality
from tests.eva_coralbay.pretraining import scans


def _find_problem(
    array: npt.NDArray[Any],
    *,
    spacing: Sequence[float] = scans.SPACING,
    resampled: Sequence[float] = (1.5, 1.5, 1.5),
) -> str | None:
    affine = torch.from_numpy(grid_lib.straight_affine(spacing, (0.0, 0.0, 0.0)))
    volume = eva_tv_tensors.Volume(torch.from_numpy(array[None]).float(), affine=affine)
    problem = quality.find_problem(volume, quality.measure(volume), spacing=resampled)
    return problem or quality.find_lack(grid_lib.Grid.of(volume))


def test_measures_hounsfield() -> None:
    array = np.arange(-1000.0, 3096.0).reshape(16, 16, 16)
    volume = eva_tv_tensors.Volume(torch.from_numpy(array[None]).float(), affine=torch.eye(4))
    statistics = quality.measure(volume)
    assert (statistics.minimum, statistics.maximum) == (-1000.0, 3095.0)
    assert statistics.mean == pytest.approx(1047.5)
    assert statistics.percentile_1 == pytest.approx(-959, abs=300)
    assert statistics.percentile_99 == pytest.approx(3054, abs=300)


@pytest.mark.parametrize("padding", [-1000, -1024, -2000, -3024, -32768])
def test_takes_any_value_of_air_and_padding(padding: int) -> None:
    array = scans.hounsfield().astype(np.int32)
    array[array == -1000] = padding
    assert _find_problem(array) is None


def test_takes_a_little_metal() -> None:
    array = scans.hounsfield()
    array[7, 12, 8:12] = 20000
    assert _find_problem(array) is None


def test_takes_whole_values_that_are_few() -> None:
    assert _find_problem(scans.hounsfield() // 50 * 50) is None


def test_takes_a_scan_inside_the_body_but_not_one_with_next_to_no_body() -> None:
    array = scans.hounsfield()
    assert _find_problem(array[2:-2, 6:-6, 4:-4], spacing=(3.0, 3.0, 3.0)) is None
    array[:7] = array[8:] = array[:, :12] = array[:, 13:] = -1000
    assert str(_find_problem(array)).startswith("empty, or not HU: 0.")


@pytest.mark.parametrize(
    ("spacing", "problem"),
    [
        ((2.6, 2.6, 2.6), None),
        ((2.4, 2.6, 2.6), "too small: 10x10x10 voxels, 24x26x26 mm"),
        ((2.6, 2.6, 2.4), "too small: 10x10x10 voxels, 26x26x24 mm"),
    ],
)
def test_needs_an_extent(spacing: Sequence[float], problem: str | None) -> None:
    found = _find_problem(scans.hounsfield(shape=(10, 10, 10)), spacing=spacing)
    assert found == problem if problem is None else str(found).startswith(problem)


def test_needs_voxels() -> None:
    problem = _find_problem(scans.hounsfield(shape=(9, 20, 20)), spacing=(10.0, 3.0, 3.0))
    assert str(problem).startswith("too small: 9x20x20 voxels, 90x60x60 mm (D, H, W)")


@pytest.mark.parametrize(
    ("spacing", "problem"),
    [
        ((290.0, 3.0, 3.0), None),
        ((310.0, 3.0, 3.0), "10x10x10 voxels, 3100x30x30 mm (D, H, W); at most 3000 mm are poss"),
        ((100.0, 200.0, 91.0), "10x10x10 voxels, 1000x2000x910 mm (D, H, W), would be 539,259,259"),
        ((100.0, 200.0, 90.0), None),
    ],
)
def test_is_not_larger_than_anybody(spacing: Sequence[float], problem: str | None) -> None:
    found = _find_problem(scans.hounsfield(shape=(10, 10, 10)), spacing=spacing)
    if problem is None:
        assert found is None
    else:
        assert str(found).startswith(f"too large: {problem}") and "not in mm?" in str(found)


def test_is_not_too_large_for_the_spacing() -> None:
    array = scans.hounsfield(shape=(10, 10, 10))
    spacing = (50.0, 50.0, 50.0)
    assert _find_problem(array, spacing=spacing, resampled=(0.6, 0.6, 0.7)) is None
    problem = str(_find_problem(array, spacing=spacing, resampled=(0.6, 0.6, 0.6)))
    assert "would be 578,703,704 voxels at 0.6x0.6x0.6 mm" in problem
    assert "choose a larger one to resample to" in problem


@pytest.mark.parametrize("labels", [2, 14, 120])
def test_tells_a_label_map_from_a_scan(labels: int) -> None:
    blocks = np.random.default_rng(0).integers(0, labels, (4, 4, 4))
    label_map = np.kron(blocks, np.ones((8, 8, 8), dtype=int))
    assert str(_find_problem(label_map)).startswith("looks like a label map")
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 32))
    assert str(_find_problem(noise)).startswith("not HU")


def _inverted(scan: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return -scan


def _ten_times(scan: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 10 * np.where(scan == -1000, -1000 + 20 * np.random.default_rng(0).random(), scan)


def _without_intercept_but_with_padding(
    scan: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    padded = scan + 1024
    padded[:, :2] = -2000
    return padded


def _normalized_but_with_padding(scan: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    normalized = (scan - scan.mean()) / scan.std()
    normalized[:3] = -1024
    return normalized


def _magnetic_resonance(scan: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Intensities from 0 to about 800, but a little below 0 from an interpolation."""
    return 0.7 * (scan + 1000) + np.random.default_rng(0).normal(0, 4, scan.shape)


def _corrected_for_its_bias(scan: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return _magnetic_resonance(scan) - 20


def _signed_bytes(scan: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.rint(np.clip((scan + 175) / 425, 0, 1) * 255 - 128)


def _all_but_one_voxel_equal(scan: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    equal = np.zeros_like(scan)
    equal[1, 1, 1] = -1000
    return equal


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_inverted, "is it inverted"),
        (_ten_times, "multiplied|as dense as bone"),
        (_without_intercept_but_with_padding, "was the intercept left out"),
        (_normalized_but_with_padding, "a range as of normalized values"),
        (_magnetic_resonance, "or is it MR"),
        (_corrected_for_its_bias, "or is it MR"),
        (_signed_bytes, "8 bits with a sign|normalized"),
        (_all_but_one_voxel_equal, "constant|normalized"),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_few_values_below_0_do_not_make_hounsfield_of_others(
    change: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]], problem: str, seed: int
) -> None:
    scan = scans.hounsfield(seed=seed, shape=(24, 30, 30)).astype(np.float64)

    assert _find_problem(scan, spacing=(3.0, 3.0, 3.0)) is None
    assert re.search(problem, str(_find_problem(change(scan), spacing=(3.0, 3.0, 3.0))))


@pytest.mark.parametrize("window", [(-175, 250), (-100, 240), (-1000, 400)])
def test_takes_hounsfield_that_are_clipped_to_a_window(window: tuple[float, float]) -> None:
    assert _find_problem(scans.hounsfield().clip(*window)) is None


def _find_doubt(array: npt.NDArray[Any]) -> str | None:
    volume = torch.from_numpy(np.ascontiguousarray(array[None])).float()
    return quality.find_doubt(eva_tv_tensors.Volume(volume, affine=torch.eye(4)))


def _body(*, fat: float = 0.3, seed: int = 0) -> npt.NDArray[np.float64]:
    """Fat and muscles, a tenth of lung, and air with padding around them."""
    rng = np.random.default_rng(seed)
    shape = (24, 30, 30)
    tissue = np.where(rng.random(shape) < fat, -100.0, 50.0)
    scan = np.where(rng.random(shape) < 0.1, -850.0, tissue) + rng.normal(0, 15, shape)
    scan[:, :4] = rng.normal(-995, 10, (24, 4, 30))
    scan[:, :, :2] = -3024.0
    return scan


@pytest.mark.parametrize("fat", [0.05, 0.3, 0.7])
def test_a_scan_is_not_doubted_and_neither_is_a_part_of_it(fat: float) -> None:
    scan = _body(fat=fat)
    parts = (scan, scan[:, 6:], scan.clip(-175, 250), scan.clip(-1000, 400), scan[:, 6:].clip(-200))
    assert [_find_doubt(part) for part in parts] == [None] * len(parts)
    assert _find_doubt(np.full((10, 10, 10), 30.0)) is None


@pytest.mark.parametrize(
    ("factor", "shift", "doubt"),
    [
        (0.5, 0, "gas has about -506 HU"),
        (2, 0, "gas has about -19"),
        (1, -200, "gas has about -1186 HU"),
        (1, 100, "soft tissue has about 14"),
        (1, -150, "gas has about -1150|soft tissue has about -1"),
    ],
)
def test_multiplied_and_shifted_hounsfield_are_doubted(
    factor: float, shift: float, doubt: str
) -> None:
    scan = factor * _body() + shift
    assert _find_problem(scan, spacing=(3.0, 3.0, 3.0)) is None
    assert re.search(doubt, str(_find_doubt(scan)))


def _real_scans() -> list[pathlib.Path]:
    root = os.environ.get("EVA_CORALBAY_REAL_DATA")
    folder = pathlib.Path(root or "/nowhere") / "openkbp_oar" / "imagesTr"
    return sorted(folder.glob("*.nii.gz"))[:6]


@pytest.mark.skipif(not _real_scans(), reason="EVA_CORALBAY_REAL_DATA names no scans")
def test_tells_real_scans_from_what_becomes_of_them() -> None:
    for path in _real_scans():
        scan = nifti.read_scan(str(path), case="a").numpy()[0].astype(np.float64)
        assert _find_problem(scan) is None
        for change in (_inverted, _ten_times, _without_intercept_but_with_padding):
            assert "not HU" in str(_find_problem(change(scan)))
        for change in (_normalized_but_with_padding, _magnetic_resonance):
            assert "not HU" in str(_find_problem(change(scan)))
        assert _find_doubt(scan) is None
        for change in (2 * scan, scan - 300):
            assert _find_doubt(change) is not None


def _all_real_scans() -> list[pathlib.Path]:
    """Of head and neck, chest, abdomen and limbs, with contrast and without, and crops of them."""
    root = pathlib.Path(os.environ.get("EVA_CORALBAY_REAL_DATA") or "/nowhere")
    return [*_real_scans(), *sorted(root.glob("ct/*/image.nii.gz"))]


@pytest.mark.skipif(not _all_real_scans(), reason="EVA_CORALBAY_REAL_DATA names no scans")
def test_no_real_scan_is_doubted() -> None:
    for path in _all_real_scans():
        scan = nifti.read_scan(str(path), case="a").numpy()[0, ::2]
        noise = np.random.default_rng(0).normal(0, 60, scan.shape)
        for version in (scan, scan + noise, scan.clip(-175, 250)):
            assert _find_doubt(version) is None, path
