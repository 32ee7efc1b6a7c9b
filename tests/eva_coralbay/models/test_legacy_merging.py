"""Tests both variants of patch merging against the MONAI releases that they are named after."""

import pathlib

import torch
from monai.networks.nets import swin_unetr
from safetensors.torch import load_file

from eva_coralbay.models import CoralBayEncoder, swin
from tests.eva_coralbay.models.data import legacy_formula

_GOLDEN = pathlib.Path(__file__).parent / "data" / "legacy_states.safetensors"
"""Hidden states of MONAI 1.4.0; `data/make_legacy_golden.py` writes them."""


def _states(patch_merging: swin.PatchMergingVariant) -> list[torch.Tensor]:
    """The normalized hidden states of our encoder with the weights of the formula."""
    encoder = CoralBayEncoder(feature_size=legacy_formula.FEATURE_SIZE, patch_merging=patch_merging)
    encoder = encoder.double().eval()
    _fill(encoder.swinViT)
    with torch.no_grad():
        states = encoder.swinViT.hidden_states(torch.from_numpy(legacy_formula.volume()))
        return [swin.normalize_channels(state) for state in states]


def _fill(network: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            values = legacy_formula.weight(name, tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(values))


def _relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max() / expected.abs().max())


def test_legacy_equals_monai_before_1_5() -> None:
    golden = load_file(_GOLDEN)
    legacy, octants = _states("legacy"), _states("octants")
    for index in (2, 3, 4):
        assert _relative_error(legacy[index], golden[f"state{index}"]) < 1e-10
        assert _relative_error(octants[index], golden[f"state{index}"]) > 1e-2


def test_octants_equals_the_installed_monai() -> None:
    network = swin_unetr.SwinTransformer(
        in_chans=1,
        embed_dim=legacy_formula.FEATURE_SIZE,
        window_size=(7, 7, 7),
        patch_size=(2, 2, 2),
        depths=(2, 2, 2, 2),
        num_heads=(3, 6, 12, 24),
        use_v2=True,
    )
    network = network.double().eval()
    _fill(network)
    with torch.no_grad():
        expected = network(torch.from_numpy(legacy_formula.volume()))
    for actual, reference in zip(_states("octants"), expected, strict=True):
        assert _relative_error(actual, reference) < 1e-10
