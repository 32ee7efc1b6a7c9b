"""Training samples by number, and seeds of their own for all that is random in a run.

eva's loader shuffles with the global random state, and its `seed_worker` seeds the transforms of a
worker: so another number of workers gives other crops, all transforms of a worker have one seed (a
scale and a shift of the intensities always fire together), and some have none. Here sample number
n of a run follows from the seed of the run and from n alone: which case it is of, and what every
random transform draws for it. The number of workers, and an interruption, change nothing.
"""

import types
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from monai import transforms as monai_transforms
from torch import nn
from torch.utils import data as torch_data
from typing_extensions import override

from eva_coralbay.data import loader_workers

_ORDER_STREAM = 2**32
"""What keeps the random numbers of the order of the cases apart from those of the samples."""

Part = Literal["encoder", "decoder", "step"]
"""What of a run has a seed of its own."""

_PARTS: tuple[Part, ...] = ("encoder", "decoder", "step")


def part_seed(run_seed: int, part: Part, number: int = 0) -> int:
    """Returns the seed of a part of a run, so that no part depends on what another one drew.

    Args:
        run_seed: The seed of the run.
        part: The part: two runs of one seed have equal decoders whatever their encoders drew, and
            equal random numbers in each step.
        number: The number of the step.

    Returns:
        A seed of 63 bits.
    """
    sequence = np.random.SeedSequence([run_seed, _PARTS.index(part), number])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


class Samples:
    """The samples of a training by their number, from 0 without end.

    Sample n is of case n modulo N of a permutation of the N cases, which is another one for each
    pass over them.
    """

    def __init__(self, dataset: Any, *, seed: int) -> None:
        """Initializes the samples.

        Args:
            dataset: The data set of the cases, with its transforms. Every random MONAI transform
                inside it has its own random numbers.
            seed: What all samples follow from.
        """
        self._dataset = dataset
        self._seed = seed
        self._randomizables = list(_walk_randomizables(dataset, seen=set()))
        self._pass: tuple[int, npt.NDArray[np.integer]] | None = None

    def read(self, number: int) -> Any:
        """Reads a sample.

        Args:
            number: The number of the sample.

        Returns:
            What the data set gives of its case.
        """
        streams = np.random.SeedSequence([self._seed, number]).spawn(len(self._randomizables))
        for randomizable, stream in zip(self._randomizables, streams, strict=True):
            randomizable.set_random_state(state=np.random.RandomState(np.random.MT19937(stream)))
        return self._dataset[self._pick(number)]

    def _pick(self, number: int) -> int:
        """Returns the index of the case of a sample."""
        index, position = divmod(number, len(self._dataset))
        if self._pass is None or self._pass[0] != index:
            generator = np.random.default_rng([self._seed, index, _ORDER_STREAM])
            self._pass = index, generator.permutation(len(self._dataset))
        return int(self._pass[1][position])


class SampleLoader(torch_data.DataLoader):
    """Loads batches of samples without end, from the batch on that the training is at.

    Batch m has the samples from m b on, of which there are b, the batch size: two batch sizes see
    one sequence of samples.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        batch_size: int,
        first_batch: Callable[[], int],
        collate: Callable[[list[Any]], Any] | None = None,
        num_workers: int = 0,
    ) -> None:
        """Initializes the loader.

        Args:
            samples: The samples.
            batch_size: The number of samples in a batch.
            first_batch: Tells, whenever the loading starts, the number of the first batch.
            collate: Makes a batch of a list of samples, torch's function if None.
            num_workers: The number of processes that load samples.
        """
        self._batches = _Batches(samples, batch_size, collate or torch_data.default_collate)
        self._first_batch = first_batch
        super().__init__(
            self._batches,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=loader_workers.PREFETCHED if num_workers else None,
            worker_init_fn=loader_workers.init_worker,
        )

    @override
    def __iter__(self) -> Any:
        self._batches.first = self._first_batch()
        return super().__iter__()


class _Batches(torch_data.IterableDataset):
    """The batches from one on; the workers of a loader take turns."""

    def __init__(
        self, samples: Samples, batch_size: int, collate: Callable[[list[Any]], Any]
    ) -> None:
        self.first = 0
        self._samples = samples
        self._batch_size = batch_size
        self._collate = collate

    def __iter__(self) -> Iterator[Any]:
        worker = torch_data.get_worker_info()
        batch, stride = (self.first, 1)
        if worker is not None:
            batch, stride = self.first + worker.id, worker.num_workers
        while True:
            numbers = range(batch * self._batch_size, (batch + 1) * self._batch_size)
            yield self._collate([self._samples.read(number) for number in numbers])
            batch += stride


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
