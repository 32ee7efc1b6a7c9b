"""Tests the descriptions of encoders and transforms."""

from typing import Any

import pytest
from torch import nn

from eva_coralbay import _object_description
from eva_coralbay.data import volume_transforms
from eva_coralbay.evaluation import run_module
from eva_coralbay.models import encoder


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


def test_the_patch_merging_counts_although_the_weights_are_the_same() -> None:
    octants, legacy = (
        run_module.describe_layers(encoder.CoralBayEncoder(12, patch_merging=variant))
        for variant in ("octants", "legacy")
    )

    assert octants != legacy
    assert (octants["patch_merging"], legacy["patch_merging"]) == ("octants", "legacy")


def test_layers_count_but_not_whether_they_train() -> None:
    network = nn.Sequential(nn.Conv3d(1, 1, 3))
    before = run_module.describe_layers(network)

    assert run_module.describe_layers(network.eval()) == before
    assert run_module.describe_layers(nn.Sequential(nn.Conv3d(1, 1, 3, stride=2))) != before
