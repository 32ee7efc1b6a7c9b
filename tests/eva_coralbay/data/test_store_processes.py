"""Tests the processes that fill a store: killed, interrupted, side by side."""

import functools
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import tqdm
from loguru import logger

from eva_coralbay.data import store
from eva_coralbay.data import workers as workers_lib
from tests.eva_coralbay.data import stores


def _in_process(work: Callable[..., None], *arguments: Any) -> Any:
    process = stores.FORK.Process(target=_quietly, args=(work, *arguments))
    process.start()
    return process


def _quietly(work: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    logger.remove()
    # forked processes share the lock of the progress bars, which a killed one may never release
    tqdm.tqdm.set_lock(threading.RLock())
    work(*arguments)


def _prepare(root: pathlib.Path, sources: Sequence[store.Source]) -> None:
    stores.make(root).prepare(sources)


def test_killed_preparations_are_resumed(
    scans: pathlib.Path, tmp_path: pathlib.Path, undisturbed: dict[str, bytes]
) -> None:
    started = time.monotonic()
    _in_process(_prepare, tmp_path / "timed", stores.sources(scans)).join()
    duration = time.monotonic() - started
    killed = 0
    for seed in range(10):
        root = tmp_path / str(seed)
        process = _in_process(_prepare, root, stores.sources(scans))
        time.sleep(random.Random(seed).uniform(0, duration))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        stores.make(root).prepare(stores.sources(scans))
        assert stores.contents(root) == undisturbed
    assert killed > 0, "else they were all done before"


def test_what_a_killed_process_was_writing_is_removed(
    scans: pathlib.Path, tmp_path: pathlib.Path, undisturbed: dict[str, bytes]
) -> None:
    source = stores.source(scans, 0)
    _in_process(_prepare_and_die, tmp_path, source).join()
    assert [path.suffix for path in tmp_path.rglob("*case_0*")] == [".tmp"]
    stores.make(tmp_path).prepare(stores.sources(scans))
    assert stores.contents(tmp_path) == undisturbed


def _prepare_and_die(root: pathlib.Path, source: store.Source) -> None:
    os.fsync = _kill_self
    stores.make(root).prepare([source])


def _kill_self(descriptor: int) -> None:
    """Ends the process when a scan is written but not yet in its place."""
    name = pathlib.Path(f"/proc/self/fd/{descriptor}").readlink().name
    if ".scan~" in name:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # another thread may be the one that the signal stops first


def test_two_preparers_share_the_work(
    scans: pathlib.Path, tmp_path: pathlib.Path, undisturbed: dict[str, bytes]
) -> None:
    twice = []
    # by chance both may often want the same scan at the same time, but not in each of three tries
    for number in range(3):
        root, record = tmp_path / f"store_{number}", tmp_path / f"record_{number}"
        sources = [
            source._replace(load=functools.partial(_load_slowly, source, record))
            for source in stores.sources(scans)
        ]
        processes = [_in_process(_prepare, root, sources) for _ in range(2)]
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0]
        assert stores.contents(root) == undisturbed
        twice.append(len(record.read_text().split()) - len(sources))
    assert min(twice) < len(stores.sources(scans)) - 2


def _load_slowly(source: store.Source, record: pathlib.Path) -> Any:
    with record.open("a") as file:
        file.write(f"{source.case}\n")
    time.sleep(0.05)
    return source.load()


def test_little_work_is_done_without_other_processes(
    scans: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing, "get_context", None)
    stores.make(tmp_path).prepare(stores.sources(scans))


@pytest.mark.usefixtures("forked")
def test_workers_write_what_one_process_writes(
    scans: pathlib.Path, tmp_path: pathlib.Path, undisturbed: dict[str, bytes]
) -> None:
    stores.make(tmp_path).prepare(stores.sources(scans), workers=3)
    assert stores.contents(tmp_path) == undisturbed


@pytest.mark.slow
def test_started_workers_write_what_one_process_writes(
    scans: pathlib.Path, tmp_path: pathlib.Path, undisturbed: dict[str, bytes]
) -> None:
    stores.make(tmp_path).prepare(stores.sources(scans), workers=2)
    assert stores.contents(tmp_path) == undisturbed


@pytest.mark.slow
def test_started_workers_end_with_the_process_that_is_killed(
    scans: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    record = tmp_path / "record"
    sources = [
        source._replace(load=functools.partial(_record_process_and_wait, record))
        for source in stores.sources(scans)
    ]
    process = _in_process(_prepare_with_workers, tmp_path, sources)
    _wait_until(lambda: record.exists() and len(record.read_text().split()) == 2, seconds=300)
    process.kill()
    process.join()
    workers = [int(number) for number in record.read_text().split()]
    (tmp_path / "go").touch()
    _wait_until(lambda: not any(map(_is_running, workers)), seconds=60)


def _record_process_and_wait(record: pathlib.Path) -> Any:
    with record.open("a") as file:
        file.write(f"{os.getpid()}\n")
    _wait_until((record.parent / "go").exists, seconds=600)
    raise ValueError("no scan")


def _prepare_with_workers(root: pathlib.Path, sources: Sequence[store.Source]) -> None:
    # pytest-xdist's workers ignore it, and this process would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stores.make(root).prepare(sources, workers=2)


def _wait_until(condition: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return state != "Z"


@pytest.mark.usefixtures("forked")
def test_an_interrupted_preparation_stops_at_once(
    scans: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    record = tmp_path / "record"
    sources = [
        source._replace(load=functools.partial(_record_process_and_wait, record))
        for source in stores.sources(scans)
    ]
    process = _in_process(_prepare_with_workers, tmp_path, sources)
    _wait_until(lambda: record.exists() and len(record.read_text().split()) == 2, seconds=60)
    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    assert process.exitcode == 1
    workers = [int(number) for number in record.read_text().split()]
    _wait_until(lambda: not any(map(_is_running, workers)), seconds=30)


@pytest.mark.usefixtures("forked")
def test_an_interrupted_worker_removes_what_it_is_writing(
    scans: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    process = _in_process(_prepare_with_held_workers, tmp_path, stores.sources(scans))
    _wait_until(lambda: len(list(tmp_path.rglob("*.tmp"))) == 2, seconds=60)
    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    assert process.exitcode == 1
    assert not list(tmp_path.rglob("*.tmp"))


def _prepare_with_held_workers(root: pathlib.Path, sources: Sequence[store.Source]) -> None:
    os.fsync = _hold
    _prepare_with_workers(root, sources)


def _hold(descriptor: int) -> None:
    """Stays for ever where a scan is written but not yet in its place."""
    if ".scan~" in pathlib.Path(f"/proc/self/fd/{descriptor}").readlink().name:
        time.sleep(600)


@pytest.mark.usefixtures("forked")
def test_a_killed_worker_is_named_with_its_case(
    scans: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    sources = [source._replace(load=_die) for source in stores.sources(scans)[:2]]
    with pytest.raises(store.StoreError, match="Case 'case_.': the process .* was killed"):
        stores.make(tmp_path).prepare(sources, workers=2)


def _die() -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("forked")
def test_a_worker_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_lib, "PATIENCE_S", 0.2)
    results = workers_lib.in_processes(_ignore_the_request_to_end, [1, 2, 3], 2)
    processes = {process for _, process in results if process is not None}
    assert len(processes) == 2
    assert not any(map(_is_running, processes))


def _ignore_the_request_to_end(number: int) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return os.getpid()


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_source_is_named_and_stops_no_other(
    scans: pathlib.Path, tmp_path: pathlib.Path, workers: int
) -> None:
    copies = shutil.copytree(scans, tmp_path / "copies")
    broken = copies / "image_3.nii.gz"
    broken.write_bytes(broken.read_bytes()[:5000])
    sources = stores.sources(copies)
    sources[5] = sources[5]._replace(load=_fail)
    toy = stores.make(tmp_path / "store")
    with pytest.raises(store.StoreError) as raised:
        toy.prepare(sources, workers=workers)
    message = str(raised.value)
    assert "2 of 8 scans (about" in message
    assert f"file '{broken}': the file is unreadable" in message
    assert "Case 'case_5', file" in message
    assert "KeyError: 'no such thing'" in message
    assert toy.missing(sources) == [sources[3], sources[5]]


def _fail() -> Any:
    raise KeyError("no such thing")
