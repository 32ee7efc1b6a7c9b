"""Tests the store of prepared scans, and what may happen to it."""

import errno
import functools
import json
import multiprocessing
import os
import pathlib
import pickle
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import tqdm
from eva.vision.data import tv_tensors as eva_tv_tensors
from loguru import logger
from nibabel import nifti1
from torch.utils import data as torch_data
from torchvision import tv_tensors

from eva_coralbay.data import datasets, nifti, preparation, scan_file, store, transforms
from eva_coralbay.data import grid as grid_lib
from tests.eva_coralbay.data.datasets import layouts

_PREPARATION = preparation.Preparation(spacing=(2.0, 2.0, 2.0))

_FORK = multiprocessing.get_context("fork")
"""A forked process need not import torch anew."""


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The files of eight scans with a body of noise in air, and two labels."""
    folder = tmp_path_factory.mktemp("scans")
    for seed in range(8):
        generator = np.random.default_rng(seed)
        hounsfield = np.full((44, 36, 28 + seed), -1000, dtype=np.int16)
        body = hounsfield[4:-4, 3:-3, 2:-2]
        body[:] = generator.normal(40, 60, body.shape)
        labels = np.zeros(hounsfield.shape, dtype=np.uint8)
        labels[8:20, 8:20, 8:20] = 1
        labels[25:30, 8:20, 8:12] = 2
        layouts.write_volume(folder / f"image_{seed}.nii.gz", hounsfield)
        layouts.write_volume(folder / f"label_{seed}.nii.gz", labels)
    return folder


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a file system cannot be mounted here: {error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _load(
    image: pathlib.Path, label: pathlib.Path | None
) -> tuple[eva_tv_tensors.Volume, tv_tensors.Mask | None]:
    volume = nifti.read_scan(str(image), case="case")
    if label is None:
        return volume, None
    grid = grid_lib.Grid.of(volume)
    return volume, nifti.read_mask(str(label), case="case", like=grid, labels=range(3))


def _source(folder: pathlib.Path, number: int) -> store.Source:
    image, label = folder / f"image_{number}.nii.gz", folder / f"label_{number}.nii.gz"
    return store.Source(
        f"case_{number}", (str(image), str(label)), functools.partial(_load, image, label)
    )


def _sources(folder: pathlib.Path) -> list[store.Source]:
    return [_source(folder, number) for number in range(8)]


def _store(root: pathlib.Path, **changes: Any) -> store.PreparedStore:
    arguments = {"name": "toy", "preparation": _PREPARATION, "labels": ["background", "a", "b"]}
    return store.PreparedStore(str(root), **{**arguments, **changes})


def _contents(root: pathlib.Path) -> dict[str, bytes]:
    """Returns all files below a folder."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def _entries(root: pathlib.Path) -> list[pathlib.Path]:
    return sorted(root.rglob("*.scan"))


@pytest.fixture(scope="module")
def undisturbed(scans: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a store that nothing happened to."""
    root = tmp_path_factory.mktemp("undisturbed")
    _store(root).prepare(_sources(scans))
    return _contents(root)


def _in_process(work: Callable[..., None], *arguments: Any) -> Any:
    process = _FORK.Process(target=_quietly, args=(work, *arguments))
    process.start()
    return process


def _quietly(work: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    logger.remove()
    # forked processes share the lock of the progress bars, which a killed one may never release
    tqdm.tqdm.set_lock(threading.RLock())
    work(*arguments)


def _prepare(root: pathlib.Path, sources: Sequence[store.Source]) -> None:
    _store(root).prepare(sources)


def test_a_scan_from_the_store_is_the_scan_in_memory(
    scans: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    source = _source(scans, 0)
    toy = _store(tmp_path)
    toy.prepare([source])
    stored, loaded = toy.open(source), preparation.prepare(*source.load(), _PREPARATION)
    assert stored.grid.shape == loaded.grid.shape
    assert np.array_equal(stored.grid.affine, loaded.grid.affine)
    assert np.array_equal(stored.label_counts, loaded.label_counts)
    image = stored.read_image(stored.whole)
    assert (image - loaded.read_image(loaded.whole)).abs().max() <= 0.5
    assert torch.equal(stored.read_mask(stored.whole), loaded.read_mask(loaded.whole))


@pytest.mark.parametrize("seed", range(5))
def test_one_seed_draws_the_same_crops_with_and_without_the_store(
    scans: pathlib.Path, tmp_path: pathlib.Path, seed: int
) -> None:
    source = _source(scans, seed)
    transform = transforms.TrainTransform(roi_size=(10, 12, 14), spacing=_PREPARATION.spacing)
    toy = _store(tmp_path, preparation=transform.preparation)
    toy.prepare([source])
    results = []
    for scan in (toy.open(source), preparation.prepare(*source.load(), transform.preparation)):
        transform.set_random_state(seed)
        results.append(transform(scan))
    (images, targets), (expected_images, expected_targets) = results
    for image, expected in zip(images, expected_images, strict=True):
        assert (image - expected).abs().max() <= 1.11 * 0.5 / 425, "half a HU, scaled"
    assert all(map(torch.equal, targets, expected_targets))


def test_a_scan_without_labels(scans: pathlib.Path, tmp_path: pathlib.Path) -> None:
    image = scans / "image_0.nii.gz"
    source = store.Source("case", (str(image),), functools.partial(_load, image, None))
    toy = _store(tmp_path, labels=())
    toy.prepare([source])
    scan = toy.open(source)
    assert len(scan.label_counts) == 0
    assert scan.read_image(scan.whole).max() > 0


def test_what_is_there_is_not_prepared_again(scans: pathlib.Path, tmp_path: pathlib.Path) -> None:
    toy, sources = _store(tmp_path), _sources(scans)
    assert toy.missing(sources) == sources
    toy.prepare(sources[:3])
    assert toy.missing(sources) == sources[3:]
    times = [path.stat().st_mtime_ns for path in _entries(tmp_path)]
    toy.prepare(sources[:3])
    assert times == [path.stat().st_mtime_ns for path in _entries(tmp_path)]


@pytest.mark.parametrize("is_same", [False, True])
def test_a_file_that_is_replaced_with_size_and_time_kept_is_prepared_anew(
    scans: pathlib.Path, tmp_path: pathlib.Path, log: list[str], is_same: bool
) -> None:
    """A file that was only copied is not."""
    shutil.copytree(scans, tmp_path / "scans")
    source, toy = _source(tmp_path / "scans", 0), _store(tmp_path / "store")
    toy.prepare([source])
    (before,) = _entries(tmp_path / "store")
    content = before.read_bytes()
    label = pathlib.Path(source.files[1])
    status = label.stat()
    image = nib.load(label)
    labels = np.asarray(image.dataobj).copy()
    if not is_same:
        labels[labels == 2] = 1
    nib.save(nifti1.Nifti1Image(labels, image.affine), tmp_path / "new.nii.gz")
    replaced = (tmp_path / "new.nii.gz").read_bytes() if not is_same else label.read_bytes()
    # a gzip may have anything behind its content
    label.write_bytes(replaced[: status.st_size].ljust(status.st_size, b"\0"))
    os.utime(label, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert toy.missing([source]) == ([] if is_same else [source])
    assert len(toy.verify([source])) == int(not is_same)

    toy.prepare([source])
    assert _entries(tmp_path / "store") == [before]
    assert (before.read_bytes() == content) == is_same
    assert not toy.missing([source])
    assert (
        any("replaced by another of the same size" in " ".join(line.split()) for line in log)
        != is_same
    )


@pytest.mark.parametrize("size", [1, 2**18, 2**18 + 1, 2**20])
def test_fingerprints_tell_contents_apart(tmp_path: pathlib.Path, size: int) -> None:
    content = bytearray(os.urandom(size))
    path = tmp_path / "file"
    seen = set()
    for position in (None, 0, size // 3, size - 1):
        if position is not None:
            # a run of bytes, as a changed label map has
            content[position : position + size // 8 + 1] = b"x" * (size // 8 + 1)
            del content[size:]
        path.write_bytes(content)
        seen.add(scan_file.fingerprint(str(path)))

    assert len(seen) == (2 if size == 1 else 4)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"preparation": _PREPARATION._replace(body_above=-500.0)},
        {"labels": ["background", "b", "a"]},
    ],
    ids=["name", "preparation", "labels"],
)
def test_what_is_prepared_otherwise_lies_elsewhere(
    scans: pathlib.Path, tmp_path: pathlib.Path, changes: dict[str, Any]
) -> None:
    _store(tmp_path).prepare([_source(scans, 0)])
    other = _store(tmp_path, **changes)
    assert other.missing([_source(scans, 0)])
    other.prepare([_source(scans, 0)])
    assert len(list(tmp_path.iterdir())) == 2


def test_the_folder_says_what_it_holds(scans: pathlib.Path, tmp_path: pathlib.Path) -> None:
    _store(tmp_path, name="a set/../of: data").prepare([_source(scans, 0)])
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("a_set_.._of_data-")
    description = json.loads((folder / "preparation.json").read_text())
    assert description["preparation"] == {"spacing": [2.0, 2.0, 2.0], "body_above": -175.0}
    assert description["labels"] == ["background", "a", "b"]


def test_cases_whose_names_differ_in_signs_only(
    scans: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    source = _source(scans, 0)
    cases = [source._replace(case=case) for case in ("a/b", "a:b")]
    _store(tmp_path).prepare(cases)
    assert len(_entries(tmp_path)) == 2


def test_a_changed_source_is_prepared_anew(scans: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copies = shutil.copytree(scans, tmp_path / "copies")
    toy, sources = _store(tmp_path / "store"), _sources(copies)
    toy.prepare(sources)
    before = toy.open(sources[0]).label_counts
    labels = np.zeros((44, 36, 28), dtype=np.uint8)
    labels[10, 10, 10] = 1
    layouts.write_volume(copies / "label_0.nii.gz", labels)
    assert toy.missing(sources) == sources[:1]
    toy.prepare(sources)
    assert not np.array_equal(toy.open(sources[0]).label_counts, before)


def test_a_source_of_another_time_is_prepared_anew(
    scans: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Corrected labels often have the size of the wrong ones."""
    copies = shutil.copytree(scans, tmp_path / "copies")
    toy, sources = _store(tmp_path / "store"), _sources(copies)
    toy.prepare(sources)
    os.utime(copies / "label_3.nii.gz", (0, 0))
    assert toy.missing(sources) == sources[3:4]


def test_a_missing_scan_is_an_error(scans: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(store.StoreError, match="case_0-.*.scan' cannot be opened.*Prepare"):
        _store(tmp_path).open(_source(scans, 0))


def test_a_missing_source_is_an_error(scans: pathlib.Path, tmp_path: pathlib.Path) -> None:
    source = _source(scans, 0)._replace(files=(str(tmp_path / "gone.nii.gz"),))
    with pytest.raises(store.StoreError, match="Case 'case_0', file '.*gone.nii.gz'"):
        _store(tmp_path).prepare([source])


def test_the_disk_that_it_needs_is_stated_before(
    scans: pathlib.Path, tmp_path: pathlib.Path, log: list[str]
) -> None:
    _store(tmp_path).prepare(_sources(scans))
    (message,) = log
    assert "8 scans of 'toy'" in message
    assert "MB (an estimate)" in message


def test_data_workers_read_what_the_main_process_reads(
    scans: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    toy, sources = _store(tmp_path), _sources(scans)
    toy.prepare(sources)
    images = _Images(toy, sources)
    expected = [images[index] for index in range(len(sources))]
    images = pickle.loads(pickle.dumps(images))
    loader = torch_data.DataLoader(
        images, batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    assert all(map(torch.equal, loader, expected))


class _Images(torch_data.Dataset[torch.Tensor]):
    def __init__(self, toy: store.PreparedStore, sources: Sequence[store.Source]) -> None:
        self._store = toy
        self._sources = sources

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: int) -> torch.Tensor:
        scan = self._store.open(self._sources[index])
        return scan.read_image(scan.whole)


def test_killed_preparations_are_resumed(
    scans: pathlib.Path, tmp_path: pathlib.Path, undisturbed: dict[str, bytes]
) -> None:
    started = time.monotonic()
    _in_process(_prepare, tmp_path / "timed", _sources(scans)).join()
    duration = time.monotonic() - started
    killed = 0
    for seed in range(10):
        root = tmp_path / str(seed)
        process = _in_process(_prepare, root, _sources(scans))
        time.sleep(random.Random(seed).uniform(0, duration))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        _store(root).prepare(_sources(scans))
        assert _contents(root) == undisturbed
    assert killed > 0, "else they were all done before"


def test_what_a_killed_process_was_writing_is_removed(
    scans: pathlib.Path, tmp_path: pathlib.Path, undisturbed: dict[str, bytes]
) -> None:
    source = _source(scans, 0)
    _in_process(_prepare_and_die, tmp_path, source).join()
    assert [path.suffix for path in tmp_path.rglob("*case_0*")] == [".tmp"]
    _store(tmp_path).prepare(_sources(scans))
    assert _contents(tmp_path) == undisturbed


def _prepare_and_die(root: pathlib.Path, source: store.Source) -> None:
    os.fsync = _kill_self
    _store(root).prepare([source])


def _kill_self(descriptor: int) -> None:
    """Ends the process when a scan is written but not yet in its place."""
    name = pathlib.Path(f"/proc/self/fd/{descriptor}").readlink().name
    if ".scan~" in name:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # another thread may be the one that the signal stops first


def test_two_preparers_share_the_work(
    scans: pathlib.Path, tmp_path: pathlib.Path, undisturbed: dict[str, bytes]
) -> None:
    root, record = tmp_path / "store", tmp_path / "record"
    sources = [
        source._replace(load=functools.partial(_load_slowly, source, record))
        for source in _sources(scans)
    ]
    processes = [_in_process(_prepare, root, sources) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert _contents(root) == undisturbed
    assert len(record.read_text().split()) < 2 * len(sources) - 2


def _load_slowly(source: store.Source, record: pathlib.Path) -> Any:
    with record.open("a") as file:
        file.write(f"{source.case}\n")
    time.sleep(0.05)
    return source.load()


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the workers forked instead of started anew, which takes long."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: _FORK)


def test_little_work_is_done_without_other_processes(
    scans: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing, "get_context", None)
    _store(tmp_path).prepare(_sources(scans))


@pytest.mark.usefixtures("forked")
def test_workers_write_what_one_process_writes(
    scans: pathlib.Path, tmp_path: pathlib.Path, undisturbed: dict[str, bytes]
) -> None:
    _store(tmp_path).prepare(_sources(scans), workers=3)
    assert _contents(tmp_path) == undisturbed


@pytest.mark.slow
def test_started_workers_write_what_one_process_writes(
    scans: pathlib.Path, tmp_path: pathlib.Path, undisturbed: dict[str, bytes]
) -> None:
    _store(tmp_path).prepare(_sources(scans), workers=2)
    assert _contents(tmp_path) == undisturbed


@pytest.mark.slow
def test_started_workers_end_with_the_process_that_is_killed(
    scans: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    record = tmp_path / "record"
    sources = [
        source._replace(load=functools.partial(_record_process_and_wait, record))
        for source in _sources(scans)
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
    _store(root).prepare(sources, workers=2)


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
        for source in _sources(scans)
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
    process = _in_process(_prepare_with_held_workers, tmp_path, _sources(scans))
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
    sources = [source._replace(load=_die) for source in _sources(scans)[:2]]
    with pytest.raises(store.StoreError, match="Case 'case_.': the process .* was killed"):
        _store(tmp_path).prepare(sources, workers=2)


def _die() -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_source_is_named_and_stops_no_other(
    scans: pathlib.Path, tmp_path: pathlib.Path, workers: int
) -> None:
    copies = shutil.copytree(scans, tmp_path / "copies")
    broken = copies / "image_3.nii.gz"
    broken.write_bytes(broken.read_bytes()[:5000])
    sources = _sources(copies)
    sources[5] = sources[5]._replace(load=_fail)
    toy = _store(tmp_path / "store")
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


_REGIONS = ("magic", "version", "length", "checksum", "header", "image", "mask")
"""The parts of a file that are read for an evaluation; that of the rows is missing."""


def _damage(entry: pathlib.Path, region: str) -> None:
    """Flips a byte of a part of a file."""
    content = bytearray(entry.read_bytes())
    starts = {"magic": 0, "version": 8, "length": 12, "checksum": 16, "header": 100}
    header = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    position = 20 + int.from_bytes(content[12:16], "little")
    for name, array in header["arrays"].items():
        starts[name] = position
        position += sum(array["sizes"])
    content[starts[region] + 1] ^= 0x10
    entry.write_bytes(content)


def _dataset(root: pathlib.Path, **arguments: Any) -> datasets.NnUNet:
    transform = transforms.EvalTransform(spacing=(1.0, 0.5, 0.5))
    dataset = datasets.NnUNet(str(root), transforms=transform, **arguments)
    dataset.prepare_data()
    dataset.setup()
    return dataset


@pytest.mark.parametrize("region", _REGIONS)
def test_a_data_set_prepares_a_damaged_scan_anew(
    tmp_path: pathlib.Path, region: str, log: list[str]
) -> None:
    layouts.write_nnunet(tmp_path, ["case_0", "case_1"])
    dataset = _dataset(tmp_path)
    image, target, _ = dataset[0]
    contents = _contents(tmp_path)
    entry = _entries(tmp_path)[0]
    _damage(entry, region)

    healed_image, healed_target, _ = dataset[0]
    assert torch.equal(healed_image, image)
    assert torch.equal(healed_target, target)
    assert _contents(tmp_path) == contents
    assert any(m.startswith("WARNING") and f"'{entry}' is damaged" in m for m in log)


@pytest.mark.parametrize("region", [*_REGIONS, "rows"])
def test_a_damaged_scan_is_verified_and_replaced(
    scans: pathlib.Path,
    tmp_path: pathlib.Path,
    undisturbed: dict[str, bytes],
    region: str,
    log: list[str],
) -> None:
    toy, sources = _store(tmp_path), _sources(scans)
    toy.prepare(sources)
    assert not toy.verify(sources)
    _damage(_entries(tmp_path)[2], region)
    assert toy.verify(sources) == sources[2:3]
    assert any(f"'{_entries(tmp_path)[2]}' is damaged" in message for message in log)
    toy.prepare(sources)
    assert _contents(tmp_path) == undisturbed
    assert not toy.verify(sources)


def test_a_scan_that_is_cut_off_counts_as_missing(
    scans: pathlib.Path, tmp_path: pathlib.Path, undisturbed: dict[str, bytes], log: list[str]
) -> None:
    _store(tmp_path).prepare(_sources(scans))
    entry = _entries(tmp_path)[4]
    os.truncate(entry, entry.stat().st_size - 1)
    _store(tmp_path).prepare(_sources(scans))
    assert _contents(tmp_path) == undisturbed
    assert any(f"'{entry}' is damaged" in message for message in log)


def test_too_small_a_disk_is_refused_before(
    scans: pathlib.Path, small_disk: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BYTES_PER_VOXEL", 1000.0)
    with pytest.raises(store.StoreError, match=f"'{small_disk}.*are free.*PREPARED_ROOT"):
        _store(small_disk).prepare(_sources(scans))
    assert not _entries(small_disk)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_fills_up_leaves_whole_scans_only(
    scans: pathlib.Path,
    small_disk: pathlib.Path,
    undisturbed: dict[str, bytes],
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "BYTES_PER_VOXEL", 0.5)
    toy, sources = _store(small_disk), _sources(scans)
    filler = small_disk / "filler"
    size = sum(map(len, undisturbed.values()))
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - size // 2))
    with pytest.raises(
        store.StoreError, match="MB in all.*\n.*No space left .*PREPARED_ROOT"
    ) as raised:
        toy.prepare(sources, workers=workers)
    assert f"'{small_disk}" in str(raised.value)
    assert not list(small_disk.rglob("*.tmp"))
    written = len(_entries(small_disk))
    assert 0 < written < len(sources)
    assert len(toy.verify(sources)) == len(sources) - written
    filler.unlink()
    toy.prepare(sources)
    assert _contents(small_disk) == undisturbed


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_scan_that_cannot_be_written_stops_the_others(
    scans: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    _store(tmp_path).prepare(_sources(scans)[:1])
    contents = _contents(tmp_path)
    loaded = []

    def fail(*arguments: Any) -> None:
        loaded.append(arguments)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(store.StoreError, match="1 of 7.*\n.*quota exceeded.*prepared_root"):
        _store(tmp_path).prepare(_sources(scans))
    assert len(loaded) == 1
    assert _contents(tmp_path) == contents


def test_a_read_only_store_is_read_and_not_written(
    scans: pathlib.Path, small_disk: pathlib.Path
) -> None:
    toy, sources = _store(small_disk), _sources(scans)
    toy.prepare(sources[:2])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    toy.prepare(sources[:2])
    assert not toy.verify(sources[:2])
    for attempt in (toy, _store(small_disk, name="other")):
        with pytest.raises(store.StoreError, match=f"'{small_disk}.*[Rr]ead-only.*PREPARED_ROOT"):
            attempt.prepare(sources)


def test_sources_may_be_read_only(small_disk: pathlib.Path, tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(small_disk, ["case_0"])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(store.StoreError, match="prepared_root"):
        _dataset(small_disk)
    elsewhere = _dataset(small_disk, prepared_root=str(tmp_path / "prepared"))
    assert elsewhere[0][0].ndim == 4
    assert len(_entries(tmp_path)) == 1


def test_a_folder_that_cannot_be_made_is_named(scans: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(store.StoreError, match=f"'{tmp_path}/file/.*PREPARED_ROOT"):
        _store(tmp_path / "file").prepare(_sources(scans))
