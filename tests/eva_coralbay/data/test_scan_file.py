"""Tests prepared scans as files."""

import pathlib
import tempfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_coralbay.data import preparation, scan_file

_AFFINE = np.diag([1.5, 2.0, 2.5, 1.0])

_SHAPE = (40, 35, 70)
"""More than one chunk along each axis, the last one not full."""


def _scan(
    shape: tuple[int, int, int] = _SHAPE, *, num_labels: int = 4, seed: int = 0
) -> preparation.LoadedScan:
    """A scan of which every label but the background is rare."""
    random = np.random.default_rng(seed)
    image = torch.from_numpy(random.normal(0, 300, (1, *shape)).astype(np.float32))
    labels = random.integers(0, num_labels, (1, *shape)) * (random.random((1, *shape)) < 0.3)
    return preparation.LoadedScan(image, torch.from_numpy(labels.astype(np.int32)), _AFFINE)


def _store(scan: preparation.PreparedScan, path: pathlib.Path) -> scan_file.StoredScan:
    path.write_bytes(scan_file.encode(scan, key="key"))
    return scan_file.StoredScan(str(path), key="key")


@st.composite
def _shapes_and_boxes(draw: st.DrawFn) -> tuple[tuple[int, int, int], preparation.Box]:
    depth, height, width = (draw(st.integers(1, 70)) for _ in range(3))
    extents = []
    for length in (depth, height, width):
        start = draw(st.integers(0, length - 1))
        extents.append(slice(start, draw(st.integers(start + 1, length))))
    return (depth, height, width), (extents[0], extents[1], extents[2])


@settings(max_examples=60, deadline=None)
@given(_shapes_and_boxes(), st.integers(1, 5), st.integers(0, 5))
def test_any_region_and_any_voxel_are_those_of_the_scan_in_memory(
    shape_and_box: tuple[tuple[int, int, int], preparation.Box], num_labels: int, seed: int
) -> None:
    shape, box = shape_and_box
    loaded = _scan(shape, num_labels=num_labels, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        stored = _store(loaded, pathlib.Path(folder, "scan"))
        difference = (stored.read_image(box) - loaded.read_image(box)).abs().max()
        assert difference <= 0.5
        assert torch.equal(stored.read_mask(box).int(), loaded.read_mask(box))
        assert np.array_equal(stored.label_counts, loaded.label_counts)
        for label in np.flatnonzero(loaded.label_counts).tolist():
            for index in {0, int(loaded.label_counts[label]) // 2, -1}:
                index %= int(loaded.label_counts[label])
                assert stored.locate(label, index) == loaded.locate(label, index)


def test_the_grid_is_kept(tmp_path: pathlib.Path) -> None:
    grid = _store(_scan(), tmp_path / "scan").grid
    assert grid.shape == _SHAPE
    assert np.array_equal(grid.affine, _AFFINE)


def test_types_do_not_depend_on_where_a_scan_is_kept(tmp_path: pathlib.Path) -> None:
    stored = _store(_scan(), tmp_path / "scan")
    assert stored.read_image(stored.whole).dtype == torch.float32
    assert not stored.read_mask(stored.whole).dtype.is_floating_point


def test_more_labels_than_a_byte_holds(tmp_path: pathlib.Path) -> None:
    loaded = _scan(num_labels=400)
    stored = _store(loaded, tmp_path / "scan")
    assert torch.equal(stored.read_mask(stored.whole), loaded.read_mask(loaded.whole))
    assert stored.locate(399, 3) == loaded.locate(399, 3)


def test_a_scan_without_labels(tmp_path: pathlib.Path) -> None:
    image = _scan().read_image(_scan().whole)
    stored = _store(preparation.LoadedScan(image, None, _AFFINE), tmp_path / "scan")
    assert len(stored.label_counts) == 0
    assert (stored.read_image(stored.whole) - image).abs().max() <= 0.5


def test_hounsfield_units_are_rounded_and_clipped(tmp_path: pathlib.Path) -> None:
    image = torch.tensor([-1e6, -1.6, -0.4, 0.6, 1.4, 1e6]).reshape(1, 1, 1, -1)
    stored = _store(preparation.LoadedScan(image, None, _AFFINE), tmp_path / "scan")
    values = stored.read_image(stored.whole).flatten().tolist()
    assert values == [-32768, -2, 0, 1, 1, 32767]


def test_equal_scans_make_equal_files() -> None:
    assert scan_file.encode(_scan(), key="a") == scan_file.encode(_scan(), key="a")


def test_a_crop_reads_no_more_than_its_chunks(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those which lie behind each other in one go."""
    stored = _store(_scan((64, 64, 96)), tmp_path / "scan")
    lengths = []
    read = scan_file.os.pread

    def pread(file: int, length: int, position: int) -> bytes:
        lengths.append(length)
        return read(file, length, position)

    monkeypatch.setattr(scan_file.os, "pread", pread)
    stored.read_image((slice(40, 50), slice(0, 64), slice(64, 96)))
    assert len(lengths) == 2, "one row of chunks of two each, of which the last is wanted"
    assert sum(lengths) < 0.3 * (tmp_path / "scan").stat().st_size
    lengths.clear()
    stored.read_image(stored.whole)
    assert len(lengths) == 1


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.1, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_an_error(tmp_path: pathlib.Path, share: float) -> None:
    path = tmp_path / "scan"
    _store(_scan(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(scan_file.StoreError, match=f"'{path}' is damaged"):
        scan_file.StoredScan(str(path), key="key")


def test_any_flipped_byte_is_found(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "scan"
    _store(_scan((8, 8, 40)), path)
    content = path.read_bytes()
    positions = np.random.default_rng(0).permutation(len(content))[:300].tolist()
    for position in [*range(20), *positions]:
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(scan_file.StoreError, match=f"'{path}' is damaged"):
            scan_file.StoredScan(str(path), key="key").check()
    path.write_bytes(content)
    scan_file.StoredScan(str(path), key="key").check()


def test_a_damaged_chunk_hurts_no_other(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "scan"
    stored = _store(_scan(), path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # of the rows
    path.write_bytes(content)
    found = []
    stored = scan_file.StoredScan(str(path), key="key", on_damage=found.append)
    stored.read_image(stored.whole)
    assert not found
    with pytest.raises(scan_file.StoreError, match="rows"):
        stored.check()
    assert found == [scan_file.identity(str(path))]


def test_a_file_under_the_name_of_another_is_an_error(tmp_path: pathlib.Path) -> None:
    _store(_scan(), tmp_path / "scan")
    with pytest.raises(scan_file.StoreError, match="it is that of 'key'"):
        scan_file.StoredScan(str(tmp_path / "scan"), key="other")


def test_an_open_scan_outlives_its_replacement(tmp_path: pathlib.Path) -> None:
    """Someone else may prepare it anew while it is read."""
    stored = _store(_scan(seed=0), tmp_path / "scan")
    expected = stored.read_image(stored.whole)
    (tmp_path / "new").write_bytes(scan_file.encode(_scan((9, 9, 9), seed=1), key="key"))
    (tmp_path / "new").replace(tmp_path / "scan")
    assert torch.equal(stored.read_image(stored.whole), expected)
