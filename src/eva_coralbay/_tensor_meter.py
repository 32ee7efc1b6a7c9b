"""The memory of the tensors that some code makes, and its operations, on any device."""

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.nn import functional
from torch.utils import _python_dispatch, _pytree, flop_counter
from typing_extensions import override


class LimitError(Exception):
    """The tensors take more than the limit of a meter."""


class TensorMeter(_python_dispatch.TorchDispatchMode):
    """Counts the operations in its block, and the bytes of the tensors that live.

    `FlopCounterMode` would keep tensors alive until Python collects its garbage.
    """

    def __init__(
        self, device: str, *, ignored: Iterable[torch.Tensor] = (), limit: float | None = None
    ) -> None:
        """Initializes the meter.

        Args:
            device: The kind of device whose tensors count, such as "cpu" or "meta".
            ignored: Tensors whose bytes do not count, nor do views of them.
            limit: The most bytes; a block that makes more ends with :class:`LimitError`.
        """
        super().__init__()
        self.flops = 0
        self.peak = 0
        self._device = device
        self._limit = limit
        self._live = 0
        self._known: set[int] = {tensor.untyped_storage()._cdata for tensor in ignored}

    @override
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        count = flop_counter.flop_registry.get(func.overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=outputs)
        for output in _pytree.tree_leaves(outputs):
            if isinstance(output, torch.Tensor) and output.device.type == self._device:
                self._add(output.untyped_storage())
        return outputs

    def _add(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address in self._known:
            return
        self._known.add(address)
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._remove, address, size)
        if self._limit is not None and self._live > self._limit:
            raise LimitError

    def _remove(self, address: int, size: int) -> None:
        self._known.discard(address)
        self._live -= size


@contextlib.contextmanager
def fused_attention() -> Iterator[None]:
    """Lets tensors without values attend by the memory-efficient kernel of GPUs.

    PyTorch would choose none of its fused kernels for them, and would keep all scores.
    """
    with mock.patch.object(functional, "scaled_dot_product_attention", _attend):
        yield


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    **options: Any,
) -> torch.Tensor:
    """Attends by the memory-efficient kernel, on any device."""
    del options  # neither dropout nor the scale changes what is counted
    bias = None if attn_mask is None else attn_mask.expand(len(query), -1, -1, -1)
    attend = torch.ops.aten._scaled_dot_product_efficient_attention
    return attend(query, key, value, bias, torch.is_grad_enabled())[0]
