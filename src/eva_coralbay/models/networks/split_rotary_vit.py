"""A 3D vision transformer with rotary positions, as SPECTRE's local one is.

Claessens et al., "Scaling Self-Supervised and Cross-Modal Pretraining for Volumetric CT
Transformers", https://arxiv.org/abs/2511.17209.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from typing_extensions import override

from eva_coralbay.models.networks import rotary_vit
from eva_coralbay.models.networks.pyramid import PyramidEncoder


class SplitRotaryViT(PyramidEncoder):
    """A vision transformer with a class token, whose only feature map is its grid of patch tokens.

    The map has `embed_dim` channels at a stride of `patch_size`; what is left over at the end of an
    axis is not seen. The embedding is the class token beside the mean of the patch tokens, which is
    what SPECTRE's global transformer takes of each crop. It differs from `RotaryViT` in the names
    of its weights, and in that the two halves of a head's channels are rotated, not its neighbors.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: tuple[int, int, int],
        rope_base: float,
        out_indices: int | None = None,
    ) -> None:
        """Builds the network with random weights.

        Args:
            embed_dim: Channels of the tokens, a multiple of `6 * num_heads`.
            depth: Number of blocks.
            num_heads: Number of attention heads.
            patch_size: Edges of a patch in voxels, along the three axes.
            rope_base: Base of the periods of the rotary positions.
            out_indices: 1 for the feature map instead of the embedding.
        """
        super().__init__(out_indices=out_indices, num_maps=1)
        self._architecture = {
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "patch_size": list(patch_size),
            "rope_base": rope_base,
        }
        self.core = Tokens(
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            patch_size=patch_size,
            rope_base=rope_base,
        )

    @override
    def forward_features(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        return [self.core(tensor)[1]]

    @override
    def forward_embeddings(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.forward_intermediates(tensor)[0]

    @override
    def forward_intermediates(
        self, tensor: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        token, feature_map = self.core(tensor)
        return torch.cat([token, feature_map.mean(dim=(2, 3, 4))], dim=1), [feature_map]

    @override
    def describe(self) -> dict[str, Any]:
        return {
            "architecture": self._architecture,
            "embedding": "class token and mean of the patch tokens",
        }


class Tokens(nn.Module):
    """The transformer; the names of its parts are those of the published state dict."""

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: tuple[int, int, int],
        rope_base: float,
    ) -> None:
        """Builds the transformer; the arguments are those of `SplitRotaryViT`."""
        super().__init__()
        projection = nn.Conv3d(1, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.patch_embed = nn.ModuleDict({"proj": projection})
        self.rope = rotary_vit.RotaryPositions(embed_dim // num_heads, rope_base)
        self.cls_token = nn.Parameter(torch.randn(1, 1, embed_dim) * 1e-6)
        self.blocks = build_blocks(embed_dim, depth, num_heads)
        self.norm = nn.LayerNorm(embed_dim, eps=rotary_vit.NORM_EPSILON)

    def forward(self, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the class token [B, E] and the patch tokens [B, E, D, H, W], normalized."""
        patches = self.patch_embed["proj"](tensor)
        grid = patches.shape[2:]
        tokens = torch.cat([self.cls_token.expand(len(tensor), -1, -1), patches.flatten(2).mT], 1)
        sine, cosine = self.rope(grid, num_special=1)
        for block in self.blocks:
            tokens = block(tokens, sine, cosine)
        tokens = self.norm(tokens)
        return tokens[:, 0], tokens[:, 1:].mT.unflatten(2, grid)


def build_blocks(embed_dim: int, depth: int, num_heads: int) -> nn.ModuleList:
    """Builds the blocks of a transformer.

    Args:
        embed_dim: Channels of the tokens.
        depth: Number of blocks.
        num_heads: Number of attention heads.
    """
    return nn.ModuleList(
        rotary_vit.Block(embed_dim, _Attention(embed_dim, num_heads)) for _ in range(depth)
    )


class _Attention(nn.Module):
    """Multi-head attention with rotated queries and keys."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self._num_heads = num_heads
        self.q = nn.Linear(embed_dim, embed_dim)
        self.kv = nn.Linear(embed_dim, 2 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(
        self, tokens: torch.Tensor, sine: torch.Tensor, cosine: torch.Tensor
    ) -> torch.Tensor:
        query = self.q(tokens).unflatten(-1, (self._num_heads, -1)).transpose(1, 2)
        both = self.kv(tokens).unflatten(-1, (2, self._num_heads, -1)).permute(2, 0, 3, 1, 4)
        key, value = both.unbind()
        attended = functional.scaled_dot_product_attention(
            _rotate(query, sine, cosine), _rotate(key, sine, cosine), value
        )
        return self.proj(attended.transpose(1, 2).flatten(2))


def _rotate(heads: torch.Tensor, sine: torch.Tensor, cosine: torch.Tensor) -> torch.Tensor:
    """Rotates the halves of the channels of [B, heads, N, C] by angles [N, C / 2]."""
    sine, cosine = sine.to(heads.dtype), cosine.to(heads.dtype)
    first, second = heads.chunk(2, dim=-1)
    rotated = (first * cosine - second * sine, second * cosine + first * sine)
    return torch.cat(rotated, dim=-1)
