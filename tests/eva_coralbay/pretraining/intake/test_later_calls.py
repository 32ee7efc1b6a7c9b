"""Tests that a later call goes on: after changes, damage, errors and killed processes."""

import errno
import multiprocessing
import os
import pathlib
import re
import signal
import time
from typing import Any

import numpy as np
import pytest

from eva_coralbay import _processes
from eva_coralbay.cli import main
from eva_coralbay.data import nifti, quality, resampling
from eva_coralbay.errors import DatasetError
from eva_coralbay.pretraining import manifest
from eva_coralbay.pretraining.intake import prepare as preparation
from tests.eva_coralbay.pretraining import scans
from tests.eva_coralbay.pretraining.intake import stores

_FORK = multiprocessing.get_context("fork")
"""A forked process need not import torch anew."""


def _looked_at(log: list[str]) -> list[str]:
    """Returns how many scans were found and looked at, by the calls that were logged."""
    found = (re.search(r"(\d+ found, \d+) of them", message) for message in log)
    return [match[1] for match in found if match]


def test_a_second_call_has_nothing_to_do(source: pathlib.Path, out: str, log: list[str]) -> None:
    stores.write_scans(source, 2)
    scans.write_series(source / "series", scans.hounsfield(seed=3))
    (source / "broken.nii.gz").write_bytes(b"")
    content = stores.prepare(source, out)
    written = {path: path.stat().st_mtime_ns for path in pathlib.Path(out).rglob("*.scan")}
    assert stores.prepare(source, out) == content
    assert _looked_at(log) == ["4 found, 4", "4 found, 0"]
    assert {path: path.stat().st_mtime_ns for path in pathlib.Path(out).rglob("*.scan")} == written


def test_says_beforehand_what_it_takes(source: pathlib.Path, out: str, log: list[str]) -> None:
    stores.write_scans(source, 2)
    stores.prepare(source, out)
    text = "".join(log)
    assert re.search(r"2 found, 2 of them \(\d\.\d MB\) to be looked at: less than a min", text)
    assert "2 scans to prepare: less than a minute on one core." in text
    assert re.search(r"that takes about \d+\.\d MB \(an estimate\), [\d,.]+ MB are free\.", text)


def test_adds_to_a_store(source: pathlib.Path, out: str, log: list[str]) -> None:
    stores.write_scans(source, 1)
    stores.prepare(source, out)
    scans.write_nifti(source / "new.nii.gz", scans.hounsfield(seed=7))
    (source / "0.nii.gz").unlink()
    content = stores.prepare(source, out)
    assert stores.statuses(content) == {"scans__0": "prepared", "scans__new": "prepared"}
    assert _looked_at(log)[1] == "1 found, 1"
    assert stores.read(content, "scans__0")[0].max() > 0


def test_looks_again_at_what_changed(source: pathlib.Path, out: str, log: list[str]) -> None:
    stores.write_scans(source, 2)
    (source / "broken.nii.gz").write_bytes(b"")
    before = stores.prepare(source, out)
    scans.write_nifti(source / "0.nii.gz", scans.hounsfield(seed=7))
    scans.write_nifti(source / "broken.nii.gz", scans.hounsfield(seed=8))
    (source / "1.nii.gz").write_bytes(b"")
    content = stores.prepare(source, out)
    assert _looked_at(log)[1] == "3 found, 3"
    assert stores.statuses(content) == {
        "scans__0": "prepared",
        "scans__1": "quarantined",
        "scans__broken": "prepared",
    }
    assert not np.array_equal(
        stores.read(content, "scans__0")[0], stores.read(before, "scans__0")[0]
    )


def test_a_duplicate_is_used_once_the_other_one_changed(source: pathlib.Path, out: str) -> None:
    for name in ("a", "b", "c"):
        scans.write_nifti(source / f"{name}.nii.gz", scans.hounsfield())
    content = stores.prepare(source, out)
    assert list(stores.statuses(content).values()) == ["prepared", "quarantined", "quarantined"]
    scans.write_nifti(source / "a.nii.gz", scans.hounsfield(seed=1))
    content = stores.prepare(source, out)
    assert list(stores.statuses(content).values()) == ["prepared", "prepared", "quarantined"]
    assert content.cases[1].reason is None
    assert content.cases[2].reason == "the same scan as 'scans__b'"


def test_a_prepared_scan_stays_when_an_equal_one_is_found(tmp_path: pathlib.Path, out: str) -> None:
    scans.write_series(tmp_path / "b/series", scans.hounsfield())
    scans.write_nifti(tmp_path / "a/scan.nii.gz", scans.hounsfield(), orientation="RAS")
    stores.prepare(tmp_path / "b", out)
    content = stores.prepare([tmp_path / "a", tmp_path / "b"], out)
    assert stores.statuses(content) == {"a__scan": "quarantined", "b__series": "prepared"}
    assert content.cases[0].reason == "the same scan as 'b__series'"


def _prepare_until(
    source: pathlib.Path,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    *,
    number: int,
) -> Any:
    """Starts a process that prepares until a function is called often enough, and waits there."""
    original, is_there, calls = getattr(module, name), _FORK.Event(), iter(range(1, 100))

    def wait(*arguments: Any, **options: Any) -> Any:
        if next(calls) == number:
            is_there.set()
            time.sleep(60)
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, wait)
        patch.setattr(preparation, "SAVE_SECONDS", 0.0)
        patch.setattr(preparation, "PAUSE_PER_SAVING", 0.0)
        process = _FORK.Process(target=stores.prepare, args=(source, out))
        process.start()
    assert is_there.wait(60)
    return process


@pytest.mark.parametrize(
    ("module", "name", "number", "looked_at", "to_prepare"),
    [
        (nifti, "read_scan", 3, "4 found, 2", 4),  # while it looks at the third
        (resampling, "resample", 3, "4 found, 0", 2),  # while it prepares the third
    ],
)
def test_goes_on_when_it_was_killed(
    source: pathlib.Path,
    out: str,
    log: list[str],
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    number: int,
    looked_at: str,
    to_prepare: int,
) -> None:
    stores.write_scans(source, 4)
    process = _prepare_until(source, out, monkeypatch, module, name, number=number)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    content = stores.prepare(source, out)
    assert _looked_at(log) == [looked_at]
    assert any(f" {to_prepare} scans to prepare" in message for message in log)
    assert list(stores.statuses(content).values()) == ["prepared"] * 4
    undisturbed = stores.prepare(source, f"{out}_undisturbed")
    assert content.cases == undisturbed.cases


def test_saving_takes_less_than_the_work(
    source: pathlib.Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.write_scans(source, 20)
    writings = []
    write = manifest.Manifest.write

    def write_slowly(content: manifest.Manifest, store: str) -> None:
        writings.append(sum(case.status == "found" for case in content.cases))
        time.sleep(0.2)
        write(content, store)

    monkeypatch.setattr(manifest.Manifest, "write", write_slowly)
    monkeypatch.setattr(preparation, "SAVE_SECONDS", 0.0)
    stores.prepare(source, out)
    # after the first scan, and then after four seconds at the earliest
    assert sum(0 < number < 20 for number in writings) <= 2


@pytest.mark.usefixtures("forked")
def test_processes_that_end_by_themselves_are_not_started_for_each_scan(
    source: pathlib.Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.write_scans(source, 4)
    monkeypatch.setattr(quality, "measure", lambda volume: os._exit(3))
    with pytest.raises(DatasetError, match=r"has ended \(exit code 3\)"):
        stores.prepare(source, out, workers=2)


def _flip_bits(path: pathlib.Path) -> None:
    """Damages the voxels of a prepared scan."""
    content = bytearray(path.read_bytes())
    content[-20] ^= 255
    path.write_bytes(content)


def test_replaces_what_is_damaged(source: pathlib.Path, out: str, log: list[str]) -> None:
    stores.write_scans(source, 3)
    content = stores.prepare(source, out)
    expected = {path: path.read_bytes() for path in pathlib.Path(out).rglob("*.scan")}
    flipped, cut, kept = sorted(expected)
    _flip_bits(flipped)
    cut.write_bytes(cut.read_bytes()[:-10])
    written = kept.stat().st_mtime_ns
    with pytest.raises(DatasetError, match=f"'{flipped}' is damaged.*Prepare the data set again."):
        stores.read(content, "scans__0")
    assert stores.prepare(source, out) == content
    assert {path: path.read_bytes() for path in expected} == expected
    assert kept.stat().st_mtime_ns == written
    assert any(f"WARNING Prepared scan '{flipped}' is damaged" in message for message in log)
    assert any(" 2 scans to prepare" in message for message in log)


def test_what_is_damaged_together_with_its_source_is_set_aside(
    source: pathlib.Path, out: str
) -> None:
    stores.write_scans(source, 2)
    content = stores.prepare(source, out)
    _flip_bits(pathlib.Path(out, str(content.prepared[0].path)))
    status = (source / "0.nii.gz").stat()
    (source / "0.nii.gz").write_bytes(bytes(status.st_size))
    os.utime(source / "0.nii.gz", ns=(status.st_atime_ns, status.st_mtime_ns))
    content = stores.prepare(source, out)
    assert stores.statuses(content) == {"scans__0": "quarantined", "scans__1": "prepared"}
    assert "the file is unreadable" in str(content.cases[0].reason)


def test_goes_on_when_it_was_interrupted(
    source: pathlib.Path, out: str, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.write_scans(source, 4)
    original, calls = nifti.read_scan, iter(range(1, 100))

    def interrupt(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(nifti, "read_scan", interrupt)
        stores.prepare(source, out)
    assert len(stores.prepare(source, out).prepared) == 4
    assert _looked_at(log) == ["4 found, 4", "4 found, 2"]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "Input/output error"), MemoryError(), OSError(errno.ESTALE, "Stale")],
    ids=["disk", "memory", "network"],
)
@pytest.mark.parametrize("stage", ["looking", "preparing"])
def test_a_scan_is_tried_again_after_an_error_that_is_none_of_it(
    source: pathlib.Path,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    log: list[str],
    error: Exception,
    stage: str,
) -> None:
    stores.write_scans(source, 2)
    module, name = (nifti, "read_scan") if stage == "looking" else (resampling, "resample")
    original = getattr(module, name)
    calls = []

    def fail_once(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise error
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, fail_once)
        content = stores.prepare(source, out)
    assert sorted(stores.statuses(content).values()) == ["prepared", "quarantined"]
    assert preparation.count_failures(content) == 1
    assert all("failed this time" in str(row.reason) for row in content.cases if row.reason)
    content = stores.prepare(source, out)
    assert list(stores.statuses(content).values()) == ["prepared", "prepared"]
    assert preparation.count_failures(content) == 0


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError()])
@pytest.mark.parametrize("times", [1, 100])
def test_a_slice_that_the_disk_fails_to_give_is_not_left_out(
    source: pathlib.Path,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    times: int,
) -> None:
    """At an end of a series, nobody would miss it."""
    scans.write_series(source / "series", scans.hounsfield(seed=3))
    (whole,) = stores.prepare(source, f"{out}_whole").prepared
    original, calls = pathlib.Path.open, []

    def fail(path: pathlib.Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "IM0013":
            calls.append(path)
            if len(calls) <= times:
                raise error
        return original(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "open", fail)
        content = stores.prepare(source, out)
    assert calls and preparation.count_failures(content) == (0 if times == 1 else 1)
    (case,) = stores.prepare(source, out).prepared
    assert (case.source, case.sha256) == (whole.source, whole.sha256)


def test_the_command_says_that_a_scan_is_to_be_tried_again(
    source: pathlib.Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.write_scans(source, 1)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(nifti, "read_scan", fail)
    assert main.main(["pretrain", "prepare", str(source), "--out", out, "--workers", "1"]) == 1


def test_a_name_that_is_not_in_utf_8_stops_no_other(source: pathlib.Path, out: str) -> None:
    stores.write_scans(source, 1)
    for name in (b"bad_\xff.nii.gz", b"bad_\xe9\xff.dcm"):
        (source / os.fsdecode(name)).write_bytes(b"nothing")
    folder = scans.write_series(source / "series", scans.hounsfield(seed=3))
    folder.rename(source / os.fsdecode(b"series_\xff"))
    content = stores.prepare(source, out)
    assert [case.case for case in content.prepared][:1] == ["scans__0"]
    assert len(content.cases) == 4
    assert stores.prepare(source, out) == content


def test_what_a_killed_call_was_writing_is_removed(source: pathlib.Path, out: str) -> None:
    stores.write_scans(source, 1)
    pathlib.Path(out).mkdir()
    leftover = pathlib.Path(out) / f".manifest.json~{_dead_process()}~{'0' * 32}.tmp"
    leftover.write_text("half")
    stores.prepare(source, out)
    assert not leftover.exists()


def _dead_process() -> str:
    """Returns the name of a process of this machine that has ended."""
    machine, *_ = _processes.name_this_process().split("~")
    return f"{machine}~99999999~1"


def test_two_at_once_are_refused(
    source: pathlib.Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.write_scans(source, 2)
    process = _prepare_until(source, out, monkeypatch, nifti, "read_scan", number=1)
    try:
        with pytest.raises(DatasetError, match=f"Another process adds scans to '{out}'. Wait"):
            stores.prepare(source, out)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert len(stores.prepare(source, out).prepared) == 2


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the workers forked instead of started anew, which takes long."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: _FORK)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("module", "name"),
    [(quality, "measure"), (resampling, "resample")],
    ids=["looking", "preparing"],
)
def test_a_scan_whose_process_is_killed_is_named_and_stops_no_other(
    source: pathlib.Path,
    out: str,
    log: list[str],
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
) -> None:
    stores.write_scans(source, 3)
    array = scans.hounsfield(seed=5)
    array[7, 12, 10] = 2900
    scans.write_nifti(source / "large.nii.gz", array)
    original, tests = getattr(module, name), os.getpid()

    def kill(volume: Any, *arguments: Any, **options: Any) -> Any:
        if volume.max() == 2900:
            assert os.getpid() != tests
            os.kill(os.getpid(), signal.SIGKILL)
        return original(volume, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, kill)
        content = stores.prepare(source, out, workers=2)
    assert stores.statuses(content) == {
        **{f"scans__{seed}": "prepared" for seed in range(3)},
        "scans__large": "quarantined",
    }
    reason = "the process that worked on it was killed, perhaps as there was too little memory"
    assert content.cases[-1].reason == reason
    (message,) = [message for message in log if message.startswith("ERROR")]
    assert f"'{source}/large.nii.gz' is set aside: the process" in message
    assert "Run `eva-coralbay pretrain prepare` again with fewer --workers" in message
    # it is tried again
    assert stores.statuses(stores.prepare(source, out))["scans__large"] == "prepared"


@pytest.mark.slow
def test_processes_change_nothing(source: pathlib.Path, out: str) -> None:
    stores.write_scans(source, 4)
    (source / "broken.nii.gz").write_bytes(b"")
    content = stores.prepare(source, out, workers=2)
    assert content.cases == stores.prepare(source, f"{out}_alone").cases
