"""Tests the descriptions of transforms."""

from typing import Any

import pytest

from eva_coralbay.data import _object_description, volume_transforms


@pytest.mark.parametrize(
    "other",
    [
        {"size": (32, 64, 64)},
        {"size_mm": (60.0, 50.0, 50.0)},
        {"hu_window": (-1000.0, 500.0)},
        {"max_rotation": 5.0},
    ],
)
def test_every_argument_of_a_transform_counts(other: Any) -> None:
    first, again, changed = (
        _object_description.describe(volume_transforms.CropTransform(**arguments))
        for arguments in ({}, {}, other)
    )

    assert first == again != changed
    assert first["class"] == "eva_coralbay.data.volume_transforms.CropTransform"
