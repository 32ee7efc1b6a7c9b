"""The decoder of any feature maps."""

import torch

from eva_coralbay.evaluation.pyramid_decoder import PyramidDecoder


def test_maps_of_a_2d_network_are_decoded_to_the_volume() -> None:
    decoder = PyramidDecoder(4, channels=[5, 7], feature_size=12)
    maps = [torch.rand(2, 5, 64, 32, 32), torch.rand(2, 7, 64, 8, 8)]

    logits = decoder(maps)

    assert logits.shape == (2, 4, 64, 64, 64)
    logits.sum().backward()
    assert all(weight.grad is not None for weight in decoder.parameters())
