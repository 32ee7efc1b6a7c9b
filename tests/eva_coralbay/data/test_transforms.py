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
        **{"roi_size": (16, 16, 16), "spacing": (2.0, 2.0, 2.0), "num_samples": 3, **kwargs}
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
    transform = transforms.TrainTransform(roi_size=(16, 16, 16), spacing=_SPACING, num_samples=40)
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
    with pytest.raises(ValueError, match="one ratio a class"):
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
