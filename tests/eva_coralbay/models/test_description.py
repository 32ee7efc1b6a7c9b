"""Tests the descriptions of encoders, which records carry."""

from typing import Any

import pytest
import torch
from eva.vision.models import ModelFromRegistry
from torch import nn

from eva_coralbay.models import CoralBayEncoder, registry
from eva_coralbay.models.description import describe_encoder
from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.results import record


def test_own_encoder() -> None:
    """The description is frozen: records compare its hash, wherever the class lies."""
    encoder = CoralBayEncoder(12, patch_merging="legacy", embeddings_type="head", out_indices=6)

    assert describe_encoder(encoder) == {
        "class_path": "eva_coralbay.CoralBayEncoder",
        "architecture": {"feature_size": 12, "in_channels": 1, "use_v2": True},
        "patch_merging": "legacy",
        "embedding": "head",
        "preprocessing": {},
        "sha256": "b217779e799365b0a2e53d4afd71d6bf8d32c6d77fc81b2bbe44cb06e7e85768",
    }


@pytest.mark.parametrize(
    "other",
    [
        {"patch_merging": "legacy"},
        {"embeddings_type": "head"},
        {"use_v2": False},
        {"in_channels": 2},
    ],
)
def test_what_the_weights_compute_counts(other: dict[str, Any]) -> None:
    encoders = [CoralBayEncoder(12), CoralBayEncoder(12), CoralBayEncoder(12, **other)]
    first, again, changed = (describe_encoder(encoder)["sha256"] for encoder in encoders)

    assert first == again != changed


def test_the_preprocessing_counts() -> None:
    encoder = CoralBayEncoder(12)
    before = describe_encoder(encoder)
    encoder.preprocessing = Preprocessing.of_window(
        -175.0, 250.0, spacing=(1.5, 1.5, 1.5), orientation="RAS"
    )

    assert describe_encoder(encoder)["preprocessing"]["hu_clip"] == [-175.0, 250.0]
    assert describe_encoder(encoder)["sha256"] != before["sha256"]


def test_layers_of_other_networks_count_but_not_whether_they_train() -> None:
    network = nn.Sequential(nn.Conv3d(1, 1, 3))
    before = describe_encoder(network)

    assert describe_encoder(network.eval().requires_grad_(False)) == before
    assert describe_encoder(nn.Sequential(nn.Conv3d(1, 1, 3, stride=2))) != before


class _Scaled(nn.Module):
    """A network with a value that its text does not show."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._factor * tensor


def test_attributes_of_other_networks_count() -> None:
    first, second = (describe_encoder(nn.Sequential(_Scaled(f))) for f in (1.0, 2.0))

    assert first["class_path"] == "torch.nn.modules.container.Sequential"
    assert first["sha256"] != second["sha256"]


def test_evas_wrapper_does_not_count() -> None:
    registry.register_backbones()
    kwargs = {"feature_size": 12, "patch_merging": "octants"}
    wrapped = ModelFromRegistry("radiology/coralbay_random", kwargs)

    assert describe_encoder(wrapped) == describe_encoder(CoralBayEncoder(12))


@pytest.mark.parametrize("network", [CoralBayEncoder(12), nn.Conv3d(1, 1, 3)])
def test_a_record_takes_it(network: nn.Module) -> None:
    assert record.Encoder(**describe_encoder(network)).is_consistent
