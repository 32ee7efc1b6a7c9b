"""A vision transformer of crops and one of the scan that they make up, as SPECTRE has them.

Claessens et al., "Scaling Self-Supervised and Cross-Modal Pretraining for Volumetric CT
Transformers", https://arxiv.org/abs/2511.17209; `src/spectre/model.py` of the reference.
"""

import itertools
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from eva_coralbay.models.networks import rotary_vit, split_rotary_vit
from eva_coralbay.models.networks.pyramid import PyramidEncoder


class CropTransformer(PyramidEncoder):
    """Encodes the crops of a scan by a vision transformer, and combines them by another one.

    The feature map is that of the patch tokens of all crops, at a stride of `patch_size`; what is
    left over at the end of an axis is not seen. The embedding is the class token of the second
    transformer beside the mean of its other tokens, one a crop. It sees whole crops in the middle
    of the input only; an axis that is shorter than a crop is one crop.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: tuple[int, int, int],
        rope_base: float,
        crop_size: tuple[int, int, int],
        combiner_depth: int,
        combiner_rope_base: float,
        out_indices: int | None = None,
    ) -> None:
        """Builds the network with random weights.

        Args:
            embed_dim: Channels of the tokens, a multiple of `6 * num_heads`.
            depth: Number of blocks of the transformer of crops.
            num_heads: Number of attention heads.
            patch_size: Edges of a patch in voxels, along the three axes.
            rope_base: Base of the periods of the rotary positions in a crop.
            crop_size: Edges of a crop in voxels, multiples of `patch_size`.
            combiner_depth: Number of blocks of the transformer of scans.
            combiner_rope_base: Base of the periods of the rotary positions of crops in a scan.
            out_indices: 1 for the feature map instead of the embedding.
        """
        super().__init__(out_indices=out_indices, num_maps=1)
        self._architecture = {
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "patch_size": list(patch_size),
            "rope_base": rope_base,
            "crop_size": list(crop_size),
            "combiner_depth": combiner_depth,
            "combiner_rope_base": combiner_rope_base,
        }
        self._crop_size = crop_size
        self.core = nn.ModuleDict(
            {
                "local": split_rotary_vit.Tokens(
                    embed_dim=embed_dim,
                    depth=depth,
                    num_heads=num_heads,
                    patch_size=patch_size,
                    rope_base=rope_base,
                ),
                "global": _Combiner(
                    embed_dim=embed_dim,
                    depth=combiner_depth,
                    num_heads=num_heads,
                    rope_base=combiner_rope_base,
                ),
            }
        )

    @override
    def forward_features(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        return [self._encode_crops(tensor)[1]]

    @override
    def forward_embeddings(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._part("global")(self._encode_crops(self._center(tensor))[0])

    @override
    def forward_intermediates(
        self, tensor: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        middle = self._center(tensor)
        if middle.shape != tensor.shape:
            return self.forward_embeddings(tensor), self.forward_features(tensor)
        crops, feature_map = self._encode_crops(tensor)
        return self._part("global")(crops), [feature_map]

    @override
    def describe(self) -> dict[str, Any]:
        return {
            "architecture": self._architecture,
            "embedding": "class token and mean of the tokens of crops",
        }

    def _part(self, name: str) -> nn.Module:
        core: Any = self.core
        return core[name]

    def _center(self, tensor: torch.Tensor) -> torch.Tensor:
        """Returns the whole crops in the middle; axes that are shorter than one are kept."""
        for axis, edge in enumerate(self._crop_size, start=2):
            size = tensor.shape[axis]
            length = size // edge * edge or size
            tensor = tensor.narrow(axis, (size - length) // 2, length)
        return tensor

    def _encode_crops(self, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns class and mean token of each crop [B, 2 E, *grid], and the tokens [B, E, ...]."""
        patch = self._architecture["patch_size"]
        edges = [
            [edge] * (size // edge) + [size % edge] * (size % edge >= step)
            for size, edge, step in zip(tensor.shape[2:], self._crop_size, patch, strict=True)
        ]
        local, described, maps = self._part("local"), [], []
        for start, size in zip(_starts(edges), itertools.product(*edges), strict=True):
            crop = tensor
            for axis, (first, length) in enumerate(zip(start, size, strict=True), start=2):
                crop = crop.narrow(axis, first, length)
            token, feature_map = local(crop)
            described.append(torch.cat([token, feature_map.mean(dim=(2, 3, 4))], dim=1))
            maps.append(feature_map)
        grid = [len(along) for along in edges]
        return torch.stack(described, dim=-1).unflatten(-1, grid), _join(maps, grid)


class _Combiner(nn.Module):
    """The transformer of scans; the names of its parts are those of the published state dict."""

    def __init__(self, *, embed_dim: int, depth: int, num_heads: int, rope_base: float) -> None:
        super().__init__()
        self.patch_proj = nn.Linear(2 * embed_dim, embed_dim)
        self.rope = rotary_vit.RotaryPositions(embed_dim // num_heads, rope_base)
        self.cls_token = nn.Parameter(torch.randn(1, 1, embed_dim) * 1e-6)
        self.blocks = split_rotary_vit.build_blocks(embed_dim, depth, num_heads)
        self.norm = nn.LayerNorm(embed_dim, eps=rotary_vit.NORM_EPSILON)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Maps what is known of each crop [B, 2 E, *grid] to an embedding [B, 2 E]."""
        tokens = self.patch_proj(crops.flatten(2).mT)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        sine, cosine = self.rope(crops.shape[2:], num_special=1)
        for block in self.blocks:
            tokens = block(tokens, sine, cosine)
        tokens = self.norm(tokens)
        return torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)


def _starts(edges: list[list[int]]) -> list[tuple[int, ...]]:
    """Returns the first voxel of each crop, in the order of their grid."""
    along = [list(itertools.accumulate([0, *lengths[:-1]])) for lengths in edges]
    return list(itertools.product(*along))


def _join(maps: list[torch.Tensor], grid: list[int]) -> torch.Tensor:
    """Puts the maps of the crops of a grid beside each other."""
    for axis, number in zip((4, 3, 2), reversed(grid), strict=True):
        maps = [
            torch.cat(maps[first : first + number], dim=axis)
            for first in range(0, len(maps), number)
        ]
    return maps[0]
