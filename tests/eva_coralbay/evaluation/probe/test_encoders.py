"""Encoders to compare with."""

import torch
from scipy import ndimage
from torch import nn

from eva_coralbay.evaluation.probe import encoders


def test_the_derivatives_are_those_of_scipy() -> None:
    volume = torch.rand(1, 1, 20, 18, 22, generator=torch.Generator().manual_seed(0))

    (found,) = encoders.GaussianDerivatives(sigmas=[1.5])(volume)

    orders = [(d, h, w) for d in range(3) for h in range(3) for w in range(3) if d + h + w <= 2]
    assert found.shape == (1, 10, 20, 18, 22)
    for channel, order in enumerate(orders):
        expected = ndimage.gaussian_filter(
            volume[0, 0].numpy(), 1.5, order=order, mode="nearest", radius=5
        )
        # derivatives are of unit scale here: in multiples of the width
        expected = torch.from_numpy(expected) * 1.5 ** sum(order)
        torch.testing.assert_close(found[0, channel], expected, atol=1e-6, rtol=0)


def test_wide_gaussians_have_coarse_maps() -> None:
    maps = encoders.GaussianDerivatives()(torch.rand(2, 1, 32, 32, 32))

    assert [tuple(one.shape[1:]) for one in maps] == [
        (10, edge, edge, edge) for edge in (32, 32, 16, 8, 4)
    ]


class _Slices(nn.Module):
    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [images, nn.functional.avg_pool2d(images, 4)[:, :2]]


def test_a_2d_network_sees_each_slice_alone() -> None:
    volume = torch.rand(2, 1, 5, 8, 12)
    encoder = encoders.SliceEncoder(_Slices(), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    fine, coarse = encoder(volume)

    assert fine.shape == (2, 3, 5, 8, 12) and coarse.shape == (2, 2, 5, 2, 3)
    torch.testing.assert_close(fine[1, 2, 3], (volume[1, 0, 3] - 0.5) / 0.5)
