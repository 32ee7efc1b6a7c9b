"""Hierarchical 3D Swin transformer with fused window attention."""

import functools
import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.autograd import function
from torch.nn import functional
from torch.utils import checkpoint

PatchMergingVariant = Literal["octants", "legacy"]
"""How the eight voxels of a 2x2x2 block are stacked when a stage halves the resolution."""

WINDOW_SIZE = 7
"""Edge of an attention window, in tokens."""

NUM_HEADS = (3, 6, 12, 24)
"""Attention heads of the four stages."""

_BLOCKS_PER_STAGE = 2

_CHUNK = 2
"""Windows whose attention scores are in memory at a time in the backward pass on a CPU."""

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
        batch_size = len(tensor)
        hidden = _leaky_relu_(self._normed_convolution("conv1", tensor))
        hidden = self._normed_convolution("conv2", _to_batch(hidden, batch_size))
        if "conv3" in self.layer:
            residual = self._normed_convolution("conv3", tensor)
        else:
            residual = tensor.flatten(0, 1).unsqueeze(0)
        return _to_batch(_leaky_relu_(hidden.add_(residual)), batch_size)

    def _normed_convolution(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Convolves and normalizes to [1, B * C, D, H, W].

        The result is no view, unlike that of `instance_norm`: to write into a view in place
        costs copies of the whole map in the backward pass.
        """
        hidden = self.layer.get_submodule(f"{name}.conv")(tensor)
        samples = hidden.flatten(0, 1).unsqueeze(0)
        return functional.batch_norm(samples, None, None, training=True)


def _to_batch(samples: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Views [1, B * C, D, H, W] as [B, C, D, H, W]."""
    return samples.squeeze(0).unflatten(0, (batch_size, -1))


def _leaky_relu_(tensor: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(tensor, negative_slope=0.01, inplace=True)


def normalize_channels(tensor: torch.Tensor) -> torch.Tensor:
    """Normalizes each voxel of [B, C, D, H, W] over its channels, without weights."""
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
        windows = _Rearrangement.apply(self.norm1(tokens), layout.gather, layout.scatter)
        attended = self.attn(windows.view(-1, layout.length, shape[-1]), layout).flatten(0, 1)
        attended = _Rearrangement.apply(attended, layout.scatter, layout.gather)
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


class _Rearrangement(torch.autograd.Function):
    """Takes rows by an index; the gradient is the rows taken back, with no scattered sum."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, index: torch.Tensor, inverse: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(index, inverse)
        # an index of len(rows) stands for padding
        return functional.pad(rows, (0, 0, 0, 1)).index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        index, inverse = ctx.saved_tensors
        return _Rearrangement.apply(grad_outputs[0], inverse, index), None, None


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
        self._cache = _BiasCache()

    def forward(self, windows: torch.Tensor, layout: "_WindowLayout") -> torch.Tensor:
        """Attends within each of [windows, n, C]; the windows lie pattern by pattern."""
        qkv = self.qkv(windows)
        bias = self._additive_bias(layout, qkv.dtype)
        return self.proj(_attend(qkv, bias, layout.counts))

    def train(self, mode: bool = True) -> "_WindowAttention":
        self._cache.clear()
        return super().train(mode)

    def _additive_bias(self, layout: "_WindowLayout", dtype: torch.dtype) -> torch.Tensor:
        """Relative position bias and shift mask in one, [patterns, heads, n, n]."""
        if self.training or torch.is_grad_enabled():
            return self._fold(layout, dtype)
        return self._cache.get(
            self.relative_position_bias_table,
            (layout.window, len(layout.counts), dtype),
            lambda: self._fold(layout, dtype),
        )

    def _fold(self, layout: "_WindowLayout", dtype: torch.dtype) -> torch.Tensor:
        length = layout.length
        index = self.relative_position_index[:length, :length].flatten()
        bias = functional.embedding(index, self.relative_position_bias_table)
        bias = bias.view(length, length, self._num_heads).permute(2, 0, 1)
        # rows of a multiple of eight are what the memory-efficient kernels on a GPU need
        folded = functional.pad(bias + layout.masks, (0, -length % 8)).to(dtype)
        return folded[..., :length]


class _BiasCache:
    """The latest additive biases of one table, as long as the table stays the same."""

    _MAX_ENTRIES = 4

    def __init__(self) -> None:
        self._table: torch.Tensor | None = None
        self._entries: dict[Hashable, torch.Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the cached tensors out of copies and pickles."""
        return {"_table": None, "_entries": {}}

    def clear(self) -> None:
        self._table = None
        self._entries.clear()

    def get(
        self, table: torch.Tensor, key: Hashable, compute: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        if not self._knows(table):
            self.clear()
            self._table = table.detach().clone()
        if key not in self._entries:
            if len(self._entries) == self._MAX_ENTRIES:
                self._entries.pop(next(iter(self._entries)))
            self._entries[key] = compute()
        return self._entries[key]

    def _knows(self, table: torch.Tensor) -> bool:
        # compared by value: writes through `.data` leave no other trace
        return (
            self._table is not None
            and self._table.device == table.device
            and self._table.dtype == table.dtype
            and torch.equal(self._table, table)
        )


def _attend(qkv: torch.Tensor, bias: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """Attends within windows.

    Args:
        qkv: Queries, keys and values [windows, n, 3 * C].
        bias: What to add to the scores, [patterns, heads, n, n].
        counts: How many windows, in order, take each pattern.

    Returns:
        Tensor of shape [windows, n, C].
    """
    # the fused kernel of the CPU has no gradient for the bias, and without it none is fused
    if qkv.device.type == "cpu" and torch.is_grad_enabled() and bias.requires_grad:
        return _RecomputedAttention.apply(qkv, bias, counts)
    return _fused_attention(qkv, bias, counts)


def _fused_attention(qkv: torch.Tensor, bias: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    attended = []
    for part, pattern in zip(qkv.split(counts), bias.split(1), strict=True):
        query, key, value = _split_heads(part, bias.shape[1])
        heads = functional.scaled_dot_product_attention(query, key, value, attn_mask=pattern)
        attended.append(heads.transpose(1, 2).flatten(2))
    return torch.cat(attended)


def _split_heads(qkv: torch.Tensor, num_heads: int) -> tuple[torch.Tensor, ...]:
    """Views [windows, n, 3 * C] as three tensors [windows, heads, n, C / heads]."""
    return qkv.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()


class _RecomputedAttention(torch.autograd.Function):
    """Attention that keeps no scores: backward computes them again, a few windows at a time."""

    @staticmethod
    def forward(
        ctx: Any, qkv: torch.Tensor, bias: torch.Tensor, counts: Sequence[int]
    ) -> torch.Tensor:
        output = _fused_attention(qkv.detach(), bias.detach(), counts)
        ctx.save_for_backward(qkv, bias, output)
        ctx.counts = counts
        return output

    @staticmethod
    @function.once_differentiable
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        qkv, bias, output = ctx.saved_tensors
        grad_qkv = torch.empty_like(qkv)
        grad_bias = torch.zeros_like(_upcast(bias))
        tensors = (qkv, output, grad_outputs[0], grad_qkv)
        groups = zip(*(tensor.split(ctx.counts) for tensor in tensors), strict=True)
        for group, pattern, grad_pattern in zip(groups, bias, grad_bias, strict=True):
            for chunk in zip(*(tensor.split(_CHUNK) for tensor in group), strict=True):
                _attention_backward(chunk, _upcast(pattern), grad_pattern)
        return grad_qkv, grad_bias.to(bias.dtype), None


def _attention_backward(
    chunk: tuple[torch.Tensor, ...], bias: torch.Tensor, grad_bias: torch.Tensor
) -> None:
    """Differentiates the attention of some windows; writes their gradients in place."""
    qkv, output, grad_output, grad_qkv = chunk
    num_heads = bias.shape[0]
    query, key, value = (_upcast(part).flatten(0, 1) for part in _split_heads(qkv, num_heads))
    output, grad_output = (
        _upcast(part).unflatten(-1, (num_heads, -1)).transpose(1, 2).flatten(0, 1)
        for part in (output, grad_output)
    )
    scale = query.shape[-1] ** -0.5
    query = query * scale

    scores = bias.repeat(len(qkv), 1, 1).baddbmm_(query, key.mT)
    weights = scores.softmax(dim=-1)
    grad_value = weights.mT @ grad_output
    grad_scores = torch.bmm(grad_output, value.mT, out=scores)
    grad_scores.sub_((grad_output * output).sum(dim=-1, keepdim=True)).mul_(weights)
    grad_query = (grad_scores @ key).mul_(scale)
    grad_key = grad_scores.mT @ query

    for grad_window in grad_scores.unflatten(0, (-1, num_heads)):
        grad_bias += grad_window
    gradients = (grad_query, grad_key, grad_value)
    for target, gradient in zip(_split_heads(grad_qkv, num_heads), gradients, strict=True):
        target.copy_(gradient.view(target.shape))


def _upcast(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float32, or in its own type if that is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


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
    """Token of each place in the windows, [windows * n]; padding is the number of tokens."""

    scatter: torch.Tensor
    """Place in the windows of each token, [tokens]."""

    counts: tuple[int, ...]
    """How many windows, in order, share each mask."""

    masks: torch.Tensor
    """Additive shift masks [patterns, 1, n, n]."""

    window: _Size
    """Edges of a window."""

    @property
    def length(self) -> int:
        """Tokens of a window."""
        return math.prod(self.window)


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
        gather = torch.cat(groups).flatten()
        scatter = torch.empty(num_tokens + 1, dtype=torch.long)
        scatter[gather] = torch.arange(gather.numel())
        masks = torch.stack([_shift_mask(window, pattern) for pattern in patterns])
        return _WindowLayout(
            gather=gather.to(device),
            scatter=scatter[:num_tokens].to(device),
            counts=tuple(len(group) for group in groups),
            masks=masks.unsqueeze(1).to(device),
            window=(window[0], window[1], window[2]),
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
