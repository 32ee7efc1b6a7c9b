"""Seeds every random transform apart, so that a run can be repeated.

eva's `seed_worker` gives all transforms of a worker one seed (so a scale and a shift of the
intensities always fire together) and leaves those it does not know unseeded, and with
`num_workers=0` it is never called. Here every MONAI `Randomizable` that a data set holds gets a
stream of its own.
"""

import random
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from monai import transforms as monai_transforms
from torch import nn
from torch.utils import data as torch_data


def seed_worker(worker_id: int) -> None:
    """Seeds the random states of a data worker; to be used as its `worker_init_fn`.

    The seed is torch's for this worker: it follows from the global seed when the data loader is
    iterated and from the number of the worker.

    Args:
        worker_id: The number of the worker.
    """
    worker = torch_data.get_worker_info()
    if worker is None:
        raise RuntimeError(f"`seed_worker({worker_id})` must be called in a data loader's worker.")
    seed = worker.seed % 2**32
    random.seed(seed)
    np.random.seed(seed)
    seed_randomizables(worker.dataset, seed)


def seed_randomizables(holder: Any, seed: int) -> int:
    """Gives every random MONAI transform inside an object a random stream of its own.

    Args:
        holder: The object to search, such as a data set with its transforms.
        seed: The seed which all the streams follow from.

    Returns:
        The number of random transforms found.
    """
    found = list(_walk_randomizables(holder, seen=set()))
    streams = np.random.SeedSequence(seed).generate_state(len(found)) if found else []
    for randomizable, stream in zip(found, streams, strict=True):
        randomizable.set_random_state(seed=int(stream))
    return len(found)


def _walk_randomizables(holder: Any, *, seen: set[int]) -> Iterator[monai_transforms.Randomizable]:
    """Yields the random transforms in an object, the holder of others before those it holds."""
    if id(holder) in seen or isinstance(holder, (str, bytes, torch.Tensor, np.ndarray)):
        return
    seen.add(id(holder))
    if isinstance(holder, monai_transforms.Randomizable):
        yield holder
    for child in _children(holder):
        yield from _walk_randomizables(child, seen=seen)


def _children(holder: Any) -> list[Any]:
    if isinstance(holder, dict):
        return list(holder.values())
    if isinstance(holder, (list, tuple, nn.ModuleList)):
        return list(holder)
    if isinstance(holder, (type, types.ModuleType)) or not hasattr(holder, "__dict__"):
        return []
    return list(vars(holder).values())
