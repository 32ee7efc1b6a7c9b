"""Encoders of MONAI's two SegResNets, convolutional residual networks.

Myronenko, "3D MRI brain tumor segmentation using autoencoder regularization",
https://arxiv.org/abs/1810.11654
"""

from typing import Any, Literal

import torch
from monai.networks.nets import segresnet, segresnet_ds
from typing_extensions import override

from eva_coralbay.models.networks.pyramid import PyramidEncoder


class SegResNetDSEncoder(PyramidEncoder):
    """The encoder of MONAI's `SegResNetDS`, on its own also called `SegResEncoder`.

    Map i has `init_filters * 2**i` channels at a stride of `2**i`. The embedding is the mean of the
    coarsest map.
    """

    def __init__(
        self,
        *,
        init_filters: int,
        blocks_down: tuple[int, ...],
        norm: Literal["batch", "instance"],
        in_channels: int = 1,
        out_indices: int | None = None,
    ) -> None:
        """Builds the encoder with random weights.

        Args:
            init_filters: Channels of the finest map.
            blocks_down: Residual blocks of each level.
            norm: The normalization of the layers.
            in_channels: Channels of the input volume.
            out_indices: Return the last `out_indices` feature maps instead of the embedding.
        """
        super().__init__(out_indices=out_indices, num_maps=len(blocks_down))
        self._architecture = {
            "init_filters": init_filters,
            "blocks_down": list(blocks_down),
            "norm": norm,
            "in_channels": in_channels,
        }
        self.core = segresnet_ds.SegResEncoder(
            init_filters=init_filters, blocks_down=blocks_down, norm=norm, in_channels=in_channels
        )

    @override
    def forward_features(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        return self.core(tensor)

    @override
    def describe(self) -> dict[str, Any]:
        return {"architecture": self._architecture, "embedding": "mean of the coarsest map"}


class SegResNetEncoder(PyramidEncoder):
    """The encoder of MONAI's `SegResNet`.

    Map i has `init_filters * 2**i` channels at a stride of `2**i`. The embedding is the means of
    all maps, concatenated, as in eva's `SegResNetEncoder`.
    """

    def __init__(
        self,
        *,
        init_filters: int,
        blocks_down: tuple[int, ...],
        in_channels: int = 1,
        out_indices: int | None = None,
    ) -> None:
        """Builds the encoder with random weights.

        Args:
            init_filters: Channels of the finest map.
            blocks_down: Residual blocks of each level.
            in_channels: Channels of the input volume.
            out_indices: Return the last `out_indices` feature maps instead of the embedding.
        """
        super().__init__(out_indices=out_indices, num_maps=len(blocks_down))
        self.embedded_maps = tuple(range(len(blocks_down)))
        self._architecture = {
            "init_filters": init_filters,
            "blocks_down": list(blocks_down),
            "in_channels": in_channels,
        }
        network = segresnet.SegResNet(
            init_filters=init_filters, blocks_down=blocks_down, in_channels=in_channels
        )
        del network.up_layers, network.up_samples, network.conv_final
        self.core = network

    @override
    def forward_features(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        core: Any = self.core
        return core.encode(tensor)[1]

    @override
    def embed(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([feature_map.mean(dim=(2, 3, 4)) for feature_map in maps], dim=1)

    @override
    def describe(self) -> dict[str, Any]:
        return {"architecture": self._architecture, "embedding": "means of all maps"}
