"""Tests the train and evaluation pipelines."""

from typing import Any

import numpy as np
import pytest
import torch
from eva.vision.data import transforms as eva_transforms
from eva.vision.data import tv_tensors as eva_tv_tensors
from torchvision import tv_tensors
from torchvision.transforms import v2

from eva_coralbay.data import preparation, transforms

_SPACING = (3.0, 2.0, 1.5)
"""The spacing of the generated scan in mm, as (D, H, W)."""


def _scan(shape: tuple[int, int, int] = (20, 30, 40)) -> eva_tv_tensors.Volume:
    """A body of varied HU in air, on a grid whose axes grow to S, P and L."""
    generator = torch.Generator().manual_seed(0)
    hounsfield = torch.full((1, *shape), -1000.0)
    hounsfield[:, 3:-3, 4:-4, 5:-5] = torch.randn(
        (1, shape[0] - 6, shape[1] - 8, shape[2] - 10), generator=generator
    ).mul(60)
    affine = torch.eye(4)
    affine[:3, :3] = torch.tensor([[0, 0, -_SPACING[2]], [0, -_SPACING[1], 0], [_SPACING[0], 0, 0]])
    return eva_tv_tensors.Volume(hounsfield, affine=affine)


def _mask(shape: tuple[int, int, int] = (20, 30, 40)) -> tv_tensors.Mask:
    labels = torch.zeros((1, *shape), dtype=torch.uint8)
    labels[:, 5:8, 6:12, 7:14] = 1
    labels[:, 12:14, 20:22, 30:32] = 2
    return tv_tensors.Mask(labels)


def _apply(
    transform: transforms.EvalTransform,
    volume: eva_tv_tensors.Volume | None = None,
    mask: tv_tensors.Mask | None = None,
) -> Any:
    """Prepares a scan and its mask as the transform says, and applies it."""
    volume, mask = (_scan(), _mask()) if volume is None else (volume, mask)
    return transform(preparation.prepare(volume, mask, transform.preparation))


def _eva_transform() -> v2.Compose:
    return v2.Compose(
        [
            eva_transforms.Spacing(pixdim=[2.0, 2.0, 2.0]),
            eva_transforms.ScaleIntensityRange(input_range=(-175.0, 250.0), output_range=(0, 1)),
            eva_transforms.CropForeground(),
        ]
    )


def test_eval_equals_eva_pipeline() -> None:
    expected_image, expected_target = _eva_transform()(_scan(), _mask())
    image, target = _apply(transforms.EvalTransform(spacing=(2.0, 2.0, 2.0)))
    assert image.shape == expected_image.shape
    assert torch.equal(target.long(), expected_target.as_subclass(torch.Tensor).long())
    difference = (image - expected_image.as_subclass(torch.Tensor)).abs().max()
    assert difference < 1e-3 / 425, "1e-3 HU in a window of 425 HU"


def test_eval_keeps_labels_outside_the_body() -> None:
    mask = _mask()
    mask[0, 0, 0, 0] = 2
    _, target = _apply(transforms.EvalTransform(spacing=_SPACING), _scan(), mask)
    assert int((target > 0).sum()) == int((mask > 0).sum())


def test_eval_of_empty_air_keeps_the_volume() -> None:
    air = eva_tv_tensors.Volume(torch.full((1, 8, 9, 10), -1000.0), affine=_scan().affine)
    empty = tv_tensors.Mask(torch.zeros((1, 8, 9, 10), dtype=torch.uint8))
    image, _ = _apply(transforms.EvalTransform(spacing=_SPACING), air, empty)
    assert image.shape == (1, 8, 9, 10)


def _train(**kwargs: object) -> transforms.TrainTransform:
    transform = transforms.TrainTransform(
        **{
            "roi_size": (16, 16, 16),
            "spacing": (2.0, 2.0, 2.0),
            "num_samples": 3,
            "mirror_pairs": (),
            **kwargs,
        }
    )
    transform.set_random_state(seed=1)
    return transform


def test_train_draws_crops_of_the_right_kind() -> None:
    images, targets = _apply(_train())
    assert len(images) == len(targets) == 3
    for image, target in zip(images, targets, strict=True):
        assert image.shape == target.shape == (1, 16, 16, 16)
        assert image.dtype == torch.float32 and target.dtype == torch.int64


def test_train_pads_scans_that_are_smaller_than_a_crop() -> None:
    images, targets = _apply(_train(roi_size=(32, 48, 64)))
    assert images[0].shape == targets[0].shape == (1, 32, 48, 64)


def test_train_is_repeatable_by_seed() -> None:
    first, second = (_apply(_train()) for _ in range(2))
    for one, other in zip(first[0] + first[1], second[0] + second[1], strict=True):
        assert torch.equal(one, other)


def test_train_moves_image_and_labels_together() -> None:
    """The labels of the image's own values must still name them after every augmentation."""
    volume = _scan()
    labels = tv_tensors.Mask((volume.as_subclass(torch.Tensor) > 0).to(torch.uint8))
    transform = transforms.TrainTransform(
        roi_size=(16, 16, 16), spacing=_SPACING, num_samples=40, mirror_pairs=()
    )
    transform.set_random_state(seed=0)
    images, targets = _apply(transform, volume, labels)
    threshold = 175.0 / 425.0
    agreements = [
        float(((image > threshold) == (target > 0)).float().mean())
        for image, target in zip(images, targets, strict=True)
    ]
    assert np.median(agreements) == 1.0, "crops without a shift of the intensities agree exactly"
    assert min(agreements) > 0.6


def test_train_draws_every_class() -> None:
    transform = _train(num_samples=60, roi_size=(2, 2, 2))
    _, targets = _apply(transform)
    seen = {int(value) for target in targets for value in target.unique()}
    assert seen == {0, 1, 2}


def test_train_follows_class_ratios() -> None:
    transform = _train(num_samples=40, roi_size=(1, 1, 1), class_ratios=[0, 1, 0])
    _, targets = _apply(transform)
    assert {int(target) for target in targets} == {1}


def test_train_refuses_too_few_class_ratios() -> None:
    with pytest.raises(ValueError, match="one ratio per class"):
        _apply(_train(class_ratios=[1, 1]))


def test_train_keeps_the_shape_of_crops_that_are_not_square() -> None:
    images, _ = _apply(_train(roi_size=(8, 12, 16), num_samples=60))
    assert {tuple(image.shape) for image in images} == {(1, 8, 12, 16)}


@pytest.mark.parametrize(
    "arguments", [{"spacing": (1.0, 0.0, 1.0)}, {"spacing": (1.0,)}, {"hu_window": (250, -175)}]
)
def test_refuses_bad_arguments(arguments: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        transforms.EvalTransform(**arguments)


_SIZE = 9
"""The edge of the coded scans and of their crops, whose middle voxel no flip and turn moves."""

_CORNERS = ((0, 0, 0), (8, 0, 0), (0, 8, 0), (0, 0, 8))
"""Voxels of a coded scan that say where its axes point: the origin and the end of each axis."""


def _coded_scan() -> preparation.LoadedScan:
    """A scan of one crop whose middle voxel has label 1, and whose corners have labels 2 to 5."""
    mask = torch.zeros((1, _SIZE, _SIZE, _SIZE), dtype=torch.uint8)
    mask[0, 4, 4, 4] = 1
    for label, corner in enumerate(_CORNERS, start=2):
        mask[(0, *corner)] = label
    image = torch.full(mask.shape, -100.0)
    image[0, 4, 4, 4] = 100.0
    return preparation.LoadedScan(image, mask, np.eye(4))


def _draw_coded(
    num_samples: int = 400, mirror_pairs: transforms.MirrorPairs | None = ()
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    transform = transforms.TrainTransform(
        roi_size=(_SIZE,) * 3,
        num_samples=num_samples,
        hu_window=(-100.0, 100.0),
        mirror_pairs=mirror_pairs,
    )
    transform.set_random_state(seed=0)
    return transform(_coded_scan())


def _axes(target: torch.Tensor) -> np.ndarray:
    """Returns where the axes of a coded scan point in a crop, one a column, as -1, 0 and 1."""
    origin, *ends = (torch.argwhere(target[0] == label)[0].numpy() for label in (2, 3, 4, 5))
    return np.stack([(end - origin) // (_SIZE - 1) for end in ends], axis=1)


def test_train_flips_each_axis_and_turns_in_the_axial_plane_alone() -> None:
    orientations = [_axes(target) for target in _draw_coded()[1]]
    flipped = [[matrix[axis, axis] < 0 for axis in range(3)] for matrix in orientations]
    for matrix in orientations:
        assert abs(matrix[0, 0]) == 1, "the axis of the patient stays one"
        assert np.array_equal(np.abs(matrix).sum(axis=0), [1, 1, 1])
    quarter_turns = sum(matrix[1, 1] == 0 for matrix in orientations)
    assert 10 <= quarter_turns <= 50, "two thirds of 10 %"
    assert all(15 <= count <= 85 for count in np.sum(flipped, axis=0))


def test_train_swaps_the_labels_of_pairs_in_mirror_images_only() -> None:
    """A mirror image reverses the handedness of the axes; turns and pairs of flips do not."""
    _, plain = _draw_coded()
    _, swapped = _draw_coded(mirror_pairs=[(3, 4)])
    mirrored = [round(float(np.linalg.det(_axes(target)))) == -1 for target in plain]
    assert 60 <= sum(mirrored) <= 140, "24.4 % of 400"
    for kept, target, is_mirrored in zip(plain, swapped, mirrored, strict=True):
        expected = transforms.swap_labels(kept, [(3, 4)]) if is_mirrored else kept
        assert torch.equal(target, expected)
        assert torch.equal(kept, target) != is_mirrored


def test_train_makes_no_mirror_image_where_there_are_no_labels_for_it() -> None:
    targets = _draw_coded(mirror_pairs=None)[1]
    determinants = [round(float(np.linalg.det(_axes(target)))) for target in targets]
    assert set(determinants) == {1}
    assert any(matrix[0, 0] < 0 for matrix in map(_axes, targets)), "two flips are a rotation"


def test_train_scales_and_shifts_the_intensities() -> None:
    images = _draw_coded()[0]
    shifts = np.array([float(image[0, 0, 0, 0]) for image in images])
    scales = np.array([float(image[0, 4, 4, 4]) for image in images]) - shifts
    for drawn in (shifts, scales - 1):
        happened = np.abs(drawn) > 1e-6
        assert 20 <= happened.sum() <= 60, "10 % of 400"
        assert np.abs(drawn).max() <= 0.1 + 1e-6
        assert drawn.min() < -0.05 and drawn.max() > 0.05
    assert not np.array_equal(shifts != 0, np.abs(scales - 1) > 1e-6)


@pytest.mark.parametrize("size", [5, 6])
def test_train_centers_crops_on_the_drawn_voxel(size: int) -> None:
    """The voxel lies at `size // 2`, and where the scan ends the crop is moved inside it."""
    middle, corner = _usual_position(1, size), _usual_position(3, size)
    assert middle == (size // 2,) * 3
    assert corner == (size - 1, 0, 0)


def _usual_position(label: int, size: int) -> tuple[int, ...]:
    """Where the voxel of a label lies in most of the crops that are centered on it."""
    ratios = [float(value == label) for value in range(6)]
    transform = transforms.TrainTransform(
        roi_size=(size,) * 3, num_samples=50, class_ratios=ratios, mirror_pairs=None
    )
    transform.set_random_state(seed=1)
    _, targets = transform(_coded_scan())
    positions = [tuple(torch.argwhere(target[0] == label)[0].tolist()) for target in targets]
    return max(positions, key=positions.count)


def test_swapping_twice_changes_nothing() -> None:
    mask = torch.randint(0, 6, (1, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    pairs = [(1, 4), (2, 3)]
    once = transforms.swap_labels(mask, pairs)
    assert torch.equal(transforms.swap_labels(once, pairs), mask)
    assert [int((once == label).sum()) for label in range(6)] == [
        int((mask == label).sum()) for label in (0, 4, 3, 2, 1, 5)
    ]
