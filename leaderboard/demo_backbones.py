"""Two random backbones of the demonstration, made to keep the contract of `check-backbone`.

PYTHONPATH=leaderboard eva-coralbay check-backbone demo_backbones.SegResNet --roi 64
"""

from typing import List

import torch
from eva.vision.models.networks.backbones import radiology
from eva.vision.models.networks.backbones.universal import vit
from torch import nn


class SegResNet(radiology.SegResNetEncoder):
    """eva's SegResNet encoder with six levels, whose channels eva's SwinUNETR decoder takes."""

    def __init__(self, feature_size: int = 12, out_indices: int | None = None) -> None:
        """Initializes the encoder with random weights.

        Args:
            feature_size: The number of channels of the finest map.
            out_indices: The number of feature maps to return, the coarsest last; one embedding
                if None.
        """
        super().__init__(
            init_filters=feature_size,
            norm=("GROUP", {"num_groups": 4}),
            blocks_down=(1,) * 6,
            out_indices=out_indices,
        )

    def _forward_features(self, tensor: torch.Tensor) -> List[torch.Tensor]:
        """Maps [B, 1, D, H, W] to six maps of strides 1 to 32, of channels f, f, 2f, ..., 16f."""
        first, *others = super()._forward_features(tensor)
        # the channels of level k are f * 2^k: every decoder step halves them, but the first
        return [first, *(level[:, : level.shape[1] // 2] for level in others)]


class SlicewiseViT(nn.Module):
    """eva's random 2D ViT (tiny, patches of 16) on every axial slice, as a pyramid of six maps.

    The tokens [192, D, H / 16, W / 16] are resampled to the strides 1 to 32, and the first
    channels of them are taken. It shows that 2D models can take part, not how well.
    """

    _FACTORS = (1, 1, 2, 4, 8, 16)
    """Channels of the maps, in units of 12."""

    def __init__(self, out_indices: int | None = None) -> None:
        """Initializes the encoder with random weights.

        Args:
            out_indices: The number of feature maps to return, the coarsest last; one embedding
                if None.
        """
        super().__init__()
        self.vit: nn.Module = vit.vit_tiny_patch16_224_random(out_indices=1)
        self.out_indices = out_indices

    def forward(self, tensor: torch.Tensor) -> torch.Tensor | List[torch.Tensor]:
        """Maps [B, 1, D, H, W] to [B, 192], or to a list of maps [B, C, D / s, H / s, W / s]."""
        batch, _, depth, *plane = tensor.shape
        slices = tensor.transpose(1, 2).reshape(batch * depth, 1, *plane).expand(-1, 3, -1, -1)
        (tokens,) = self.vit(slices)
        tokens = tokens.unflatten(0, (batch, depth)).transpose(1, 2)
        if self.out_indices is None:
            return tokens.mean((2, 3, 4))
        maps = [
            nn.functional.interpolate(
                tokens[:, : 12 * factor],
                size=[edge // 2**level for edge in (depth, *plane)],
                mode="trilinear",
            )
            for level, factor in enumerate(self._FACTORS)
        ]
        return maps[-self.out_indices :]
