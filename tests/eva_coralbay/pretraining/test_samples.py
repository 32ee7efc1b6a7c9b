"""Tests that the samples follow from their numbers alone."""

import itertools
import multiprocessing
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eva_coralbay.errors import DatasetError, EvaCoralbayError
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
        global_rank=rank,
        world_size=ranks,
        num_devices=ranks,
        global_step=step,
        max_steps=100,
        accumulate_grad_batches=accumulated,
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
            ("probe", [seed, data_lib.PROBE_NUMBER + index]),
        )
    }
    assert len(set(draws.values())) == len(draws)


def test_says_where_a_store_is_missing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="pretrain prepare"):
        PretrainingData(store=str(tmp_path)).setup("fit")


def test_scans_that_are_held_out_are_not_trained_on(store: str) -> None:
    data = PretrainingData(store=store, views=stores.VIEWS, held_out=1)
    trained = {case.case for case in data.cases}
    assert len(trained) == 2
    regions = data.regions()
    assert {regions.read(number)["case"] for number in range(8)} == trained
    every = PretrainingData(store=store, views=stores.VIEWS)
    (held_out,) = {case.case for case in every.cases} - trained
    probe = data.probe(4)
    assert not torch.equal(probe[0], probe[1])
    # a region of a scan is a part of it
    scan = next(case for case in every.cases if case.case == held_out)
    stored = data.manifest.open(scan)
    depth, height, width = (slice(0, length) for length in stored.grid.shape)
    image = stored.read_image((depth, height, width)).to(torch.int16)
    assert set(probe[0].flatten().tolist()) <= {*image.flatten().tolist(), AIR}


def test_a_store_that_grows_holds_out_no_scan_that_was_trained_on(tmp_path: pathlib.Path) -> None:
    kept = []
    for cases in (6, 12):
        store = stores.write_store(tmp_path / str(cases), cases=cases, shape=(10, 10, 10))
        data = PretrainingData(store=store, held_out=3)
        kept.append({case.case for case in data.manifest.prepared} - {c.case for c in data.cases})
    names = {f"case_{index}" for index in range(6)}
    assert kept[1] & names <= kept[0] and len(kept[1]) == 3


def test_refuses_to_hold_out_all(store: str) -> None:
    with pytest.raises(EvaCoralbayError, match="`held_out: 3` leaves no scan of the 3"):
        _ = PretrainingData(store=store, held_out=3).cases


def test_the_augmentation_grows(store: str) -> None:
    data = PretrainingData(store=store, views=stores.VIEWS)
    regions, full = data.regions(full_augmentation_from=1000), data.regions()
    wide = torch.tensor([-1000.0, 1000.0])
    assert (regions.read(0)["globals"].windows == wide).all()
    assert not torch.equal(regions.read(0)["globals"].windows, full.read(0)["globals"].windows)
    _assert_equal(regions.read(1000) | {"case": 0}, full.read(1000) | {"case": 0})


def test_the_steps_of_a_trainer_decide_when_the_augmentation_is_full(store: str) -> None:
    data = PretrainingData(
        store=store, views=stores.VIEWS, batch_size=2, num_workers=0, augmentation_warmup=0.25
    )
    data.trainer = SimpleNamespace(
        global_rank=0, world_size=3, num_devices=3, global_step=0, accumulate_grad_batches=2,
        max_steps=40,
    )  # fmt: skip
    batches = itertools.islice(iter(data.train_dataloader()), 25)
    full = data.regions()
    for batch in batches:
        for index, number in enumerate(batch["number"].tolist()):
            expected = full.read(number)["globals"].theta
            is_full = torch.equal(batch["globals"].theta[index], expected)
            # 10 steps of 12 samples
            assert is_full or number < 120


@pytest.mark.skipif(not pathlib.Path("/dev/shm").is_dir(), reason="Linux only")
def test_too_little_shared_memory_is_said_before_the_start(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=64 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    # 2 ranks x 2 workers x 4 batches x 44^3 voxels of 2 bytes
    _iterate(store, workers=2, ranks=2, batch_size=1)
    with pytest.raises(EvaCoralbayError, match=r"about 0.08 GiB .* 0.06 GiB are free"):
        _iterate(store, workers=2, ranks=2, batch_size=32)
    _iterate(store, workers=0, ranks=2, batch_size=32)
