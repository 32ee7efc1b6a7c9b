"""A decoder for encoders whose feature maps are of any number, width and resolution."""

from collections.abc import Sequence

import torch
from eva.vision.models.networks.decoders.segmentation.semantic import swin_unetr
from torch import nn
from torch.nn import functional

_LEVELS = 6
"""The number of maps that the SwinUNETR decoder takes, each half as fine as the one before."""


class PyramidDecoder(nn.Module):
    """eva's SwinUNETR decoder behind a convolution a map, so that any encoder can be compared.

    Level k of the decoder is made of map k, or of the last one, by a convolution of one voxel and
    by interpolation.
    """

    def __init__(self, out_channels: int, channels: Sequence[int], feature_size: int = 12) -> None:
        """Initializes the decoder.

        Args:
            out_channels: The number of classes.
            channels: The number of channels of each feature map of the encoder, fine to coarse.
            feature_size: The number of channels of the finest level of the decoder.
        """
        super().__init__()

        widths = [feature_size * factor for factor in (1, 1, 2, 4, 8, 16)]
        sources = [channels[min(level, len(channels) - 1)] for level in range(_LEVELS)]
        self.projections = nn.ModuleList(
            nn.Conv3d(source, width, kernel_size=1)
            for source, width in zip(sources, widths, strict=True)
        )
        self.decoder = swin_unetr.SwinUNETRDecoder(out_channels, feature_size=feature_size)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Maps feature maps [B, c, d, h, w], fine to coarse, to logits [B, classes, D, H, W].

        The finest map is taken to be as fine as the volume in D, or, of a 2D network on slices,
        in the axis in which it is finest; the volume is a cube.
        """
        edge = max(features[0].shape[2:])
        levels = []
        for level, projection in enumerate(self.projections):
            size = [edge // 2**level] * 3
            projected = projection(features[min(level, len(features) - 1)])
            levels.append(functional.interpolate(projected, size, mode="trilinear"))
        return self.decoder(levels)
