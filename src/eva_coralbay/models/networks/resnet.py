"""The encoder of MONAI's 3D ResNet-50."""

from typing import Any

import torch
from monai.networks.nets import resnet
from typing_extensions import override

from eva_coralbay.models.networks.pyramid import PyramidEncoder


class ResNet50(PyramidEncoder):
    """MONAI's ResNet-50 with its stem and without its head.

    With a width of 1 it has five maps of 64, 256, 512, 1024 and 2048 channels at strides of 2, 4,
    8, 16 and 32. The embedding is the mean of the coarsest map.
    """

    def __init__(
        self, *, widen_factor: float = 1.0, in_channels: int = 1, out_indices: int | None = None
    ) -> None:
        """Builds the encoder with random weights.

        Args:
            widen_factor: The width: what the channels are multiplied with.
            in_channels: Channels of the input volume.
            out_indices: Return the last `out_indices` feature maps instead of the embedding.
        """
        super().__init__(out_indices=out_indices, num_maps=5)
        self._architecture = {"in_channels": in_channels, "widen_factor": widen_factor}
        self.core = resnet.resnet50(
            pretrained=False,
            n_input_channels=in_channels,
            widen_factor=widen_factor,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=True,
        )

    @override
    def forward_features(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        core: Any = self.core
        hidden = core.act(core.bn1(core.conv1(tensor)))
        maps = [hidden]
        hidden = core.maxpool(hidden)
        for layer in (core.layer1, core.layer2, core.layer3, core.layer4):
            hidden = layer(hidden)
            maps.append(hidden)
        return maps

    @override
    def describe(self) -> dict[str, Any]:
        return {
            "architecture": self._architecture,
            "embedding": "mean of the coarsest map",
        }
