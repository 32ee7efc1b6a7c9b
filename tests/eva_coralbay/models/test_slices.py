"""Tests 2D networks on slices, against timm's own."""

from typing import Any

import pytest
import timm
import torch
from torch.nn import functional

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import loading, published_weights, weight_files, zoo

_NAMES = [name for name in zoo.ENTRIES if name.startswith("slices/")]


def _original(name: str) -> Any:
    """The network as timm has it, with its classifier and random weights."""
    torch.manual_seed(0)
    arguments = zoo.ENTRIES[name].arguments
    options = {"dynamic_img_size": True} if "patch_size" in arguments else {}
    return timm.create_model(arguments["model"], **options).eval()


def _load(name: str, original: Any) -> Any:
    entry = zoo.ENTRIES[name]
    encoder: Any = loading.build(entry, random_weights=True)
    assert entry.keys is not None
    published_weights.fill(encoder.core, original.state_dict(), keys=entry.keys, where="file")
    return encoder


@pytest.mark.parametrize("name", _NAMES)
def test_maps_are_those_of_timm_of_three_neighbors(name: str) -> None:
    """With the mean and the deviation of ImageNet, and the end slices repeated."""
    original = _original(name)
    encoder = _load(name, original)
    volume = torch.rand(2, 1, 3, 56, 64, generator=torch.Generator().manual_seed(1))
    first = volume[0, 0]
    images = torch.stack([first[[0, 0, 1]], first[[0, 1, 2]], first[[1, 2, 2]]])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = (images - mean[:, None, None]) / std[:, None, None]
    if "dinov2" in name:
        # 64 is not a multiple of the patch of 14
        images = functional.interpolate(images, (56, 70), mode="bilinear")

    with torch.no_grad():
        embedding, maps = encoder.forward_intermediates(volume)
        output = original.forward_features(images)
        expected = original.forward_head(output, pre_logits=True).mean(dim=0)
        if "dinov2" in name:
            output = output[:, 1:].mT.unflatten(2, (4, 5))

    torch.testing.assert_close(embedding[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps[-1][0].transpose(0, 1), output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["slices/resnet50", "radiology/merlin"])
def test_further_channels_are_refused(name: str) -> None:
    """They were not seen, or taken for the colors of an image."""
    encoder = loading.build(zoo.ENTRIES[name], random_weights=True)

    with pytest.raises(EvaCoralbayError, match="one channel, got 3"):
        encoder(torch.rand(1, 3, 32, 32, 32))


def test_the_weights_of_another_network_are_refused() -> None:
    with pytest.raises(weight_files.CheckpointError, match="the weights of another model"):
        published_weights.fill(
            loading.build(zoo.ENTRIES["slices/resnet50"], random_weights=True).core,
            _original("slices/convnext_tiny").state_dict(),
            keys=zoo.ENTRIES["slices/resnet50"].keys,
            where="file",
        )
