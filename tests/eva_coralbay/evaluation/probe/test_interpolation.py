"""Interpolated features and logits against torch's interpolation of the whole window."""

import torch
from torch.nn import functional

from eva_coralbay.evaluation.probe import interpolation

SIZE = (12, 10, 14)
MAPS = [(3, 12, 10, 14), (4, 6, 5, 7), (5, 12, 3, 4), (2, 2, 1, 3)]


def _maps() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in MAPS]


def _dense(maps: list[torch.Tensor]) -> torch.Tensor:
    """Returns the features of all voxels of the window, of shape [E, D, H, W]."""
    return torch.cat(
        [
            functional.interpolate(one[None], SIZE, mode="trilinear", align_corners=False)[0]
            for one in maps
        ]
    )


def test_the_features_of_a_voxel_are_those_of_the_interpolated_maps() -> None:
    maps = _maps()
    voxels = torch.cartesian_prod(*(torch.arange(length) for length in SIZE))

    features = interpolation.sample(maps, voxels, SIZE)

    torch.testing.assert_close(features, _dense(maps).flatten(1).T, atol=1e-5, rtol=0)


def test_interpolated_logits_are_the_logits_of_interpolated_features() -> None:
    maps = _maps()
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(6, 14, generator=generator)
    bias = torch.randn(6, generator=generator)
    box = (slice(2, 12), slice(0, 9), slice(5, 6))

    logits = interpolation.project(maps, weights, bias, size=SIZE, box=box)

    expected = torch.einsum("ke,edhw->kdhw", weights, _dense(maps)) + bias[:, None, None, None]
    torch.testing.assert_close(logits, expected[(slice(None), *box)], atol=1e-5, rtol=0)


def test_one_coarse_map_suffices() -> None:
    coarse = torch.randn(4, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    box = (slice(0, 12), slice(0, 10), slice(0, 14))

    logits = interpolation.project([coarse], torch.ones(1, 4), torch.zeros(1), size=SIZE, box=box)

    torch.testing.assert_close(logits[0], _dense([coarse]).sum(dim=0), atol=1e-5, rtol=0)
