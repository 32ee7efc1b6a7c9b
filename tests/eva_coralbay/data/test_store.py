"""Tests what the store of prepared scans holds, and when a scan is prepared anew."""

import functools
import json
import os
import pathlib
import pickle
import shutil
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel import nifti1
from torch.utils import data as torch_data

from eva_coralbay.data import preparation, scan_file, store, transforms
from tests.eva_coralbay.data import stores
from tests.eva_coralbay.data.datasets import layouts


def test_a_scan_from_the_store_is_the_scan_in_memory(
    scans: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    source = stores.source(scans, 0)
    toy = stores.make(tmp_path)
    toy.prepare([source])
    stored, loaded = toy.open(source), preparation.prepare(*source.load(), stores.PREPARATION)
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
    source = stores.source(scans, seed)
    transform = transforms.TrainTransform(roi_size=(10, 12, 14), spacing=stores.PREPARATION.spacing)
    toy = stores.make(tmp_path, preparation=transform.preparation)
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
    source = store.Source("case", (str(image),), functools.partial(stores.load, image, None))
    toy = stores.make(tmp_path, labels=())
    toy.prepare([source])
    scan = toy.open(source)
    assert len(scan.label_counts) == 0
    assert scan.read_image(scan.whole).max() > 0


def test_what_is_there_is_not_prepared_again(scans: pathlib.Path, tmp_path: pathlib.Path) -> None:
    toy, sources = stores.make(tmp_path), stores.sources(scans)
    assert toy.missing(sources) == sources
    toy.prepare(sources[:3])
    assert toy.missing(sources) == sources[3:]
    times = [path.stat().st_mtime_ns for path in stores.entries(tmp_path)]
    toy.prepare(sources[:3])
    assert times == [path.stat().st_mtime_ns for path in stores.entries(tmp_path)]


@pytest.mark.parametrize("is_same", [False, True])
def test_a_file_that_is_replaced_with_size_and_time_kept_is_prepared_anew(
    scans: pathlib.Path, tmp_path: pathlib.Path, log: list[str], is_same: bool
) -> None:
    """A file that was only copied is not."""
    shutil.copytree(scans, tmp_path / "scans")
    source, toy = stores.source(tmp_path / "scans", 0), stores.make(tmp_path / "store")
    toy.prepare([source])
    (before,) = stores.entries(tmp_path / "store")
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
    assert stores.entries(tmp_path / "store") == [before]
    assert (before.read_bytes() == content) == is_same
    assert not toy.missing([source])
    assert (
        any("replaced by another of the same size" in " ".join(line.split()) for line in log)
        != is_same
    )


@pytest.mark.parametrize("size", [1, 2**18, 2**18 + 1, 2**20])
def test_fingerprints_tell_contents_apart(tmp_path: pathlib.Path, size: int) -> None:
    content = bytearray(os.urandom(size).replace(b"x", b"y"))
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
        {"preparation": stores.PREPARATION._replace(body_above=-500.0)},
        {"labels": ["background", "b", "a"]},
    ],
    ids=["name", "preparation", "labels"],
)
def test_what_is_prepared_otherwise_lies_elsewhere(
    scans: pathlib.Path, tmp_path: pathlib.Path, changes: dict[str, Any]
) -> None:
    stores.make(tmp_path).prepare([stores.source(scans, 0)])
    other = stores.make(tmp_path, **changes)
    assert other.missing([stores.source(scans, 0)])
    other.prepare([stores.source(scans, 0)])
    assert len(list(tmp_path.iterdir())) == 2


def test_the_folder_says_what_it_holds(scans: pathlib.Path, tmp_path: pathlib.Path) -> None:
    stores.make(tmp_path, name="a set/../of: data").prepare([stores.source(scans, 0)])
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("a_set_.._of_data-")
    description = json.loads((folder / "preparation.json").read_text())
    assert description["preparation"] == {"spacing": [2.0, 2.0, 2.0], "body_above": -175.0}
    assert description["labels"] == ["background", "a", "b"]


def test_cases_whose_names_differ_in_signs_only(
    scans: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    source = stores.source(scans, 0)
    cases = [source._replace(case=case) for case in ("a/b", "a:b")]
    stores.make(tmp_path).prepare(cases)
    assert len(stores.entries(tmp_path)) == 2


def test_a_changed_source_is_prepared_anew(scans: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copies = shutil.copytree(scans, tmp_path / "copies")
    toy, sources = stores.make(tmp_path / "store"), stores.sources(copies)
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
    toy, sources = stores.make(tmp_path / "store"), stores.sources(copies)
    toy.prepare(sources)
    os.utime(copies / "label_3.nii.gz", (0, 0))
    assert toy.missing(sources) == sources[3:4]


def test_a_missing_scan_is_an_error(scans: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(store.StoreError, match="case_0-.*.scan' cannot be opened.*Prepare"):
        stores.make(tmp_path).open(stores.source(scans, 0))


def test_a_missing_source_is_an_error(scans: pathlib.Path, tmp_path: pathlib.Path) -> None:
    source = stores.source(scans, 0)._replace(files=(str(tmp_path / "gone.nii.gz"),))
    with pytest.raises(store.StoreError, match="Case 'case_0', file '.*gone.nii.gz'"):
        stores.make(tmp_path).prepare([source])


def test_the_disk_that_it_needs_is_stated_before(
    scans: pathlib.Path, tmp_path: pathlib.Path, log: list[str]
) -> None:
    stores.make(tmp_path).prepare(stores.sources(scans))
    (message,) = log
    assert "8 scans of 'toy'" in message
    assert "MB (an estimate)" in message


def test_data_workers_read_what_the_main_process_reads(
    scans: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    toy, sources = stores.make(tmp_path), stores.sources(scans)
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
