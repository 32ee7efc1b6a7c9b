"""Tests the store with damaged files, and on full and read-only disks."""

import errno
import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from eva_coralbay.data import datasets, store, transforms
from tests.eva_coralbay.data import stores
from tests.eva_coralbay.data.datasets import layouts


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
    contents = stores.contents(tmp_path)
    entry = stores.entries(tmp_path)[0]
    _damage(entry, region)

    healed_image, healed_target, _ = dataset[0]
    assert torch.equal(healed_image, image)
    assert torch.equal(healed_target, target)
    assert stores.contents(tmp_path) == contents
    assert any(m.startswith("WARNING") and f"'{entry}' is damaged" in m for m in log)


@pytest.mark.parametrize("region", [*_REGIONS, "rows"])
def test_a_damaged_scan_is_verified_and_replaced(
    scans: pathlib.Path,
    tmp_path: pathlib.Path,
    undisturbed: dict[str, bytes],
    region: str,
    log: list[str],
) -> None:
    toy, sources = stores.make(tmp_path), stores.sources(scans)
    toy.prepare(sources)
    assert not toy.verify(sources)
    _damage(stores.entries(tmp_path)[2], region)
    assert toy.verify(sources) == sources[2:3]
    assert any(f"'{stores.entries(tmp_path)[2]}' is damaged" in message for message in log)
    toy.prepare(sources)
    assert stores.contents(tmp_path) == undisturbed
    assert not toy.verify(sources)


def test_a_scan_that_is_cut_off_counts_as_missing(
    scans: pathlib.Path, tmp_path: pathlib.Path, undisturbed: dict[str, bytes], log: list[str]
) -> None:
    stores.make(tmp_path).prepare(stores.sources(scans))
    entry = stores.entries(tmp_path)[4]
    os.truncate(entry, entry.stat().st_size - 1)
    stores.make(tmp_path).prepare(stores.sources(scans))
    assert stores.contents(tmp_path) == undisturbed
    assert any(f"'{entry}' is damaged" in message for message in log)


def test_too_small_a_disk_is_refused_before(
    scans: pathlib.Path, small_disk: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BYTES_PER_VOXEL", 1000.0)
    with pytest.raises(store.StoreError, match=f"'{small_disk}.*are free.*PREPARED_ROOT"):
        stores.make(small_disk).prepare(stores.sources(scans))
    assert not stores.entries(small_disk)


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
    toy, sources = stores.make(small_disk), stores.sources(scans)
    filler = small_disk / "filler"
    size = sum(map(len, undisturbed.values()))
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - size // 2))
    with pytest.raises(
        store.StoreError, match="MB in all.*\n.*No space left .*PREPARED_ROOT"
    ) as raised:
        toy.prepare(sources, workers=workers)
    assert f"'{small_disk}" in str(raised.value)
    assert not list(small_disk.rglob("*.tmp"))
    written = len(stores.entries(small_disk))
    assert 0 < written < len(sources)
    assert len(toy.verify(sources)) == len(sources) - written
    filler.unlink()
    toy.prepare(sources)
    assert stores.contents(small_disk) == undisturbed


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_scan_that_cannot_be_written_stops_the_others(
    scans: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    stores.make(tmp_path).prepare(stores.sources(scans)[:1])
    contents = stores.contents(tmp_path)
    loaded = []

    def fail(*arguments: Any) -> None:
        loaded.append(arguments)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(pathlib.Path if step == "replace" else os, step, fail)
    with pytest.raises(store.StoreError, match="1 of 7.*\n.*quota exceeded.*prepared_root"):
        stores.make(tmp_path).prepare(stores.sources(scans))
    assert len(loaded) == 1
    assert stores.contents(tmp_path) == contents


def test_a_read_only_store_is_read_and_not_written(
    scans: pathlib.Path, small_disk: pathlib.Path
) -> None:
    toy, sources = stores.make(small_disk), stores.sources(scans)
    toy.prepare(sources[:2])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    toy.prepare(sources[:2])
    assert not toy.verify(sources[:2])
    for attempt in (toy, stores.make(small_disk, name="other")):
        with pytest.raises(store.StoreError, match=f"'{small_disk}.*[Rr]ead-only.*PREPARED_ROOT"):
            attempt.prepare(sources)


def test_sources_may_be_read_only(small_disk: pathlib.Path, tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(small_disk, ["case_0"])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(store.StoreError, match="prepared_root"):
        _dataset(small_disk)
    elsewhere = _dataset(small_disk, prepared_root=str(tmp_path / "prepared"))
    assert elsewhere[0][0].ndim == 4
    assert len(stores.entries(tmp_path)) == 1


def test_a_folder_that_cannot_be_made_is_named(scans: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(store.StoreError, match=f"'{tmp_path}/file/.*PREPARED_ROOT"):
        stores.make(tmp_path / "file").prepare(stores.sources(scans))
