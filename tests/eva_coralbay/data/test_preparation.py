"""Tests the preparation of scans in memory."""

import numpy as np
import pytest
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import preparation, resampling

_AFFINE = grid_lib.straight_affine((2.5, 0.8, 1.2), (10.0, -20.0, 30.0))


def _volume(
    array: np.ndarray | torch.Tensor, affine: np.ndarray = _AFFINE
) -> eva_tv_tensors.Volume:
    return eva_tv_tensors.Volume(torch.as_tensor(array)[None], affine=torch.from_numpy(affine))


def _scan(seed: int = 0) -> tuple[eva_tv_tensors.Volume, tv_tensors.Mask]:
    """A box of noise in air, and labels some of which lie outside of it."""
    random = np.random.default_rng(seed)
    shape = random.integers(6, 24, size=3)
    hounsfield = random.normal(-900, 30, shape)
    labels = np.zeros(shape, dtype=np.uint8)
    for array, values in ((hounsfield, (-200, 300)), (labels, (1, 4))):
        first = random.integers(0, shape)
        box = tuple(slice(a, a + b) for a, b in zip(first, random.integers(1, 9, 3), strict=True))
        array[box] = random.integers(*values, array[box].shape)
    return _volume(hounsfield.astype(np.float32)), tv_tensors.Mask(torch.from_numpy(labels)[None])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(1.5, 1.5, 1.5), (5.0, 0.4, 1.2), (2.5, 0.8, 1.2)]))
def test_it_is_the_body_of_the_whole_resampled_scan(
    seed: int, spacing: tuple[float, float, float]
) -> None:
    volume, mask = _scan(seed)
    image = resampling.resample(volume, spacing)
    labels = resampling.resample_mask(mask, volume, spacing)
    foreground = ((image > -175) | (labels > 0))[0].as_subclass(torch.Tensor).numpy()
    if not foreground.any():
        return
    first, last = np.argwhere(foreground).min(axis=0), np.argwhere(foreground).max(axis=0)
    box = tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))

    scan = preparation.prepare(volume, mask, preparation.Preparation(spacing))
    assert scan.grid.shape == foreground[box].shape
    expected_image = image[0][box].as_subclass(torch.Tensor)
    torch.testing.assert_close(scan.read_image(scan.whole)[0], expected_image, rtol=1e-6, atol=1e-9)
    assert torch.equal(scan.read_mask(scan.whole)[0], labels[0][box].as_subclass(torch.Tensor))
    expected = np.asarray(image.affine) @ [*first, 1]
    np.testing.assert_allclose(scan.grid.affine @ [0, 0, 0, 1], expected, atol=1e-9)


@pytest.mark.parametrize("tilt", [1e-7, 0.2])
def test_axes_that_are_not_square_to_each_other(tilt: float) -> None:
    """Labels of a slightly tilted gantry are resampled as a whole, the scan is not."""
    volume, mask = _scan(3)
    affine = _AFFINE.copy()
    affine[2, 1] += tilt
    volume = _volume(volume[0].as_subclass(torch.Tensor), affine)
    scan = preparation.prepare(volume, mask, preparation.Preparation((2.5, 1.6, 2.4)))
    image = resampling.resample(volume, (2.5, 1.6, 2.4))
    labels = resampling.resample_mask(mask, volume, (2.5, 1.6, 2.4))
    assert scan.label_counts.sum() == np.prod(scan.grid.shape)
    assert scan.label_counts[1:].sum() == (labels > 0).sum()
    assert torch.isclose(scan.read_image(scan.whole).max(), image.max().as_subclass(torch.Tensor))


@pytest.mark.parametrize("with_mask", [True, False])
def test_air_is_kept_whole(with_mask: bool) -> None:
    volume = _volume(np.full((4, 5, 6), -1000, dtype=np.float32))
    mask = tv_tensors.Mask(torch.zeros((1, 4, 5, 6), dtype=torch.uint8)) if with_mask else None
    scan = preparation.prepare(volume, mask, preparation.Preparation((2.5, 0.8, 1.2)))
    assert scan.grid.shape == (4, 5, 6)


def test_a_body_that_lies_between_the_new_voxels() -> None:
    """What is left is small, but there is something."""
    hounsfield = np.full((4, 40, 6), -1000, dtype=np.float32)
    hounsfield[2, 10, 3] = 1000
    scan = preparation.prepare(
        _volume(hounsfield), None, preparation.Preparation((2.5, 40 * 0.8, 1.2))
    )
    assert min(scan.grid.shape) >= 1


def test_the_counts_and_places_of_the_labels() -> None:
    volume, mask = _scan(1)
    scan = preparation.LoadedScan(
        volume.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor), _AFFINE
    )
    labels = mask.numpy()[0]
    assert scan.label_counts.tolist() == np.bincount(labels.ravel()).tolist()
    for label, count in enumerate(scan.label_counts.tolist()):
        places = [scan.locate(label, index) for index in range(count)]
        assert places == [tuple(place) for place in np.argwhere(labels == label).tolist()]


def test_a_scan_without_labels() -> None:
    volume, _ = _scan()
    scan = preparation.prepare(volume, None, preparation.Preparation((2.5, 0.8, 1.2)))
    assert scan.label_counts.shape == (0,)
    with pytest.raises(ValueError, match="no label map"):
        scan.read_mask(scan.whole)
