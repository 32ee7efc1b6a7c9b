"""A 3D vision transformer with rotary positions, as VoxelFM has it.

Siméoni et al., "DINOv3", https://arxiv.org/abs/2508.10104, section 3.2, for the rotary positions;
Darcet et al., "Vision Transformers Need Registers", https://arxiv.org/abs/2309.16588.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from typing_extensions import override

from eva_coralbay.models.networks.pyramid import PyramidEncoder

_AXES = 3
NORM_EPSILON = 1e-5
"""What is added to the variance in a normalization of layers."""

_MLP_RATIO = 4


class RotaryViT(PyramidEncoder):
    """A vision transformer with a class token, whose only feature map is its grid of patch tokens.

    The map has `embed_dim` channels at a stride of `patch_size`. A volume whose sizes are not
    multiples of it is enlarged to the next ones, so that the tokens cover it evenly. The embedding
    is the normalized class token.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int,
        num_registers: int,
        rope_base: float = 100.0,
        out_indices: int | None = None,
    ) -> None:
        """Builds the network with random weights.

        Args:
            embed_dim: Channels of the tokens, a multiple of `6 * num_heads`.
            depth: Number of blocks.
            num_heads: Number of attention heads.
            patch_size: Edge of a patch in voxels.
            num_registers: Number of register tokens.
            rope_base: Base of the periods of the rotary positions.
            out_indices: 1 for the feature map instead of the embedding.
        """
        super().__init__(out_indices=out_indices, num_maps=1)
        self._architecture = {
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "patch_size": patch_size,
            "num_registers": num_registers,
            "rope_base": rope_base,
        }
        self.core = _Tokens(
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            patch_size=patch_size,
            num_registers=num_registers,
            rope_base=rope_base,
        )

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
        token, feature_map = self.core(self._enlarge(tensor))
        return token, [feature_map]

    @override
    def describe(self) -> dict[str, Any]:
        return {
            "architecture": {**self._architecture, "other_sizes": "enlarged to whole patches"},
            "embedding": "class token",
        }

    def _enlarge(self, tensor: torch.Tensor) -> torch.Tensor:
        """Returns a volume of whole patches."""
        patch, sizes = self._architecture["patch_size"], tensor.shape[2:]
        whole = [-(-size // patch) * patch for size in sizes]
        if whole == list(sizes):
            return tensor
        return functional.interpolate(tensor, whole, mode="trilinear", align_corners=False)


class _Tokens(nn.Module):
    """The transformer; the names of its parts are those of the published state dict."""

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int,
        num_registers: int,
        rope_base: float,
    ) -> None:
        super().__init__()
        projection = nn.Conv3d(1, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.patch_embed = nn.ModuleDict({"proj": projection})
        self.rope_embed = RotaryPositions(embed_dim // num_heads, rope_base)
        self.cls_token = nn.Parameter(torch.randn(1, 1, embed_dim) * 1e-6)
        self.register_tokens = nn.Parameter(torch.randn(1, num_registers, embed_dim) * 1e-6)
        # the training replaced masked patches by it; it is in the file and not used
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dim))
        self.blocks = nn.ModuleList(
            Block(embed_dim, _Attention(embed_dim, num_heads)) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPSILON)

    def forward(self, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the class token [B, E] and the patch tokens [B, E, D, H, W], normalized."""
        patches = self.patch_embed["proj"](tensor)
        grid = patches.shape[2:]
        special = torch.cat([self.cls_token, self.register_tokens], dim=1)
        tokens = patches.flatten(2).mT
        tokens = torch.cat([special.expand(len(tokens), -1, -1), tokens], dim=1)
        sine, cosine = self.rope_embed(grid, num_special=special.shape[1])
        for block in self.blocks:
            tokens = block(tokens, sine, cosine)
        tokens = self.norm(tokens)
        return tokens[:, 0], tokens[:, special.shape[1] :].mT.unflatten(2, grid)


class RotaryPositions(nn.Module):
    """Angles by which pairs of channels are rotated, a third of the pairs by each axis."""

    periods: torch.Tensor

    def __init__(self, head_dim: int, base: float) -> None:
        """Computes the periods.

        Args:
            head_dim: Channels of a head, a multiple of six.
            base: Base of the periods.
        """
        super().__init__()
        pairs = torch.arange(head_dim // (2 * _AXES), dtype=torch.float32)
        self.register_buffer("periods", base ** (2.0 * pairs / (head_dim // _AXES)))

    def forward(self, grid: torch.Size, *, num_special: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns sine and cosine [tokens, head_dim / 2]; special tokens are not rotated."""
        axes = [
            (torch.arange(0.5, size, device=self.periods.device) / size) * 2.0 - 1.0
            for size in grid
        ]
        coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
        angles = 2.0 * math.pi * coordinates[:, :, None] / self.periods.float()
        angles = functional.pad(angles.flatten(1), (0, 0, num_special, 0))
        return angles.sin(), angles.cos()


class Block(nn.Module):
    """Attention and a perceptron, each a scaled residual branch, on tokens [B, N, E]."""

    def __init__(self, embed_dim: int, attention: nn.Module) -> None:
        """Builds the block.

        Args:
            embed_dim: Channels of the tokens.
            attention: Maps tokens, sine and cosine to tokens.
        """
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=NORM_EPSILON)
        self.attn = attention
        self.ls1 = Scale(embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim, eps=NORM_EPSILON)
        self.mlp = nn.ModuleDict(
            {
                "fc1": nn.Linear(embed_dim, _MLP_RATIO * embed_dim),
                "fc2": nn.Linear(_MLP_RATIO * embed_dim, embed_dim),
            }
        )
        self.ls2 = Scale(embed_dim)

    def forward(
        self, tokens: torch.Tensor, sine: torch.Tensor, cosine: torch.Tensor
    ) -> torch.Tensor:
        """Maps tokens [B, N, E] with the sine and cosine [N, C / 2] of their positions."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens), sine, cosine))
        hidden = functional.gelu(self.mlp["fc1"](self.norm2(tokens)))
        return tokens + self.ls2(self.mlp["fc2"](hidden))


class _Attention(nn.Module):
    """Multi-head attention with rotated queries and keys."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self._num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(
        self, tokens: torch.Tensor, sine: torch.Tensor, cosine: torch.Tensor
    ) -> torch.Tensor:
        qkv = self.qkv(tokens).unflatten(-1, (3, self._num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind()
        attended = functional.scaled_dot_product_attention(
            _rotate(query, sine, cosine), _rotate(key, sine, cosine), value
        )
        return self.proj(attended.transpose(1, 2).flatten(2))


def _rotate(heads: torch.Tensor, sine: torch.Tensor, cosine: torch.Tensor) -> torch.Tensor:
    """Rotates neighboring channels of [B, heads, N, C] by angles [N, C / 2]."""
    sine, cosine = sine.to(heads.dtype), cosine.to(heads.dtype)
    even, odd = heads[..., 0::2], heads[..., 1::2]
    rotated = (even * cosine - odd * sine, even * sine + odd * cosine)
    return torch.stack(rotated, dim=-1).flatten(-2)


class Scale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, embed_dim: int) -> None:
        """Initializes the factors of `embed_dim` channels."""
        super().__init__()
        self.gamma = nn.Parameter(torch.full((embed_dim,), 1e-5))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scales the channels of tokens [..., E]."""
        return tokens * self.gamma
