"""An encoder of two feature maps that takes no time."""

import torch
from torch import nn

from eva_coralbay.models.preprocessing import Preprocessing


class ToyEncoder(nn.Module):
    """Two convolutions, whose maps are averaged."""

    embedded_maps = (0, 1)

    def __init__(
        self, *, preprocessing: Preprocessing | None = None, width: int = 3, seed: int = 0
    ) -> None:
        """Initializes the encoder with weights that follow from the seed."""
        super().__init__()
        torch.manual_seed(seed)
        self.fine = nn.Conv3d(1, width, 3, padding=1)
        self.coarse = nn.Conv3d(width, 2 * width, 4, stride=4)
        self.preprocessing = preprocessing

    def forward_features(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        fine = self.fine(tensor)
        return [fine, self.coarse(fine)]

    def forward_embeddings(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([m.mean(dim=(2, 3, 4)) for m in self.forward_features(tensor)], dim=1)

    def forward_intermediates(
        self, tensor: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return self.forward_embeddings(tensor), self.forward_features(tensor)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.forward_embeddings(tensor)


def small_input(orientation: str = "SPL") -> Preprocessing:
    """Windows of 16 voxels of 3 mm, of the HU of soft tissue."""
    return Preprocessing.of_window(
        -200.0, 300.0, spacing=(3.0, 3.0, 3.0), orientation=orientation, window=(16, 16, 16)
    )
