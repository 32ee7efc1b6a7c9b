"""Checks that the tensors of a file can be weights."""

from collections.abc import Collection, Mapping

import torch

from eva_coralbay.models import key_layouts
from eva_coralbay.models.weight_files import CheckpointError

_WEIGHT_DTYPES = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
"""Types that hold weights."""

_INTEGER_DTYPES = frozenset({torch.int64, torch.int32})
"""Types that hold indices and counts."""


def check_tensors(
    state_dict: Mapping[str, torch.Tensor], *, integers: Collection[str], where: str
) -> None:
    """Checks that tensors are dense, finite numbers of the right kind and not larger than the file.

    Args:
        state_dict: The tensors.
        integers: Names of those that hold integers; all others hold floating-point numbers.
        where: The file, for errors.

    Raises:
        CheckpointError: If a tensor cannot be used; kinds of faults and names are listed.
    """
    problems = {
        key: problem
        for key, tensor in state_dict.items()
        if (problem := _problem(tensor, is_integer=key in integers)) is not None
    }
    if problems:
        names = {
            kind: [key for key in problems if problems[key] == kind]
            for kind in dict.fromkeys(problems.values())
        }
        found = "; ".join(
            f"{kind} in {key_layouts.count_keys('tensors', keys)}" for kind, keys in names.items()
        )
        raise CheckpointError(
            f"{where}: not usable as weights: {found} of {len(state_dict)}. Save the trained "
            "weights as dense float32 tensors; if they are NaN or infinite, the training diverged "
            "or the file is damaged."
        )


def _problem(tensor: torch.Tensor, *, is_integer: bool) -> str | None:
    """Says why a tensor cannot be a weight, None if it can."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return f"values of type {type(tensor).__name__}"
    if tensor.is_meta:
        return "no values (meta tensors)"
    if tensor.is_quantized:
        return "quantized values"
    if tensor.layout != torch.strided:
        return "sparse values"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "expanded values (a stride of 0), which need more memory than the file has"
    if is_integer:
        return None if tensor.dtype in _INTEGER_DTYPES else "an index that is not an integer"
    if tensor.dtype not in _WEIGHT_DTYPES:
        return f"values of type {str(tensor.dtype).removeprefix('torch.')}"
    if not torch.isfinite(tensor.float()).all():
        return "NaN or infinite values (in float32)"
    return None
