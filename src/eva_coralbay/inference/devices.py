"""Where networks compute, as a user names it."""

import torch

from eva_coralbay.errors import EvaCoralbayError


def check(name: str) -> str:
    """Returns the name of a device that can be used here.

    Args:
        name: The name, as PyTorch has it: cpu, cuda:1.

    Raises:
        EvaCoralbayError: If there is none of this name.
    """
    try:
        torch.zeros(1).to(name).item()
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EvaCoralbayError(
            f"'{name}' is not a usable device ({reason}). Name one as PyTorch does, "
            "such as cpu or cuda:0."
        ) from error
    return name
