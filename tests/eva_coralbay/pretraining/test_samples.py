"""Tests that the samples follow from their numbers alone."""

import itertools
import multiprocessing
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eva_coralbay.errors import DatasetError
from eva_coralbay.pretraining import samples as data_lib
from eva_coralbay.pretraining.samples import AIR, PretrainingData
from tests.eva_coralbay.pretraining import stores


@pytest.fixture(name="store", scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return stores.write_store(tmp_path_factory.mktemp("store"))


def _iterate(
    store: str, *, workers: int = 0, rank: int = 0, ranks: int = 1, step: int = 0,
    accumulated: int = 1, batch_size: int = 2,
) -> Iterator[dict]:  # fmt: skip
    """Returns the batches of a rank."""
    data = PretrainingData(
        store=store, views=stores.VIEWS, batch_size=batch_size, num_workers=workers, seed=5
    )
    data.trainer = SimpleNamespace(
        global_rank=rank, world_size=ranks, global_step=step, accumulate_grad_batches=accumulated
    )
    return iter(data.train_dataloader())


def _batches(store: str, number: int, **options: int) -> list[dict]:
    """Returns the first batches of a rank."""
    return list(itertools.islice(_iterate(store, **options), number))


def _assert_equal(first: dict, second: dict) -> None:
    assert first["case"] == second["case"]
    torch.testing.assert_close(first["hu"], second["hu"], rtol=0, atol=0)
    for size in ("globals", "locals"):
        for one, other in zip(first[size], second[size], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_batch(store: str) -> None:
    (batch,) = _batches(store, 1)
    assert batch["hu"].shape == (2, 1, 44, 44, 44) and batch["hu"].dtype == torch.int16
    assert batch["globals"].theta.shape == (2, 2, 3, 4)
    assert batch["locals"].windows.shape[:2] == (2, 1)
    assert batch["number"].tolist() == [0, 1] and len(set(batch["case"])) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(store: str, workers: int) -> None:
    for first, second in zip(_batches(store, 5), _batches(store, 5, workers=workers), strict=True):
        _assert_equal(first, second)


@pytest.mark.skipif(sys.platform != "linux", reason="Who sent a signal is not known elsewhere.")
def test_workers_leave_for_their_parent_only(store: str) -> None:
    """A signal to all processes leaves them, and the end of the parent does not wait for them."""
    batches = _iterate(store, workers=2)
    next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker, name in itertools.product(workers, ("USR1", "TERM")):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    for _ in range(20):  # more than what the workers had read ahead
        next(batches)
    for worker in workers:
        worker.terminate()
        worker.join(timeout=10.0)
        assert worker.exitcode == 0


def test_goes_on_from_a_step(store: str) -> None:
    through = _batches(store, 6)
    _assert_equal(through[3], _batches(store, 1, step=3)[0])
    _assert_equal(through[4], _batches(store, 1, step=2, accumulated=2, workers=2)[0])


def test_ranks_share_the_batch_of_one_process(store: str) -> None:
    joint = _batches(store, 3, batch_size=4)
    ranks = [_batches(store, 3, rank=rank, ranks=2) for rank in range(2)]
    for step, batch in enumerate(joint):
        parts = [ranks[rank][step] for rank in range(2)]
        assert sum((part["case"] for part in parts), []) == batch["case"]
        torch.testing.assert_close(torch.cat([part["hu"] for part in parts]), batch["hu"])


def test_each_pass_has_every_scan_once_in_another_order(store: str) -> None:
    cases = sum((batch["case"] for batch in _batches(store, 12, batch_size=3)), [])
    passes = [tuple(cases[start : start + 3]) for start in range(0, 36, 3)]
    assert all(len(set(order)) == 3 for order in passes)
    assert len(set(passes)) > 2


def test_a_small_scan_lies_in_air(tmp_path: pathlib.Path) -> None:
    store = stores.write_store(tmp_path, cases=1, shape=(20, 60, 60))
    (batch,) = _batches(store, 1)
    lies = (batch["hu"][0, 0] != AIR).flatten(1).any(dim=1)
    assert np.flatnonzero(lies.numpy()).tolist() == list(range(12, 32))


def test_the_probe_stays(store: str) -> None:
    data = PretrainingData(store=store, views=stores.VIEWS)
    probe = data.probe(3)
    assert probe.shape == (3, 1, 44, 44, 44) and probe.dtype == torch.int16
    torch.testing.assert_close(probe, data.probe(3), rtol=0, atol=0)


@pytest.mark.parametrize("seed", [0, 5, 2**32 + 5])
def test_the_probe_has_random_numbers_of_its_own(seed: int) -> None:
    """They are those of no sample and of no pass over the scans."""
    draws = {
        (name, index): np.random.default_rng(key).integers(2**62)
        for index in range(20)
        for name, key in (
            ("sample", [seed, index]),
            ("pass", [seed, index, 1]),
            ("probe", [seed, data_lib._PROBE + index]),
        )
    }
    assert len(set(draws.values())) == len(draws)


def test_says_where_a_store_is_missing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="pretrain prepare"):
        PretrainingData(store=str(tmp_path)).setup("fit")
