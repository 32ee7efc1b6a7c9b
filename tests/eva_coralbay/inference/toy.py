"""A network of the zoo that takes no time."""

from typing import Any

import torch
from torch import nn
from typing_extensions import override

from eva_coralbay.models.networks import pyramid
from eva_coralbay.models.preprocessing import Preprocessing


class ToyPyramid(pyramid.PyramidEncoder):
    """Two convolutions, as a network of the zoo; the embedding is the mean of both maps."""

    def __init__(
        self, *, preprocessing: Preprocessing | None = None, width: int = 3, seed: int = 0
    ) -> None:
        """Initializes the encoder with weights that follow from the seed."""
        super().__init__(out_indices=None, num_maps=2)
        torch.manual_seed(seed)
        self.fine = nn.Conv3d(1, width, 3, padding=1)
        self.coarse = nn.Conv3d(width, 2 * width, 4, stride=4)
        self.embedded_maps = (0, 1)
        self.preprocessing = preprocessing

    @override
    def forward_features(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        fine = self.fine(tensor)
        return [fine, self.coarse(fine)]

    @override
    def embed(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([each.mean(dim=(2, 3, 4)) for each in maps], dim=1)

    @override
    def describe(self) -> dict[str, Any]:
        return {}


def small_input(orientation: str = "SPL") -> Preprocessing:
    """Windows of 16 voxels of 3 mm, of the HU of soft tissue."""
    return Preprocessing.of_window(
        -200.0, 300.0, spacing=(3.0, 3.0, 3.0), orientation=orientation, window=(16, 16, 16)
    )
