"""2D networks on the axial slices of a volume."""

from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
from torch import nn
from torch.nn import functional
from typing_extensions import override

from eva_coralbay.models.networks import pyramid


class SliceEncoder(nn.Module):
    """A 2D network on every axial slice of a volume, whose maps keep the depth of the volume."""

    def __init__(
        self,
        network: nn.Module | Callable[[torch.Tensor], torch.Tensor | Sequence[torch.Tensor]],
        *,
        in_channels: int = 3,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        """Initializes the encoder.

        Args:
            network: Maps images [N, C, H, W] to maps [N, c, h, w], from fine to coarse, or to one
                embedding [N, E].
            in_channels: The number of channels that it takes; a slice is repeated.
            mean: The mean of each channel that it was trained with; ImageNet's by default.
            std: The same of the standard deviation.
        """
        super().__init__()

        self.network = network
        self._in_channels = in_channels
        statistics = torch.tensor([list(mean), list(std)])[:, :in_channels]
        self.register_buffer("statistics", statistics[:, None, :, None, None], persistent=False)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Encodes volumes [B, 1, D, H, W] in [0, 1].

        Returns:
            The maps [B, c, D, h, w], from fine to coarse; of a network that gives one embedding
            of a slice, the mean over the slices [B, E].
        """
        mean, std = self.get_buffer("statistics")
        slices = tensor.transpose(1, 2).flatten(0, 1).expand(-1, self._in_channels, -1, -1)
        maps = self.network((slices - mean) / std)
        if isinstance(maps, torch.Tensor):
            return maps.unflatten(0, (len(tensor), -1)).mean(dim=1)
        return [_stack(one, len(tensor)) for one in maps]


class TimmSlices(pyramid.PyramidEncoder):
    """A 2D network of timm on every axial slice, with the slices beside it as further channels.

    The three channels of an image are the slice before, the slice itself and the one after it; at
    both ends of the volume, the last slice stands for the missing one. The network's own mean and
    standard deviation are applied. The maps are those of its stages, or the grid of the last patch
    tokens of a vision transformer, and keep the depth of the volume. The embedding is the
    network's own (before its classifier), averaged over the slices.
    """

    def __init__(
        self, *, model: str, patch_size: int | None = None, out_indices: int | None = None
    ) -> None:
        """Builds the encoder with random weights.

        Args:
            model: The name of the network in timm, with the tag of its weights.
            patch_size: For a vision transformer, the edge of a patch in pixels. Images whose sizes
                are not multiples of it are enlarged to the next ones, so that the tokens cover them
                evenly.
            out_indices: Return the last `out_indices` feature maps instead of the embedding.
        """
        is_transformer = patch_size is not None
        options: dict[str, Any] = {"dynamic_img_size": True} if is_transformer else {}
        core: Any = timm.create_model(model, num_classes=0, **options)
        super().__init__(
            out_indices=out_indices, num_maps=1 if is_transformer else len(core.feature_info)
        )
        self.core = core
        self._patch_size = patch_size
        self._architecture = {"model": model, "patch_size": patch_size}
        statistics = torch.tensor([core.default_cfg["mean"], core.default_cfg["std"]])
        self.register_buffer("statistics", statistics[:, :, None, None], persistent=False)

    @override
    def forward_features(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        return self.forward_intermediates(tensor)[1]

    @override
    def forward_embeddings(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.forward_intermediates(tensor)[0]

    @override
    def forward_intermediates(
        self, tensor: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        core: Any = self.core
        images = self._to_images(tensor)
        if self._patch_size is None:
            output, maps = core.forward_intermediates(images)
        else:
            output, maps = core.forward_intermediates(images, indices=1, norm=True)
        embeddings = core.forward_head(output, pre_logits=True)
        embedding = embeddings.unflatten(0, (len(tensor), -1)).mean(dim=1)
        return embedding, [_stack(one, len(tensor)) for one in maps]

    def _to_images(self, tensor: torch.Tensor) -> torch.Tensor:
        """Returns the normalized images [B * D, 3, H, W] of volumes [B, 1, D, H, W]."""
        pyramid.check_channels(tensor)
        padded = functional.pad(tensor, (0, 0, 0, 0, 1, 1), mode="replicate")
        neighbors = padded[:, 0].unfold(1, 3, 1).movedim(-1, 2)
        mean, std = self.get_buffer("statistics")
        images = (neighbors.flatten(0, 1) - mean) / std
        if self._patch_size is None:
            return images
        sizes = [-(-size // self._patch_size) * self._patch_size for size in images.shape[2:]]
        return functional.interpolate(images, sizes, mode="bilinear", align_corners=False)

    @override
    def describe(self) -> dict[str, Any]:
        mean, std = self.get_buffer("statistics").flatten(1).tolist()
        return {
            "architecture": {
                **self._architecture,
                "mean": [round(value, 4) for value in mean],
                "std": [round(value, 4) for value in std],
            },
            "embedding": "that of the network, averaged over slices",
        }


def _stack(maps: torch.Tensor, batch: int) -> torch.Tensor:
    """Stacks the maps [B * D, C, H, W] of slices to those of volumes [B, C, D, H, W]."""
    return maps.unflatten(0, (batch, -1)).transpose(1, 2)
