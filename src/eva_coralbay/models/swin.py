"""Hierarchical 3D Swin transformer with fused window attention."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import nn
from torch.nn import functional
from torch.utils import checkpoint

from eva_coralbay.models import attention

PatchMergingVariant = Literal["octants", "legacy"]
"""How the eight voxels of a 2x2x2 block are stacked when a stage halves the resolution."""

NUM_HEADS = (3, 6, 12, 24)
"""Attention heads of the four stages."""

_BLOCKS_PER_STAGE = 2

_OCTANTS: dict[PatchMergingVariant, tuple[tuple[int, int, int], ...]] = {
    "octants": (
        (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1),
    ),
    "legacy": (
        (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1),
    ),
}  # fmt: skip
"""Offsets (D, H, W) that patch merging stacks, in order; `legacy` takes two of them twice."""


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
        activation_checkpointing: bool,
    ) -> None:
        """Builds the patch embedding and the four stages.

        Args:
            in_channels: Number of input channels.
            feature_size: Channels after the patch embedding; each stage doubles them.
            patch_merging: Which voxels patch merging stacks, see `_OCTANTS`.
            drop_path_rate: Stochastic depth rate of the last block; it grows linearly from 0.
            use_v2: Whether a residual convolution block precedes each stage.
            activation_checkpointing: Whether the backward pass recomputes the stages.
        """
        super().__init__()
        self._use_v2 = use_v2
        self._activation_checkpointing = activation_checkpointing
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
                layer = ConvolutionBlock(channels, channels)
                self.add_module(f"layers{stage + 1}c", nn.ModuleList([layer]))

    def hidden_states(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yields the five hidden states, one after the other, from fine to coarse.

        Args:
            tensor: Volume of shape [B, C, D, H, W].

        Yields:
            Tensors of shape [B, F * 2**i, ceil(D / 2**(i + 1)), ...], not normalized.
        """
        hidden = self.patch_embed(tensor)
        yield hidden
        for stage in range(1, len(NUM_HEADS) + 1):
            if self._use_v2:
                hidden = self._run(f"layers{stage}c.0", hidden)
            hidden = self._run(f"layers{stage}.0", hidden)
            yield hidden

    def _run(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        return run(self.get_submodule(name), tensor, recompute=self._activation_checkpointing)


def run(module: nn.Module, tensor: torch.Tensor, *, recompute: bool) -> torch.Tensor:
    """Calls a module and, if asked, keeps its input only and recomputes the rest in backward."""
    if recompute and torch.is_grad_enabled():
        return checkpoint.checkpoint(module, tensor, use_reentrant=False)
    return module(tensor)


class ConvolutionBlock(nn.Module):
    """Residual block of two 3x3x3 convolutions with instance norm, on [B, C, D, H, W].

    The names of the parts are those of MONAI's `UnetrBasicBlock`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Builds the convolutions.

        Args:
            in_channels: Channels of the input.
            out_channels: Channels of the output. If they differ from the input's, the residual
                is projected.
        """
        super().__init__()
        convolutions = {
            "conv1": nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False),
            "conv2": nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False),
        }
        if in_channels != out_channels:
            convolutions["conv3"] = nn.Conv3d(in_channels, out_channels, 1, bias=False)
        self.layer = nn.ModuleDict(
            {name: nn.ModuleDict({"conv": conv}) for name, conv in convolutions.items()}
        )

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Convolves a tensor [B, C, D, H, W] twice and adds the residual."""
        tensor = tensor.contiguous()
        batch_size = tensor.shape[0]
        hidden = _leaky_relu_(self._normed_convolution("conv1", tensor))
        hidden = self._normed_convolution("conv2", _to_batch(hidden, batch_size))
        if "conv3" in self.layer:
            residual = self._normed_convolution("conv3", tensor)
        else:
            residual = tensor.flatten(0, 1).unsqueeze(0)
        return _to_batch(_leaky_relu_(hidden.add_(residual)), batch_size)

    def _normed_convolution(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Convolves and normalizes to [1, B * C, D, H, W].

        With gradients the result is not a view, unlike that of `instance_norm`: writing into a view
        in place costs copies of the whole map in the backward pass. Exporters to ONNX know
        `instance_norm` only.
        """
        hidden = self.layer.get_submodule(f"{name}.conv")(tensor)
        if not torch.is_grad_enabled():
            return functional.instance_norm(hidden).flatten(0, 1).unsqueeze(0)
        samples = hidden.flatten(0, 1).unsqueeze(0)
        return functional.batch_norm(samples, None, None, training=True)


def _to_batch(samples: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Views [1, B * C, D, H, W] as [B, C, D, H, W]."""
    return samples.squeeze(0).unflatten(0, (batch_size, -1))


def _leaky_relu_(tensor: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(tensor, negative_slope=0.01, inplace=True)


def normalize_channels(tensor: torch.Tensor) -> torch.Tensor:
    """Normalizes each voxel of [B, C, D, H, W] over its channels, without weights."""
    tokens = tensor.movedim(1, 4)
    # the number of channels as a constant, and no negative axes, are what ONNX needs
    return functional.layer_norm(tokens, [int(tokens.shape[-1])]).movedim(4, 1)


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
        tokens = tensor.movedim(1, 4).contiguous()
        for block in self.blocks:
            tokens = block(tokens)
        return self.downsample(tokens).movedim(4, 1)


class _Block(nn.Module):
    """Window attention and a perceptron, each a residual branch, on [B, D, H, W, C]."""

    def __init__(
        self, channels: int, *, num_heads: int, shifted: bool, drop_path_rate: float
    ) -> None:
        super().__init__()
        self._shifted = shifted
        self._drop_path_rate = drop_path_rate
        self.norm1 = nn.LayerNorm(channels)
        self.attn = attention.WindowAttention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = _Perceptron(channels)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        shape = tokens.shape
        layout = attention.window_layout(
            shape[0], shape[1:4], shifted=self._shifted, device=tokens.device
        )
        tokens = tokens.flatten(0, 3)
        windows = attention.rearrange(self.norm1(tokens), layout.gather, layout.scatter)
        attended = self.attn(windows.view(-1, layout.length, shape[-1]), layout).flatten(0, 1)
        attended = attention.rearrange(attended, layout.scatter, layout.gather)
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
