"""Tests that a manifest stays readable, and what it says of a store."""

import json
import pathlib

import pydantic
import pytest

from eva_coralbay.errors import DatasetError
from eva_coralbay.pretraining import manifest
from tests.eva_coralbay.pretraining import stores

_GOLDEN = pathlib.Path(__file__).parent / "data/manifest_v1.json"
"""A manifest as version 0.1 of the package wrote it, with a row for each status."""


@pytest.fixture(name="golden")
def _golden(tmp_path: pathlib.Path) -> manifest.Manifest:
    (tmp_path / manifest.NAME).write_bytes(_GOLDEN.read_bytes())
    return manifest.Manifest.read(str(tmp_path))


def test_reads_version_1(golden: manifest.Manifest) -> None:
    assert golden.version == 1 and golden.spacing == (1.5, 1.5, 1.5)
    assert [case.status for case in golden.cases] == ["found", "prepared", "quarantined"]
    (prepared,) = golden.prepared
    assert prepared.case == "scans__002__IM0001" and prepared.kind == "dicom"
    assert prepared.source == manifest.Geometry(shape=(80, 512, 512), spacing=(5.0, 0.75, 0.75))
    assert prepared.prepared == manifest.Geometry(shape=(267, 180, 220), spacing=(1.5, 1.5, 1.5))
    assert prepared.source.extent_mm == (400.0, 384.0, 384.0)
    assert prepared.hounsfield is not None and prepared.hounsfield.minimum == -1024.0
    assert golden.cases[2].reason == "constant: all voxels are 0"


def test_the_hash_of_version_1_stays(golden: manifest.Manifest) -> None:
    assert golden.sha256 == "ba33af96dfcb56a884551de309eef7dc963cdadfe631ed7ed9678f1f7ba6eed2"


def test_writes_what_it_read(golden: manifest.Manifest, tmp_path: pathlib.Path) -> None:
    golden.write(str(tmp_path / "copy"))
    assert (tmp_path / "copy" / manifest.NAME).read_text() == _GOLDEN.read_text().rstrip()


def test_the_hash_is_of_the_scans_that_can_be_used(golden: manifest.Manifest) -> None:
    found, prepared, quarantined = golden.cases
    elsewhere = prepared.model_copy(update={"identity": "1", "place": "2", "path": "3", "key": "4"})
    same = manifest.Manifest(spacing=golden.spacing, cases=(elsewhere,))
    assert same.sha256 == golden.sha256
    other = prepared.model_copy(update={"sha256": "0" * 64})
    changes = [
        manifest.Manifest(spacing=golden.spacing, cases=(found, other, quarantined)),
        manifest.Manifest(spacing=(1.0, 1.5, 1.5), cases=golden.cases),
        manifest.Manifest(spacing=golden.spacing, cases=(found, quarantined)),
    ]
    assert golden.sha256 not in {change.sha256 for change in changes}


def test_opens_prepared_scans_wherever_the_store_is(tmp_path: pathlib.Path) -> None:
    store = pathlib.Path(stores.write_store(tmp_path / "store", cases=1))
    moved = store.rename(tmp_path / "moved")
    content = manifest.Manifest.read(str(moved))
    (case,) = content.prepared
    assert case.prepared is not None and content.open(case).grid.shape == case.prepared.shape


def test_does_not_open_what_was_set_aside(golden: manifest.Manifest) -> None:
    with pytest.raises(ValueError, match="'scans__003'.*constant: all voxels are 0"):
        golden.open(golden.cases[2])


def test_says_how_to_make_a_store_where_there_is_none(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match=f"'{tmp_path}/manifest.json': No such.*pretrain prep"):
        manifest.Manifest.read(str(tmp_path))


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"spacing": [1.5]}, {"unknown": 1}, {"cases": [{"case": "a"}]}],
    ids=lambda change: next(iter(change)),
)
def test_refuses_what_is_no_manifest(tmp_path: pathlib.Path, change: dict) -> None:
    content = json.loads(_GOLDEN.read_text()) | change
    (tmp_path / manifest.NAME).write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="(?s)is not a manifest of a store.*pretrain prepare"):
        manifest.Manifest.read(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"])
def test_refuses_what_is_damaged(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / manifest.NAME).write_bytes(content)
    with pytest.raises(DatasetError, match="is not a manifest of a store"):
        manifest.Manifest.read(str(tmp_path))


@pytest.mark.parametrize("kind", ["device", "folder"])
def test_refuses_what_is_no_file(tmp_path: pathlib.Path, kind: str) -> None:
    """A device has no end."""
    path = tmp_path / manifest.NAME
    path.mkdir() if kind == "folder" else path.symlink_to("/dev/zero")
    with pytest.raises(DatasetError, match="manifest.json' is a folder, a pipe or a device"):
        manifest.Manifest.read(str(tmp_path))


def test_a_row_does_not_change(golden: manifest.Manifest) -> None:
    with pytest.raises(pydantic.ValidationError):
        golden.cases[0].status = "prepared"
