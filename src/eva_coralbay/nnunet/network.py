"""The network that nnU-Net builds from the plans of an export: an encoder with a decoder."""

import itertools
from collections.abc import Sequence

import torch
from monai.networks.blocks import unetr_block
from torch import nn

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import encoder, swin
from eva_coralbay.models.zoo.swin_unetr import FACTORS

STRIDES = ((1, 1, 1), *((2, 2, 2),) * (len(FACTORS) - 1))
"""By how much each feature map is coarser than the one before it."""


class SwinUNet(nn.Module):
    """A `CoralBayEncoder` with the decoder of SwinUNETR, as nnU-Net v2 wants its networks.

    nnU-Net imports the class that the plans name and passes it what stands there. It expects of a
    network an attribute `decoder.deep_supervision`, and that the layers of the classes are called
    `seg_layers`: those alone are not taken from pre-trained weights. (nnU-Net 2.8.1:
    `utilities/get_network_from_plans.py`, `run/load_pretrained_weights.py`,
    `nnUNetTrainer.set_deep_supervision_enabled`.)
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        feature_size: int,
        patch_merging: swin.PatchMergingVariant,
        use_v2: bool,
        freeze_encoder: bool = False,
        strides: Sequence[Sequence[int]] = STRIDES,
        deep_supervision: bool = True,
    ) -> None:
        """Builds the network, with random weights.

        Args:
            input_channels: Channels of the scan, by nnU-Net.
            num_classes: Channels of the output, by nnU-Net.
            feature_size: As for `CoralBayEncoder`.
            patch_merging: As for `CoralBayEncoder`.
            use_v2: As for `CoralBayEncoder`.
            freeze_encoder: Whether the encoder keeps its weights.
            strides: `STRIDES`, which nnU-Net reads in the plans to scale the labels.
            deep_supervision: Whether `forward` returns the logits of all levels.

        Raises:
            EvaCoralbayError: If the strides are others, or the encoder cannot be.
        """
        super().__init__()

        if tuple(map(tuple, strides)) != STRIDES:
            raise EvaCoralbayError(
                f"The strides of the plans must be {[list(stride) for stride in STRIDES]}, got "
                f"{strides}: export the plans again."
            )
        self.encoder = encoder.CoralBayEncoder(
            feature_size,
            input_channels,
            out_indices=len(FACTORS),
            patch_merging=patch_merging,
            use_v2=use_v2,
        )
        self.encoder.requires_grad_(not freeze_encoder)
        self.decoder = _Decoder(
            self.encoder.feature_channels, num_classes, deep_supervision=deep_supervision
        )
        self._is_frozen = freeze_encoder

    def forward(self, volume: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Computes logits.

        Args:
            volume: Shape [B, C, D, H, W], all sides multiples of 32.

        Returns:
            The logits [B, classes, D, H, W]; with deep supervision those at 1, 1/2, 1/4, 1/8 and
            1/16 of the resolution.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._is_frozen):
            maps = self.encoder(volume)
        return self.decoder(maps)


class _Decoder(nn.Module):
    """The decoder of SwinUNETR, with a layer of the classes at each level, from fine to coarse."""

    def __init__(
        self, channels: Sequence[int], num_classes: int, *, deep_supervision: bool
    ) -> None:
        super().__init__()

        self.deep_supervision = deep_supervision
        self.stages = nn.ModuleList(
            unetr_block.UnetrUpBlock(
                spatial_dims=3,
                in_channels=coarse,
                out_channels=fine,
                kernel_size=3,
                upsample_kernel_size=2,
                norm_name="instance",
                res_block=True,
            )
            for fine, coarse in itertools.pairwise(channels)
        )
        self.seg_layers = nn.ModuleList(
            nn.Conv3d(fine, num_classes, kernel_size=1) for fine in channels[:-1]
        )

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        *skips, hidden = maps
        levels = []
        for stage, skip in zip(reversed(self.stages), reversed(skips), strict=True):
            hidden = stage(hidden, skip)
            levels.append(hidden)
        levels.reverse()
        if not self.deep_supervision:
            return self.seg_layers[0](levels[0])
        return [layer(level) for layer, level in zip(self.seg_layers, levels, strict=True)]
