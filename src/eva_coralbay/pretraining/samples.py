"""Regions of prepared scans, without end and in an order that only the seed decides."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from eva.core.data import datamodules
from lightning.pytorch.utilities.types import TRAIN_DATALOADERS
from torch.nn import functional
from torch.utils import data as torch_data
from typing_extensions import override

from eva_coralbay.data import loader_workers, preparation
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.pretraining import manifest as manifest_lib
from eva_coralbay.pretraining import views as views_lib

AIR = -1024
"""The HU around a scan that is smaller than a region."""

PROBE_NUMBER = 2**33
"""What keeps the random numbers of the monitors' regions apart from those of the training.

A seed of so many bits has a word more, as that of a pass over the scans has, but another one.
"""

_PREFETCHED = 4
"""How many batches each worker has ready."""

_BYTES_OF_HU = 2
"""The size of a voxel of a region."""


class PretrainingData(datamodules.DataModule):
    """Samples for self-distillation: a region of a scan, and what its views are.

    The samples have numbers, from 0 without end. Number n is scan n modulo N of a permutation of
    the N scans, which is another one for each pass, and a region and views which are drawn by a
    generator of its own: it is the same whatever the number of workers, and in a run that was
    interrupted. Rank r of R takes at step m the numbers from (m R + r) b, of which there are b, the
    batch size.
    """

    def __init__(
        self,
        *,
        store: str,
        views: views_lib.Views | None = None,
        batch_size: int = 8,
        num_workers: int = 8,
        held_out: int = 0,
        augmentation_warmup: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Initializes the data module; nothing is read yet.

        Args:
            store: The folder that `eva-coralbay pretrain prepare` wrote.
            views: The views of a sample.
            batch_size: The number of samples a step and device.
            num_workers: The number of processes that load data, for each device.
            held_out: The number of scans that are not trained on. The monitors look at them; at
                0 they look at other regions of the training scans.
            augmentation_warmup: The part of all steps over which the augmentation (flips, turns,
                HU windows, intensities) grows from none to full. Untested beyond this: the two
                views of an untrained encoder correlate with 0.19 without it and 0.006 with all
                of it.
            seed: What the order, the regions and the views follow from.

        Raises:
            EvaCoralbayError: If `augmentation_warmup` is not a part of the steps, or `held_out` is
                negative.
        """
        super().__init__()
        if not 0.0 <= augmentation_warmup <= 1.0 or held_out < 0:
            raise EvaCoralbayError(
                "`augmentation_warmup` is a part of all steps, from 0 to 1, and `held_out` a "
                f"number of scans, from 0; got {augmentation_warmup} and {held_out}."
            )
        self.views = views or views_lib.Views()
        self.batch_size = batch_size
        self.held_out = held_out
        self.augmentation_warmup = augmentation_warmup
        self.seed = seed
        self._store = store
        self._num_workers = num_workers
        self._manifest: manifest_lib.Manifest | None = None

    @property
    def manifest(self) -> manifest_lib.Manifest:
        """The manifest of the store, which says what scans there are.

        Raises:
            DatasetError: If there is none, or no scan in it.
        """
        if self._manifest is None:
            self._manifest = manifest_lib.Manifest.read(self._store)
        return self._manifest

    @property
    def cases(self) -> tuple[manifest_lib.Case, ...]:
        """The scans that are trained on."""
        kept = {case.case for case in self._held_out_cases}
        return tuple(case for case in self.manifest.prepared if case.case not in kept)

    @property
    def _held_out_cases(self) -> tuple[manifest_lib.Case, ...]:
        """The scans that are not trained on.

        They are those of the least hashes, so that a scan that was trained on is not held out
        when others are added to the store.

        Raises:
            EvaCoralbayError: If no scan would be left to train on.
        """
        cases = self.manifest.prepared
        if self.held_out and self.held_out >= len(cases):
            raise EvaCoralbayError(
                f"`held_out: {self.held_out}` leaves no scan of the {len(cases)} in the store to "
                "train on: hold out fewer."
            )
        return tuple(sorted(cases, key=_hash_of)[: self.held_out])

    def regions(self, *, full_augmentation_from: int = 0) -> "Regions":
        """Returns the source of the samples.

        Args:
            full_augmentation_from: The number of the first sample with the full augmentation.
        """
        return Regions(
            self.manifest,
            self.views,
            seed=self.seed,
            cases=self.cases,
            full_augmentation_from=full_augmentation_from,
        )

    def probe(self, number: int) -> torch.Tensor:
        """Returns regions to monitor the training with, the same ones at every call.

        They are of the scans that are held out, if there are any.

        Args:
            number: How many.

        Returns:
            The HU, int16, of shape [number, 1, R, R, R].
        """
        cases = self._held_out_cases or self.cases
        regions = Regions(self.manifest, self.views, seed=self.seed, cases=cases)
        return _read_probe(regions, number)["hu"]

    def probe_batch(self, number: int) -> dict[str, Any]:
        """Returns regions of the training scans as a batch, with views of them."""
        return _read_probe(self.regions(), number)

    @override
    def setup(self, stage: str) -> None:
        _ = self.manifest

    @override
    def train_dataloader(self) -> TRAIN_DATALOADERS:
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError("The samples of a rank are known to a trainer only.")
        if self._num_workers:
            self._check_shared_memory(ranks=trainer.num_devices)
        samples = self.batch_size * trainer.world_size * trainer.accumulate_grad_batches
        warmup = self.augmentation_warmup and self.augmentation_warmup * trainer.max_steps
        batches = _Batches(
            self.regions(full_augmentation_from=round(warmup * samples)),
            self.batch_size,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            first=trainer.global_step * trainer.accumulate_grad_batches,
        )
        return torch_data.DataLoader(
            batches,
            batch_size=None,
            num_workers=self._num_workers,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=_PREFETCHED if self._num_workers else None,
            worker_init_fn=loader_workers.init_worker,
        )

    def _check_shared_memory(self, *, ranks: int) -> None:
        """Checks that the batches that wait for the ranks of this machine fit.

        Raises:
            EvaCoralbayError: If they do not.
        """
        waiting = self._num_workers * _PREFETCHED * self.batch_size * ranks
        loader_workers.check_shared_memory(
            waiting * self.views.region_size**3 * _BYTES_OF_HU,
            made_of=f"{ranks} devices x {self._num_workers} workers x {_PREFETCHED} batches x "
            f"{self.batch_size} regions of {self.views.region_size}^3 voxels",
            remedy="N_DATA_WORKERS or BATCH_SIZE",
        )


class Regions:
    """Draws samples by their number."""

    def __init__(
        self,
        content: manifest_lib.Manifest,
        views: views_lib.Views,
        *,
        seed: int,
        cases: Sequence[manifest_lib.Case] | None = None,
        full_augmentation_from: int = 0,
    ) -> None:
        """Initializes the source.

        Args:
            content: The manifest of the store.
            views: The views of a sample.
            seed: What all samples follow from.
            cases: The scans to take; all that are prepared if None.
            full_augmentation_from: The number of the first sample with the full augmentation,
                which grows up to there.
        """
        self._manifest = content
        self._cases = content.prepared if cases is None else cases
        self._views = views
        self._seed = seed
        self._full_augmentation_from = full_augmentation_from
        self._pass: tuple[int, npt.NDArray[np.integer]] | None = None

    def read(self, number: int) -> dict[str, Any]:
        """Reads a sample.

        Args:
            number: The number of the sample.

        Returns:
            `hu` (int16, of shape [1, R, R, R]), `globals` and `locals` (what makes the views),
            `number` and `case`.
        """
        case = self._cases[self._pick(number)]
        generator = np.random.default_rng([self._seed, number])
        scan = self._manifest.open(case)
        size = self._views.region_size
        box, extent = _draw_box(scan.grid.shape, size, generator)
        inside = scan.read_image(box)[0].to(torch.int16)
        padding = [side for low, high in extent[::-1] for side in (low, size - high)]
        is_full = number >= self._full_augmentation_from
        strength = 1.0 if is_full else number / self._full_augmentation_from
        drawn_globals, drawn_locals = views_lib.draw(
            self._views, extent, generator, strength=strength
        )
        return {
            "hu": functional.pad(inside, padding, value=AIR)[None],
            "globals": drawn_globals,
            "locals": drawn_locals,
            "number": number,
            "case": case.case,
        }

    def _pick(self, number: int) -> int:
        """Returns the index of the scan of a sample."""
        cases = len(self._cases)
        index, position = divmod(number, cases)
        if self._pass is None or self._pass[0] != index:
            # the third number keeps it apart from the generators of the samples
            generator = np.random.default_rng([self._seed, index, 1])
            self._pass = index, generator.permutation(cases)
        return int(self._pass[1][position])


def _read_probe(regions: Regions, number: int) -> dict[str, Any]:
    """Reads samples whose random numbers are those of no sample of the training."""
    return torch_data.default_collate(
        [regions.read(PROBE_NUMBER + index) for index in range(number)]
    )


def _hash_of(case: manifest_lib.Case) -> str:
    return hashlib.sha256(f"{case.sha256}{case.case}".encode()).hexdigest()


class _Batches(torch_data.IterableDataset):
    """The batches of a rank, from a step on."""

    def __init__(
        self, regions: Regions, batch_size: int, *, rank: int, world_size: int, first: int
    ) -> None:
        self._regions = regions
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size
        self._first = first

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = torch_data.get_worker_info()
        # the loader asks its workers in turn
        step, stride = (self._first, 1)
        if worker is not None:
            step, stride = self._first + worker.id, worker.num_workers
        while True:
            start = (step * self._world_size + self._rank) * self._batch_size
            numbers = range(start, start + self._batch_size)
            yield torch_data.default_collate([self._regions.read(number) for number in numbers])
            step += stride


def _draw_box(
    shape: tuple[int, int, int], size: int, generator: np.random.Generator
) -> tuple[preparation.Box, npt.NDArray[np.int64]]:
    """Draws a region.

    Returns:
        What of the scan is in it, and where in the region that lies, as start and stop for each
        of (D, H, W). A scan that is smaller lies in the middle.
    """
    box, extent = [], []
    for length in shape:
        if length >= size:
            start = int(generator.integers(length - size + 1))
            box.append(slice(start, start + size))
            extent.append((0, size))
        else:
            box.append(slice(0, length))
            extent.append(((size - length) // 2, (size - length) // 2 + length))
    return (box[0], box[1], box[2]), np.array(extent)
