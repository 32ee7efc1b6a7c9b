"""Tests of what makes the input of a classification."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from eva.vision.data.datasets.classification import luna25 as eva_luna25

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import nifti_image, volume_transforms
from tests.eva_coralbay.data.datasets import classification_layouts as layouts


def _volume(array: npt.NDArray[Any], spacing: Any = (1.25, 0.7, 0.7)) -> eva_tv_tensors.Volume:
    affine = grid_lib.straight_affine(spacing, (-100.0, 20.0, 30.0))
    return eva_tv_tensors.Volume(
        torch.from_numpy(array[None].astype(np.float32)), affine=torch.from_numpy(affine)
    )


def _noise(*shape: int) -> npt.NDArray[np.int16]:
    return np.random.default_rng(0).integers(-1200, 600, shape, dtype=np.int16)


@pytest.mark.parametrize("shape", [(5, 6, 7), (40, 64, 20), (8, 8, 8)])
def test_whole_volumes_of_any_shape_get_the_size(shape: Any) -> None:
    volume = _volume(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    image = volume_transforms.ResizeTransform(size=(8, 8, 8))(volume)
    assert type(image) is torch.Tensor
    assert image.shape == (1, 8, 8, 8)
    assert image.dtype == torch.float32
    assert 0.0 <= image.min() < image.max() <= 1.0
    assert image.mean() == pytest.approx(volume.float().mean().item() / 255, abs=0.05)


def test_resizing_averages_where_it_shrinks() -> None:
    array = np.arange(4 * 4 * 2).reshape(4, 4, 2).astype(np.uint8)
    image = volume_transforms.ResizeTransform(size=(2, 2, 2))(_volume(array))
    expected = array.reshape(2, 2, 2, 2, 2).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(image[0], expected, rtol=1e-6)


def test_a_volume_of_the_size_stays_as_it_is() -> None:
    array = np.random.default_rng(0).integers(0, 256, (4, 5, 6), dtype=np.uint8)
    image = volume_transforms.ResizeTransform(size=(4, 5, 6))(_volume(array))
    np.testing.assert_allclose(image[0], array / np.float32(255), atol=1e-6)


def test_crops_equal_the_challenges() -> None:
    """eva's copy of the official code is the oracle; it rounds to whole HU."""
    block = _noise(64, 128, 128)
    metadata = layouts.metadata()
    expected = eva_luna25._clip_and_scale(
        eva_luna25._extract_patch(
            ct_data=block,
            coord=(32, 64, 64),
            src_voxel_origin=metadata["origin"],
            src_world_matrix=metadata["transform"],
            src_voxel_spacing=metadata["spacing"],
            mode="3D",
        ).astype(np.float32)
    )
    image = volume_transforms.CropTransform()(_volume(block))
    assert image.shape == (1, 64, 64, 64) and image.dtype == torch.float32
    np.testing.assert_allclose(image, expected, atol=1.01 / 1400)


def test_outside_of_the_scan_is_air() -> None:
    image = volume_transforms.CropTransform(size=(9, 9, 9), size_mm=(90.0, 9.0, 9.0))(
        _volume(np.full((9, 9, 9), 400, dtype=np.int16), spacing=(1.0, 1.0, 1.0))
    )
    assert (image[0, 0] == 0).all() and (image[0, -1] == 0).all()
    assert image[0, 4].min() == 1


@pytest.mark.parametrize("orientation", ["SPL", "IAR", "LPS", "RSA"])
def test_the_axes_of_the_file_do_not_matter(orientation: str) -> None:
    """Only the box around the middle voxel counts, which is the same voxel for odd lengths."""
    array = _noise(21, 23, 25)
    volume = _volume(array)
    transform = volume_transforms.CropTransform(size=(6, 6, 6), size_mm=(9.0, 6.0, 3.0))
    stored = nifti_image.as_nifti(
        array,
        grid_lib.Grid.of(volume).affine,
        orientation=orientation,  # codes of the file
    )
    turned = eva_tv_tensors.Volume(
        torch.from_numpy(np.asarray(stored.dataobj, dtype=np.float32)[None]),
        affine=torch.from_numpy(stored.affine),
    )
    torch.testing.assert_close(transform(turned), transform(volume), atol=1e-4, rtol=0)


def test_rotations_turn_about_the_nodule() -> None:
    """The middle voxel stays where it is, and the rest moves without being stretched."""
    volume = _volume(layouts.nodule_block(bright=400), spacing=(1.0, 1.0, 1.0))
    arguments: Any = {"size": (33, 33, 33), "size_mm": (33.0, 33.0, 33.0)}
    rotating = volume_transforms.CropTransform(**arguments, max_rotation=20.0)
    rotating.set_random_state(0)
    still = volume_transforms.CropTransform(**arguments)(volume)
    images = [rotating(volume) for _ in range(5)]
    assert not torch.equal(images[0], images[1])
    center = _center_of_mass(still)
    np.testing.assert_allclose(center, 16, atol=1e-4)
    for image in images:
        assert not torch.equal(image, still)
        assert image.sum() == pytest.approx(still.sum().item(), rel=0.01)
        np.testing.assert_allclose(_center_of_mass(image), center, atol=0.02)


def _center_of_mass(image: torch.Tensor) -> npt.NDArray[np.float64]:
    """Returns the mean position of what is brighter than the lung around the nodule."""
    weights = (image[0].double() - image.min()).numpy()
    return np.array([np.average(index, weights=weights) for index in np.indices(weights.shape)])


def test_rotations_follow_from_the_random_state() -> None:
    transform = volume_transforms.CropTransform(size=(8, 8, 8), max_rotation=20.0)
    volume = _volume(_noise(64, 128, 128))
    first = transform.set_random_state(3)(volume)  # type: ignore[reportCallIssue]  # MONAI annotates its return as Randomizable
    assert torch.equal(first, transform.set_random_state(3)(volume))  # type: ignore  # MONAI annotates its return as Randomizable
    assert not torch.equal(first, transform(volume))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (0, 8, 8)}, "`size` must be three positive"),
        ({"size": (8, 8)}, "`size` must be three positive"),
        ({"size_mm": (0.0, 1.0, 1.0)}, "`size_mm` must be three positive"),
        ({"hu_window": (400.0, -1000.0)}, r"window must be \(lowest, highest\)"),
    ],
)
def test_impossible_arguments_are_rejected(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        volume_transforms.CropTransform(**arguments)
