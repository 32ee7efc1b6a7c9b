"""The decoder of any feature maps."""

from typing import Any

import pytest
import torch
from eva.vision.models.networks.decoders.segmentation.typings import DecoderInputs
from torch import nn

from eva_coralbay.evaluation import pyramid_decoder
from eva_coralbay.evaluation.pyramid_decoder import PyramidDecoder
from eva_coralbay.models import loading, zoo

_SWIN = {
    "class_path": "eva.vision.models.networks.decoders.segmentation.SwinUNETRDecoderWithProjection",
    "init_args": {"feature_size": 24, "project_dims": None, "out_channels": 3},
}


def test_maps_of_a_2d_network_are_decoded_to_the_volume() -> None:
    decoder = PyramidDecoder(4, channels=[5, 7], feature_size=12)
    maps = [torch.rand(2, 5, 64, 32, 32), torch.rand(2, 7, 64, 8, 8)]

    logits = decoder(DecoderInputs(maps, (64, 64, 64)))

    assert logits.shape == (2, 4, 64, 64, 64)
    logits.sum().backward()
    assert all(weight.grad is not None for weight in decoder.parameters())


def test_one_grid_of_tokens_is_decoded_to_the_window() -> None:
    """The maps do not say how large the window is."""
    decoder = PyramidDecoder(2, channels=[6])

    assert decoder(DecoderInputs([torch.rand(1, 6, 4, 6, 6)], (64, 96, 96))).shape[2:] == (
        64,
        96,
        96,
    )


class _Maps(nn.Module):
    """An encoder of one's own with two maps, which remembers whether it was in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(1)

    def forward(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        return [self.norm(tensor).expand(-1, channels, -1, -1, -1) for channels in (3, 5)]


def _complete(decoder: dict[str, Any], encoder: Any) -> Any:
    return pyramid_decoder.complete(decoder, encoder, (32, 32, 32))


def test_channels_are_found() -> None:
    encoder = _Maps()
    asked: dict[str, Any] = {"class_path": f"{PyramidDecoder.__module__}.PyramidDecoder"}

    found = _complete({**asked, "init_args": {"out_channels": 2}}, encoder)

    assert found["init_args"] == {"out_channels": 2, "channels": [3, 5]}
    assert encoder.training and encoder.norm.num_batches_tracked == 0
    given = {**asked, "init_args": {"channels": [1]}}
    assert _complete(given, encoder) == given


def test_networks_of_the_zoo_get_it_by_themselves() -> None:
    """Those of one's own do not: what does not fit them is an error."""
    entry = zoo.ENTRIES["radiology/suprem_segresnet"]
    encoder = loading.build(entry, random_weights=True, out_indices=4)

    found = _complete(_SWIN, encoder)

    assert found["class_path"] == "eva_coralbay.evaluation.pyramid_decoder.PyramidDecoder"
    assert found["init_args"] == {
        "feature_size": 24,
        "out_channels": 3,
        "channels": [16, 32, 64, 128],
    }
    assert _complete(_SWIN, _Maps()) == _SWIN


@pytest.mark.parametrize("name", ["some.Decoder", "torch.nn.Identity"])
def test_other_decoders_are_left_as_they_are(name: str) -> None:
    assert _complete({"class_path": name}, _Maps()) == {"class_path": name}
