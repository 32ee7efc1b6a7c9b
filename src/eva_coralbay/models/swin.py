"""Hierarchical 3D Swin transformer with fused window attention."""

import functools
import itertools
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from monai.networks.blocks import unetr_block
from torch import nn
from torch.nn import functional

PatchMergingVariant = Literal["octants", "legacy"]
"""How the eight voxels of a 2x2x2 block are stacked when a stage halves the resolution."""

WINDOW_SIZE = 7
"""Edge of an attention window, in tokens."""

NUM_HEADS = (3, 6, 12, 24)
"""Attention heads of the four stages."""

_BLOCKS_PER_STAGE = 2

_MASKED = -100.0
"""What the shift mask adds to the attention score of two tokens of different regions."""

_OCTANTS: dict[PatchMergingVariant, tuple[tuple[int, int, int], ...]] = {
    "octants": (
        (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1),
    ),
    "legacy": (
        (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1),
    ),
}  # fmt: skip
"""Offsets (D, H, W) that patch merging stacks, in order; `legacy` takes two of them twice."""

_Size = tuple[int, int, int]


class SwinTransformer(nn.Module):
    """Swin transformer of four stages on 3D volumes, with SwinUNETR's key layout [0].

    - [0] SwinUNETR-V2: Stronger Swin Transformers with Stagewise Convolutions for 3D Medical
      Image Segmentation, https://doi.org/10.1007/978-3-031-43901-8_40
    """

    def __init__(
        self,
        *,
        in_channels: int,
        feature_size: int,
        patch_merging: PatchMergingVariant,
        drop_path_rate: float,
        use_v2: bool,
    ) -> None:
        """Builds the patch embedding and the four stages.

        Args:
            in_channels: Number of input channels.
            feature_size: Channels after the patch embedding; each stage doubles them.
            patch_merging: Which voxels patch merging stacks, see `_OCTANTS`.
            drop_path_rate: Stochastic depth rate of the last block; it grows linearly from 0.
            use_v2: Whether a residual convolution block precedes each stage.
        """
        super().__init__()
        self._use_v2 = use_v2
        self.patch_embed = _PatchEmbedding(in_channels, feature_size)
        num_blocks = len(NUM_HEADS) * _BLOCKS_PER_STAGE
        rates = [drop_path_rate * block / (num_blocks - 1) for block in range(num_blocks)]
        for stage, num_heads in enumerate(NUM_HEADS):
            first = stage * _BLOCKS_PER_STAGE
            layer = _Stage(
                feature_size * 2**stage,
                num_heads=num_heads,
                drop_path_rates=rates[first : first + _BLOCKS_PER_STAGE],
                patch_merging=patch_merging,
            )
            self.add_module(f"layers{stage + 1}", nn.ModuleList([layer]))
        if use_v2:
            for stage in range(len(NUM_HEADS)):
                channels = feature_size * 2**stage
                layer = convolution_block(channels, channels)
                self.add_module(f"layers{stage + 1}c", nn.ModuleList([layer]))

    def hidden_states(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yields the five hidden states, one after the other, from fine to coarse.

        Args:
            tensor: Volume of shape [B, C, D, H, W].

        Yields:
            Tensors of shape [B, F * 2**i, ceil(D / 2**(i + 1)), ...], not normalised.
        """
        hidden = self.patch_embed(tensor)
        yield hidden
        for stage in range(1, len(NUM_HEADS) + 1):
            if self._use_v2:
                hidden = self.get_submodule(f"layers{stage}c.0")(hidden.contiguous())
            hidden = self.get_submodule(f"layers{stage}.0")(hidden)
            yield hidden


def convolution_block(in_channels: int, out_channels: int) -> nn.Module:
    """Builds a residual block of two 3x3x3 convolutions with instance norm."""
    return unetr_block.UnetrBasicBlock(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=3,
        stride=1,
        norm_name="instance",
        res_block=True,
    )


def normalize_channels(tensor: torch.Tensor) -> torch.Tensor:
    """Normalises each voxel of [B, C, D, H, W] over its channels, without weights."""
    tokens = tensor.movedim(1, -1)
    return functional.layer_norm(tokens, tokens.shape[-1:]).movedim(-1, 1)


class _PatchEmbedding(nn.Module):
    """Projects each 2x2x2 block of voxels to one token; odd sizes are padded with zeros."""

    def __init__(self, in_channels: int, feature_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(in_channels, feature_size, kernel_size=2, stride=2)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        depth, height, width = tensor.shape[2:]
        return self.proj(functional.pad(tensor, (0, width % 2, 0, height % 2, 0, depth % 2)))


class _Stage(nn.Module):
    """A plain and a shifted window block, then patch merging: [B, C, ...] to [B, 2C, ...]."""

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int,
        drop_path_rates: list[float],
        patch_merging: PatchMergingVariant,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _Block(channels, num_heads=num_heads, shifted=index % 2 == 1, drop_path_rate=rate)
            for index, rate in enumerate(drop_path_rates)
        )
        self.downsample = _PatchMerging(channels, patch_merging)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        tokens = tensor.movedim(1, -1).contiguous()
        for block in self.blocks:
            tokens = block(tokens)
        return self.downsample(tokens).movedim(-1, 1)


class _Block(nn.Module):
    """Window attention and a perceptron, each a residual branch, on [B, D, H, W, C]."""

    def __init__(
        self, channels: int, *, num_heads: int, shifted: bool, drop_path_rate: float
    ) -> None:
        super().__init__()
        self._shifted = shifted
        self._drop_path_rate = drop_path_rate
        self.norm1 = nn.LayerNorm(channels)
        self.attn = _WindowAttention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = _Perceptron(channels)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        shape = tokens.shape
        layout = _window_layout(shape[0], shape[1:4], self._shifted, tokens.device)
        tokens = tokens.flatten(0, 3)
        normed = functional.pad(self.norm1(tokens), (0, 0, 0, 1))
        windows = normed[layout.gather]
        attended = self.attn(windows, layout).flatten(0, 1)[layout.scatter]
        tokens = tokens + self._drop_path(attended, shape[0])
        tokens = tokens + self._drop_path(self.mlp(self.norm2(tokens)), shape[0])
        return tokens.view(shape)

    def _drop_path(self, branch: torch.Tensor, batch_size: int) -> torch.Tensor:
        """Drops the branch of whole samples while training, and scales the rest up for it."""
        if not self.training or self._drop_path_rate == 0.0:
            return branch
        keep = 1.0 - self._drop_path_rate
        kept = branch.new_empty(batch_size, 1, 1).bernoulli_(keep) / keep
        return (branch.view(batch_size, -1, branch.shape[-1]) * kept).view_as(branch)


class _WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias by relative position."""

    relative_position_index: torch.Tensor

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self._num_heads = num_heads
        table = torch.empty((2 * WINDOW_SIZE - 1) ** 3, num_heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.register_buffer("relative_position_index", _relative_position_index())
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, windows: torch.Tensor, layout: "_WindowLayout") -> torch.Tensor:
        """Attends within each of [windows, n, C]; the windows lie pattern by pattern."""
        num_windows, length, channels = windows.shape
        qkv = self.qkv(windows).view(num_windows, length, 3, self._num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        bias = self._bias(length)
        outputs = []
        start = 0
        for count, mask in zip(layout.counts, layout.masks, strict=True):
            rows = slice(start, start + count)
            outputs.append(
                functional.scaled_dot_product_attention(
                    query[rows],
                    key[rows],
                    value[rows],
                    attn_mask=(bias + mask).to(query.dtype).unsqueeze(0),
                )
            )
            start += count
        attended = torch.cat(outputs).transpose(1, 2).reshape(num_windows, length, channels)
        return self.proj(attended)

    def _bias(self, length: int) -> torch.Tensor:
        """The relative position bias [heads, n, n] of windows of n tokens."""
        index = self.relative_position_index[:length, :length].flatten()
        bias = functional.embedding(index, self.relative_position_bias_table)
        return bias.view(length, length, self._num_heads).permute(2, 0, 1)


class _Perceptron(nn.Module):
    """Two linear layers with a GELU between them, four times as wide inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, 4 * channels)
        self.linear2 = nn.Linear(4 * channels, channels)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.linear2(functional.gelu(self.linear1(tokens)))


class _PatchMerging(nn.Module):
    """Halves the resolution and doubles the channels: [B, D, H, W, C] to [B, ..., 2C]."""

    def __init__(self, channels: int, variant: PatchMergingVariant) -> None:
        super().__init__()
        self._octants = _OCTANTS[variant]
        self.reduction = nn.Linear(8 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(8 * channels)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        depth, height, width = tokens.shape[1:4]
        tokens = functional.pad(tokens, (0, 0, 0, width % 2, 0, height % 2, 0, depth % 2))
        stacked = [tokens[:, d::2, h::2, w::2] for d, h, w in self._octants]
        return self.reduction(self.norm(torch.cat(stacked, dim=-1)))


class _WindowLayout(NamedTuple):
    """Where the tokens of a volume lie in the windows, and what the shift masks out."""

    gather: torch.Tensor
    """Token of each place [windows, n]; padding is the row after the last token."""

    scatter: torch.Tensor
    """Place of each token [tokens] in the flattened windows."""

    counts: tuple[int, ...]
    """How many windows, in order, share each mask."""

    masks: torch.Tensor
    """Additive shift masks [patterns, 1, n, n]."""


@functools.lru_cache(maxsize=64)
def _window_layout(
    batch_size: int, size: _Size, shifted: bool, device: torch.device
) -> _WindowLayout:
    """Plans padding, cyclic shift and window partition as one gather.

    An axis that fits into one window is neither shifted nor masked. Only the last window of a
    shifted axis holds two regions, so there are at most 2**3 different masks; the windows are
    ordered by them.
    """
    window = [min(length, WINDOW_SIZE) for length in size]
    shifts = [WINDOW_SIZE // 2 if shifted and n > WINDOW_SIZE else 0 for n in size]
    padded = [-(-n // w) * w for n, w in zip(size, window, strict=True)]
    with torch.inference_mode(False):
        num_tokens = batch_size * size[0] * size[1] * size[2]
        tokens = torch.full((batch_size, *padded), num_tokens)
        tokens[:, : size[0], : size[1], : size[2]] = torch.arange(num_tokens).view(-1, *size)
        tokens = tokens.roll([-shift for shift in shifts], dims=(1, 2, 3))
        for axis, edge in enumerate(window):
            tokens = tokens.unflatten(1 + 2 * axis, (-1, edge))
        tokens = tokens.permute(1, 3, 5, 0, 2, 4, 6)
        patterns = list(itertools.product(*((0, 1) if shift else (0,) for shift in shifts)))
        groups = []
        for pattern in patterns:
            group = tokens
            for axis, last in enumerate(pattern):
                if shifts[axis]:
                    edge = group.shape[axis] - 1
                    group = group.narrow(axis, edge if last else 0, 1 if last else edge)
            groups.append(group.flatten(0, 3).flatten(1))
        gather = torch.cat(groups)
        scatter = torch.empty(num_tokens + 1, dtype=torch.long)
        scatter[gather.flatten()] = torch.arange(gather.numel())
        masks = torch.stack([_shift_mask(window, pattern) for pattern in patterns])
        return _WindowLayout(
            gather=gather.to(device),
            scatter=scatter[:num_tokens].to(device),
            counts=tuple(len(group) for group in groups),
            masks=masks.unsqueeze(1).to(device),
        )


def _shift_mask(window: list[int], pattern: tuple[int, ...]) -> torch.Tensor:
    """The additive mask [n, n] of a window that is the last one along the marked axes."""
    wrapped = [
        torch.arange(edge) >= edge - WINDOW_SIZE // 2 if last else torch.zeros(edge).bool()
        for edge, last in zip(window, pattern, strict=True)
    ]
    region = torch.stack(torch.meshgrid(*wrapped, indexing="ij"), dim=-1).flatten(0, 2)
    apart = (region[:, None] != region[None, :]).any(dim=-1)
    return torch.zeros(apart.shape).masked_fill(apart, _MASKED)


def _relative_position_index() -> torch.Tensor:
    """The row of the bias table for each pair of tokens of a full window, [n, n]."""
    axis = torch.arange(WINDOW_SIZE)
    tokens = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).flatten(0, 2)
    offsets = tokens[:, None] - tokens[None, :] + WINDOW_SIZE - 1
    span = 2 * WINDOW_SIZE - 1
    return (offsets * torch.tensor([span**2, span, 1])).sum(dim=-1)
