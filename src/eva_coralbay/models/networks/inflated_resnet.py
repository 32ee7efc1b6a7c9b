"""A 2D ResNet whose convolutions are inflated to 3D, as Merlin has it.

Carreira and Zisserman, "Quo Vadis, Action Recognition?", https://arxiv.org/abs/1705.07750,
section 3.4.
"""

from typing import Any

import torch
from torch import nn
from typing_extensions import override

from eva_coralbay.models.networks import pyramid

_STEM = 64
_EXPANSION = 4


class InflatedResNet(pyramid.PyramidEncoder):
    """An inflated ResNet of bottlenecks, whose input is repeated to three channels.

    It has five maps: of 64 channels at a stride of (1, 2, 2), and of 256, 512, 1024 and 2048
    channels at strides from (2, 4, 4) to (16, 32, 32). The embedding is the mean of the coarsest.
    """

    def __init__(
        self, *, blocks: tuple[int, int, int, int] = (3, 8, 36, 3), out_indices: int | None = None
    ) -> None:
        """Builds the encoder with random weights.

        Args:
            blocks: Bottlenecks of each of the four stages; by default those of a ResNet-152.
            out_indices: Return the last `out_indices` feature maps instead of the embedding.
        """
        super().__init__(out_indices=out_indices, num_maps=5)
        self._architecture = {"blocks": list(blocks)}
        self.core = _Stages(blocks)

    @override
    def forward_features(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        return self.core(tensor)

    @override
    def describe(self) -> dict[str, Any]:
        return {"architecture": self._architecture, "embedding": "mean of the coarsest map"}


class _Stages(nn.Module):
    """The network; the names of its parts are those of the published state dict."""

    def __init__(self, blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, _STEM, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(_STEM)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(3, stride=2, padding=1)
        channels = _STEM
        for index, number in enumerate(blocks):
            width = _STEM * 2**index
            layers = []
            for position in range(number):
                stride = 2 if index > 0 and position == 0 else 1
                layers.append(_Bottleneck(channels, width, stride))
                channels = width * _EXPANSION
            self.add_module(f"layer{index + 1}", nn.Sequential(*layers))

    def forward(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Returns the feature maps of a volume [B, 1, D, H, W]."""
        pyramid.check_channels(tensor)
        hidden = self.relu(self.bn1(self.conv1(tensor.expand(-1, 3, -1, -1, -1))))
        maps = [hidden]
        hidden = self.maxpool(hidden)
        for index in range(1, 5):
            hidden = self.get_submodule(f"layer{index}")(hidden)
            maps.append(hidden)
        return maps


class _Bottleneck(nn.Module):
    """Three convolutions, of which the second one is not of single voxels, beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        wide = width * _EXPANSION
        self.conv1 = nn.Conv3d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(wide)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            None
            if channels == wide
            else nn.Sequential(
                nn.Conv3d(channels, wide, 1, stride=stride, bias=False), nn.BatchNorm3d(wide)
            )
        )

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        hidden = self.relu(self.bn1(self.conv1(tensor)))
        hidden = self.relu(self.bn2(self.conv2(hidden)))
        hidden = self.bn3(self.conv3(hidden))
        shortcut = tensor if self.downsample is None else self.downsample(tensor)
        return self.relu(hidden + shortcut)
