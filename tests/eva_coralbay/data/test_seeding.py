"""Tests the training samples by number and the seeds of a run's parts."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai import transforms as monai_transforms
from torch.utils import data as torch_data

from eva_coralbay.data import seeding


class _Pair(torch_data.Dataset):
    """Yields the case and what two random transforms draw, as eva's intensity transforms would."""

    def __init__(self) -> None:
        self.scale = monai_transforms.RandScaleIntensity(factors=0.1, prob=0.5)
        self.shift = {"nested": [monai_transforms.RandShiftIntensity(offsets=0.1, prob=0.5)]}

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> torch.Tensor:
        ones = np.ones((1, 2, 2, 2), dtype=np.float32)
        scaled = self.scale(ones).mean()
        shifted = self.shift["nested"][0](ones).mean()
        return torch.tensor([float(index), float(scaled), float(shifted)])


def _load(
    n_batches: int,
    *,
    num_workers: int = 0,
    batch_size: int = 4,
    seed: int = 3,
    first_batch: Callable[[], int] = lambda: 0,
) -> torch.Tensor:
    loader = seeding.SampleLoader(
        seeding.Samples(_Pair(), seed=seed),
        batch_size=batch_size,
        first_batch=first_batch,
        num_workers=num_workers,
    )
    batches = iter(loader)
    return torch.cat([next(batches) for _ in range(n_batches)])


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_number_of_workers_changes_nothing(num_workers: int) -> None:
    assert torch.equal(_load(7), _load(7, num_workers=num_workers))
    assert not torch.equal(_load(7), _load(7, seed=4))


@given(batch_size=st.integers(1, 7), n_batches=st.integers(1, 5), first=st.integers(0, 50))
@settings(deadline=None, max_examples=25)
def test_all_batch_sizes_see_one_sequence_and_go_on_in_it(
    batch_size: int, n_batches: int, first: int
) -> None:
    end = (first + n_batches) * batch_size
    one_by_one = _load(end, batch_size=1)
    loaded = _load(n_batches, batch_size=batch_size, first_batch=lambda: first)
    assert torch.equal(loaded, one_by_one[first * batch_size :])


def test_each_pass_has_every_case_once_in_another_order() -> None:
    cases = _load(40, batch_size=1)[:, 0].reshape(8, 5)
    assert all(sorted(order) == list(range(5)) for order in cases.tolist())
    assert len({tuple(order) for order in cases.tolist()}) > 3


def test_transforms_of_one_sample_draw_apart() -> None:
    fired = _load(40, batch_size=1)[:, 1:] != 1.0
    assert 8 < int(fired[:, 0].sum()) < 32 and 8 < int(fired[:, 1].sum()) < 32
    assert not torch.equal(fired[:, 0], fired[:, 1])


def test_what_was_drawn_before_changes_nothing() -> None:
    samples, others = seeding.Samples(_Pair(), seed=0), seeding.Samples(_Pair(), seed=0)
    expected = samples.read(17)
    for number in (3, 99, 4):
        others.read(number)
    assert torch.equal(others.read(17), expected)


def test_a_loader_begins_where_the_training_is_whenever_it_starts() -> None:
    step = {"now": 0}
    loader = seeding.SampleLoader(
        seeding.Samples(_Pair(), seed=0), batch_size=2, first_batch=lambda: step["now"]
    )
    first = [batch for _, batch in zip(range(4), copy.copy(loader), strict=False)]
    step["now"] = 3
    assert torch.equal(next(iter(loader)), first[3])


def test_parts_of_a_run_have_seeds_of_their_own() -> None:
    seeds = {
        seeding.part_seed(run, part, number)
        for run in range(3)
        for part in ("encoder", "decoder", "step")
        for number in range(3)
    }
    assert len(seeds) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)
