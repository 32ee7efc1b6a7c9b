"""Tests the vision transformer with rotary positions on sizes that its patches do not divide."""

import torch
from torch.nn import functional

from eva_coralbay.models.networks import rotary_vit


@torch.no_grad()
def test_tokens_cover_a_volume_that_is_no_multiple_of_the_patch() -> None:
    """The rest was not seen, and what was seen was stretched over all of the volume."""
    torch.manual_seed(0)
    network = rotary_vit.RotaryViT(
        embed_dim=24, depth=1, num_heads=2, patch_size=14, num_registers=1
    ).eval()
    volume = torch.rand(1, 1, 28, 40, 30)

    assert network.describe()["architecture"]["other_sizes"].startswith("enlarged")
    embedding, (feature_map,) = network.forward_intermediates(volume)

    assert feature_map.shape == (1, 24, 2, 3, 3)
    whole = functional.interpolate(volume, (28, 42, 42), mode="trilinear")
    torch.testing.assert_close(network.forward_features(whole)[0], feature_map)
    torch.testing.assert_close(network(volume), embedding)
    seen = torch.zeros_like(volume)
    seen[..., -1] = 1.0
    assert not torch.equal(network(volume + seen), embedding)
