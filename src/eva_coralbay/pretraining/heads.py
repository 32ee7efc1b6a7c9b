"""The projection head of DINO."""

import itertools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

_MIN_STD = 1e-6
"""Where outputs vary less, they are not scaled to vary more."""


class Head(nn.Module):
    """Maps an embedding to its similarities to the prototypes.

    A perceptron, a projection to the unit sphere and a linear layer whose rows, the prototypes,
    have length 1: `DINOHead` in `vision_transformer.py` of the reference implementation of DINO [0]
    with `norm_last_layer`.

    It computes in float32 whatever the precision of what it is called in: in bfloat16 the
    logits, which are divided by temperatures of a few hundredths, are too coarse.

    - [0] Emerging Properties in Self-Supervised Vision Transformers,
      https://arxiv.org/abs/2104.14294
    """

    def __init__(
        self,
        embedding_dim: int,
        num_prototypes: int,
        *,
        hidden_dims: Sequence[int] = (2048, 2048),
        bottleneck_dim: int = 256,
    ) -> None:
        """Initializes the head.

        Args:
            embedding_dim: The length of an embedding.
            num_prototypes: The number of prototypes, K.
            hidden_dims: The widths of the hidden layers.
            bottleneck_dim: The length of what is compared with the prototypes.
        """
        super().__init__()
        layers: list[nn.Module] = []
        for width, next_width in itertools.pairwise((embedding_dim, *hidden_dims)):
            layers += [nn.Linear(width, next_width), nn.GELU()]
        self.perceptron = nn.Sequential(*layers, nn.Linear(hidden_dims[-1], bottleneck_dim))
        self.prototypes = nn.Parameter(torch.empty(num_prototypes, bottleneck_dim))
        for layer in self.perceptron:
            if isinstance(layer, nn.Linear):
                # not `trunc_normal_`, which draws other numbers with other versions of PyTorch
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.kaiming_uniform_(self.prototypes, a=5**0.5)

    @torch.no_grad()
    def standardize(self, embeddings: torch.Tensor, *, parts: Sequence[int]) -> None:
        """Scales the layers so that their outputs have mean 0 and variance 1 over some embeddings.

        The embeddings of an untrained encoder are nearly parallel, as their maps are rectified
        before they are pooled: the logits of all scans would be the same, and nothing is learned
        for hundreds of steps. This is the initialization that depends on the data of [1]. The
        parts of an embedding have the same say: the coarsest map has two thirds of the channels,
        but its mean is that of a few normalized voxels, which says least of a small view.

        - [1] Weight Normalization, https://arxiv.org/abs/1602.07868, section 3

        Args:
            embeddings: Of different samples, of shape [B, E].
            parts: The lengths of the parts of an embedding, one a map that it is pooled of; their
                sum is E.
        """
        hidden = embeddings.float()
        weights = torch.cat([hidden.new_full((length,), length**-0.5) for length in parts])
        first = next(layer for layer in self.perceptron if isinstance(layer, nn.Linear))
        first.weight.mul_(weights / hidden.std(dim=0).clamp_min(_MIN_STD))
        for layer in self.perceptron:
            if isinstance(layer, nn.Linear):
                outputs = layer(hidden)
                scale = 1.0 / outputs.std(dim=0).clamp_min(_MIN_STD)
                layer.weight.mul_(scale[:, None])
                layer.bias.sub_(outputs.mean(dim=0)).mul_(scale)
            hidden = layer(hidden)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Computes the logits.

        Args:
            embeddings: Of shape [B, E].

        Returns:
            The cosines to the prototypes, float32, of shape [B, K].
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            projected = functional.normalize(self.perceptron(embeddings.float()), dim=-1)
            return functional.linear(projected, functional.normalize(self.prototypes, dim=-1))
