"""What the networks of the zoo share: feature maps, an embedding, and what is known of them."""

import abc
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import weight_sources
from eva_coralbay.models.preprocessing import Preprocessing


class PyramidEncoder(nn.Module, abc.ABC):
    """A network that maps a volume to feature maps, from fine to coarse, and to an embedding."""

    core: nn.Module
    """The published network, whose state dict is that of the weights file."""

    embedded_maps: tuple[int, ...]
    """Which of the feature maps the embedding is made of: unless said otherwise, the last."""

    def __init__(self, *, out_indices: int | None, num_maps: int) -> None:
        """Initializes what is common.

        Args:
            out_indices: Return the last `out_indices` feature maps. If None, `forward` returns the
                embedding.
            num_maps: Number of feature maps of the network.

        Raises:
            EvaCoralbayError: If `out_indices` is not a number of maps.
        """
        super().__init__()
        if out_indices is not None and not 1 <= out_indices <= num_maps:
            raise EvaCoralbayError(
                f"out_indices must be None or a number of maps from 1 to {num_maps}; got "
                f"{out_indices}."
            )
        self.out_indices = out_indices
        self.embedded_maps = (num_maps - 1,)
        self.origin: weight_sources.Origin | None = None
        self.preprocessing: Preprocessing | None = None

    @abc.abstractmethod
    def forward_features(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Computes all feature maps [B, C, D, H, W] of a volume, from fine to coarse."""

    def embed(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Averages the coarsest feature map over space to an embedding [B, E]."""
        return maps[-1].mean(dim=(2, 3, 4))

    def forward_embeddings(self, tensor: torch.Tensor) -> torch.Tensor:
        """Computes the embedding [B, E] of a volume [B, C, D, H, W]."""
        return self.embed(self.forward_features(tensor))

    def forward_intermediates(
        self, tensor: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Computes the embedding [B, E] and all feature maps of a volume."""
        maps = self.forward_features(tensor)
        return self.embed(maps), maps

    @override
    def forward(self, tensor: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Encodes a volume [B, C, D, H, W].

        Returns:
            The embedding [B, E] if `out_indices` is None, else the last `out_indices` feature
            maps, from fine to coarse.
        """
        if self.out_indices is None:
            return self.forward_embeddings(tensor)
        return self.forward_features(tensor)[-self.out_indices :]

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Describes what the network computes beside its weights; see `models.description`."""


def check_channels(tensor: torch.Tensor) -> None:
    """Checks that a volume [B, C, D, H, W] has the one channel that its encoder makes more of.

    Raises:
        EvaCoralbayError: If it has others.
    """
    if tensor.shape[1] != 1:
        raise EvaCoralbayError(f"The encoder takes volumes of one channel, got {tensor.shape[1]}.")
