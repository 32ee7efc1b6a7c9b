"""Multi-head attention within 3D windows, by fused kernels and without kept attention maps."""

import functools
import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.autograd import function
from torch.nn import attention, functional

WINDOW_SIZE = 7
"""Edge of an attention window, in tokens."""

_CHUNK = 2
"""Windows whose attention scores are in memory at a time in the backward pass on a CPU."""

_GPU_HEAD_MULTIPLE = 8
"""What the channels of a head are a multiple of in the memory-efficient kernels on a GPU."""

_GPU_BACKENDS = [attention.SDPBackend.EFFICIENT_ATTENTION, attention.SDPBackend.MATH]
"""The kernels to choose from on a GPU: FlashAttention takes no mask, and that of cuDNN knows no
gradient of it."""

_MASKED = -100.0
"""What the shift mask adds to the attention score of two tokens of different regions."""

_Size = tuple[int, int, int]


class WindowLayout(NamedTuple):
    """Where the tokens of a volume lie in the windows, and what the shift masks out."""

    gather: torch.Tensor
    """Token of each place in the windows, [windows * n]; padding is the number of tokens."""

    scatter: torch.Tensor
    """Place in the windows of each token, [tokens]."""

    counts: tuple[int, ...]
    """How many windows, in order, share each mask."""

    masks: torch.Tensor
    """Additive shift masks [patterns, 1, n, n]."""

    length: int
    """Tokens of a window."""


def window_layout(
    batch_size: int, size: Sequence[int], *, shifted: bool, device: torch.device
) -> WindowLayout:
    """Plans padding, cyclic shift and window partition of a volume of tokens as one gather.

    An axis that fits into one window is neither shifted nor masked. Only the last window of a
    shifted axis holds two regions, so there are at most 2**3 different masks; the windows are
    ordered by them.

    Args:
        batch_size: Number of volumes.
        size: Tokens along (D, H, W).
        shifted: Whether the windows are shifted by half their edge.
        device: Where the tensors of the layout are needed.
    """
    # in a compiled graph the number of volumes may vary; the size is a constant of it
    depth, height, width = (operator.index(edge) for edge in size)
    if torch.compiler.is_compiling():
        return _repeat(_traced_layout(depth, height, width, shifted, device), batch_size)
    return _cached_layout(operator.index(batch_size), depth, height, width, shifted, device)


def rearrange(rows: torch.Tensor, index: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """Takes rows [n, C] by an index, in which n stands for a row of zeros.

    Args:
        rows: The rows.
        index: Which row to take for each row of the result.
        inverse: Where each row lies in the result.
    """
    if torch.is_grad_enabled():
        return _Rearrangement.apply(rows, index, inverse)
    return _take_rows(rows, index)


class _Rearrangement(torch.autograd.Function):
    """Takes rows by an index; the gradient is the rows taken back, with no scattered sum."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, index: torch.Tensor, inverse: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(index, inverse)
        return _take_rows(rows, index)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        index, inverse = ctx.saved_tensors
        return _Rearrangement.apply(grad_outputs[0], inverse, index), None, None


def _take_rows(rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return functional.pad(rows, (0, 0, 0, 1)).index_select(0, index)


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias by relative position."""

    relative_position_index: torch.Tensor

    def __init__(self, channels: int, num_heads: int) -> None:
        """Builds the projections and the table of biases.

        Args:
            channels: Channels of the tokens, a multiple of `num_heads`.
            num_heads: Number of attention heads.
        """
        super().__init__()
        self._num_heads = num_heads
        table = torch.empty((2 * WINDOW_SIZE - 1) ** 3, num_heads)
        self.relative_position_bias_table = nn.Parameter(table)
        # in a line of its own: transformers below 4.50 loads with initializers that return None
        # not `trunc_normal_`, which draws other numbers for a seed in PyTorch 2.11 than in 2.15
        nn.init.normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index())
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, windows: torch.Tensor, layout: WindowLayout) -> torch.Tensor:
        """Attends within windows.

        Args:
            windows: The tokens of each window, [windows, n, C], in the order of the layout.
            layout: The layout that the windows were made by.

        Returns:
            Tensor of shape [windows, n, C].
        """
        qkv = self.qkv(windows)
        bias = self._additive_bias(layout, qkv.dtype)
        return self.proj(_attend(qkv, bias, layout.counts))

    def _additive_bias(self, layout: WindowLayout, dtype: torch.dtype) -> torch.Tensor:
        """Relative position bias and shift mask in one, [patterns, heads, n, n]."""
        length = layout.length
        index = self.relative_position_index[:length, :length].flatten()
        bias = functional.embedding(index, self.relative_position_bias_table)
        bias = bias.view(length, length, self._num_heads).permute(2, 0, 1)
        # the memory-efficient kernels on a GPU need rows of a multiple of eight that lie one after
        # the other; torch falls back to plain products without a word where they do not
        folded = functional.pad(bias + layout.masks, (0, -length % 8)).to(dtype)
        return folded.contiguous()[..., :length]


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
    attend = _attend_on_gpu if qkv.is_cuda else functional.scaled_dot_product_attention
    attended = []
    for part, pattern in zip(qkv.split(counts), bias.split(1), strict=True):
        query, key, value = _split_heads(part, bias.shape[1])
        heads = attend(query, key, value, attn_mask=pattern)
        attended.append(heads.transpose(1, 2).flatten(2))
    return torch.cat(attended)


def _attend_on_gpu(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, attn_mask: torch.Tensor
) -> torch.Tensor:
    """Attends by the memory-efficient kernels, the ones that know the gradient of a mask.

    They take heads of a multiple of eight channels; narrower ones are filled up with zeros.
    """
    channels = query.shape[-1]
    missing = -channels % _GPU_HEAD_MULTIPLE
    if missing:
        query, key, value = (functional.pad(part, (0, missing)) for part in (query, key, value))
    with attention.sdpa_kernel(_GPU_BACKENDS):
        heads = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attn_mask, scale=channels**-0.5
        )
    return heads[..., :channels]


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


def _layout(
    depth: int, height: int, width: int, shifted: bool, device: torch.device
) -> WindowLayout:
    """Plans the windows of a single volume of tokens [D, H, W]."""
    size = (depth, height, width)
    window = (min(depth, WINDOW_SIZE), min(height, WINDOW_SIZE), min(width, WINDOW_SIZE))
    shifts = [WINDOW_SIZE // 2 if shifted and n > WINDOW_SIZE else 0 for n in size]
    num_tokens = math.prod(size)
    tokens = _partition(_pad_and_shift(size, window, shifts), window)
    patterns = list(itertools.product(*((0, 1) if shift else (0,) for shift in shifts)))
    groups = [
        _windows_of(tokens, pattern, shifts).reshape(-1, math.prod(window)) for pattern in patterns
    ]
    gather = np.concatenate(groups).ravel()
    scatter = np.empty(num_tokens + 1, np.int64)
    scatter[gather] = np.arange(gather.size)
    masks = np.stack([_shift_mask(window, pattern) for pattern in patterns])[:, None]
    # a tensor made in inference mode could not be used for a gradient later
    with torch.inference_mode(False):
        return WindowLayout(
            gather=torch.from_numpy(gather).to(device),
            scatter=torch.from_numpy(scatter[:num_tokens]).to(device),
            counts=tuple(len(group) for group in groups),
            masks=torch.from_numpy(masks).to(device),
            length=math.prod(window),
        )


def _repeat(layout: WindowLayout, batch_size: int) -> WindowLayout:
    """Makes the layout of a batch of that of one volume: the windows of all volumes take turns."""
    num_tokens, length = len(layout.scatter), layout.length
    volumes = torch.arange(batch_size, device=layout.gather.device)
    places = layout.gather.view(-1, 1, length)
    gather = torch.where(
        places == num_tokens, num_tokens * batch_size, places + num_tokens * volumes[:, None]
    )
    windows = layout.scatter // length * batch_size + volumes[:, None]
    return WindowLayout(
        gather=gather.flatten(),
        scatter=(windows * length + layout.scatter % length).flatten(),
        counts=tuple(count * batch_size for count in layout.counts),
        masks=layout.masks,
        length=length,
    )


@functools.lru_cache(maxsize=64)
def _cached_layout(
    batch_size: int, depth: int, height: int, width: int, shifted: bool, device: torch.device
) -> WindowLayout:
    """The layout without its computation and its copy to the device, for sizes that were seen."""
    with torch.inference_mode(False):
        return _repeat(_layout(depth, height, width, shifted, device), batch_size)


_traced_layout = torch.compiler.assume_constant_result(_layout)
"""The layout of one volume as a constant of a graph; nothing of a trace gets into the cache."""


def _pad_and_shift(size: _Size, window: _Size, shifts: Sequence[int]) -> npt.NDArray[np.int64]:
    """Numbers the tokens [D, H, W], pads them to whole windows and shifts them cyclically."""
    num_tokens = math.prod(size)
    padded = [-(-n // edge) * edge for n, edge in zip(size, window, strict=True)]
    tokens = np.full(padded, num_tokens)
    tokens[: size[0], : size[1], : size[2]] = np.arange(num_tokens).reshape(size)
    return np.roll(tokens, [-shift for shift in shifts], axis=(0, 1, 2))


def _partition(tokens: npt.NDArray[np.int64], window: _Size) -> npt.NDArray[np.int64]:
    """Cuts [D, H, W] into windows [windows D, windows H, windows W, d, h, w]."""
    counts = [n // edge for n, edge in zip(tokens.shape, window, strict=True)]
    shape = itertools.chain.from_iterable(zip(counts, window, strict=True))
    return tokens.reshape(*shape).transpose(0, 2, 4, 1, 3, 5)


def _windows_of(
    tokens: npt.NDArray[np.int64], pattern: Sequence[int], shifts: Sequence[int]
) -> npt.NDArray[np.int64]:
    """Takes the last window along the shifted axes that the pattern marks, and not along others."""
    index = [
        slice(None) if not shift else slice(-1, None) if last else slice(None, -1)
        for shift, last in zip(shifts, pattern, strict=True)
    ]
    return tokens[tuple(index)]


def _shift_mask(window: _Size, pattern: Sequence[int]) -> npt.NDArray[np.float32]:
    """The additive mask [n, n] of a window that is the last one along the marked axes."""
    wrapped = [
        (np.arange(edge) >= edge - WINDOW_SIZE // 2) & bool(last)
        for edge, last in zip(window, pattern, strict=True)
    ]
    region = np.stack(np.meshgrid(*wrapped, indexing="ij"), axis=-1).reshape(-1, 3)
    apart = (region[:, None] != region[None, :]).any(axis=-1)
    return np.where(apart, _MASKED, 0.0).astype(np.float32)


def relative_position_index() -> torch.Tensor:
    """The row of the bias table for each pair of tokens of a full window, [n, n]."""
    axis = torch.arange(WINDOW_SIZE)
    tokens = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).flatten(0, 2)
    offsets = tokens[:, None] - tokens[None, :] + WINDOW_SIZE - 1
    span = 2 * WINDOW_SIZE - 1
    return (offsets * torch.tensor([span**2, span, 1])).sum(dim=-1)
