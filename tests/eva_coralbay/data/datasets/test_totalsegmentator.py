"""Tests of TotalSegmentator."""

import pathlib
from typing import Any

import numpy as np
import pytest
import torch

from eva_coralbay.data import datasets, nifti, transforms
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import layouts, task_layouts

SPLITS = splits_lib.read_splits("totalsegmentator")

CASES = {split: cases[:2] for split, cases in SPLITS.schemes["official"].items()}
"""The cases that are written."""

FIRST = CASES["val"][0]


@pytest.fixture
def root(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The root of two cases of each split, which are all there are."""
    few = SPLITS._replace(schemes={"official": CASES})
    monkeypatch.setattr(splits_lib, "read_splits", lambda _: few)
    task_layouts.write_totalsegmentator(tmp_path)
    return tmp_path


def make(root: pathlib.Path, split: Any = "val", **kwargs: Any) -> datasets.TotalSegmentator:
    dataset = datasets.TotalSegmentator(str(root), split, **kwargs)
    dataset.setup()
    return dataset


def test_masks_are_merged_to_their_values(root: pathlib.Path) -> None:
    _, label = task_layouts.make_scan(task_layouts.SHAPE, 118)
    volume, mask, metadata = make(root)[0]

    assert metadata == {"case": FIRST}
    assert mask.dtype == torch.uint8
    assert np.array_equal(np.bincount(mask.numpy().ravel()), np.bincount(label.ravel()))
    spleen = nifti.read_mask(
        str(root / FIRST / "segmentations" / "spleen.nii.gz"),
        case=FIRST,
        like=grid_lib.Grid.of(volume),
        labels=(0, 1),
    )
    assert torch.equal(mask == 1, spleen == 1)


def test_where_masks_overlap_the_higher_value_counts(root: pathlib.Path) -> None:
    folder = root / FIRST / "segmentations"
    (folder / "urinary_bladder.nii.gz").write_bytes((folder / "hip_left.nii.gz").read_bytes())
    (folder / "sternum.nii.gz").write_bytes((folder / "spleen.nii.gz").read_bytes())
    values = make(root)[0][1].unique().tolist()

    assert make(root).class_to_idx["hip_left"] == 77
    assert set(range(118)) - set(values) == {1, 21}


def test_a_mask_on_another_grid_is_an_error(root: pathlib.Path) -> None:
    layouts.write_volume(root / FIRST / "segmentations" / "aorta.nii.gz", np.ones((3, 3, 3), "u1"))

    with pytest.raises(DatasetError, match=f"Case '{FIRST}', file '.*aorta.nii.gz': .*grid"):
        make(root)[0]


def test_missing_masks_are_found_before_loading(root: pathlib.Path) -> None:
    (root / FIRST / "segmentations" / "aorta.nii.gz").unlink()

    make(root, "train")
    with pytest.raises(DatasetError, match=f"'{FIRST}': 1 of 117 masks .*: aorta.nii.gz"):
        make(root)


def test_only_an_incomplete_data_set_is_downloaded(
    root: pathlib.Path, downloads: list[str]
) -> None:
    dataset = datasets.TotalSegmentator(str(root), download=True)

    dataset.prepare_data()
    assert downloads == []
    (root / FIRST / "segmentations" / "aorta.nii.gz").unlink()
    dataset.prepare_data()
    assert downloads == [str(root)]


def test_missing_scans_and_cases_are_found_before_loading(root: pathlib.Path) -> None:
    (root / FIRST / "ct.nii.gz").unlink()
    (root / CASES["val"][1]).rename(root / "s9999")

    with pytest.raises(DatasetError, match=f"2 of 2 cases .*(?s:.*)'{FIRST}', file .*ct.nii.gz"):
        make(root)


def test_a_change_of_one_mask_changes_the_checksum(root: pathlib.Path) -> None:
    before = make(root).checksums()
    folder = root / FIRST / "segmentations"
    (folder / "aorta.nii.gz").write_bytes((folder / "heart.nii.gz").read_bytes())
    after = make(root).checksums()

    assert after["images"] == before["images"]
    assert after["labels"] != before["labels"]


def test_samples_for_a_model(root: pathlib.Path) -> None:
    transform = transforms.EvalTransform(spacing=(3.0, 3.0, 3.0))
    image, target, _ = make(root, "test", transforms=transform, prepared=False)[1]

    assert image.shape == target.shape
    assert target.max() == 117


def test_the_lists_are_compared_with_those_of_the_data(root: pathlib.Path) -> None:
    path = root / "meta.csv"
    path.write_text(path.read_text().replace(f"{FIRST};60;f;val", f"{FIRST};60;f;train"))

    with pytest.raises(DatasetError, match=f"1 cases are in another split .*: {FIRST}\\."):
        make(root, "test")
    path.unlink()
    assert len(make(root, "test")) == 2


def test_the_structures_are_in_the_order_of_the_authors() -> None:
    values = {name: value for value, name in enumerate(datasets.TotalSegmentator.facts.labels)}

    assert len(values) == 118
    assert [values[name] for name in ("spleen", "esophagus", "sacrum", "vertebrae_S1")] == [
        1,
        15,
        25,
        26,
    ]
    assert [values[f"vertebrae_{name}"] for name in ("L5", "T12", "C7", "C1")] == [27, 32, 44, 50]
    assert [values[name] for name in ("heart", "brain", "skull", "rib_left_1")] == [51, 90, 91, 92]
    assert [values[f"rib_{name}"] for name in ("left_12", "right_1", "right_12")] == [103, 104, 115]
    assert [values[name] for name in ("sternum", "costal_cartilages")] == [116, 117]


def test_splits() -> None:
    lists = SPLITS.schemes["official"]

    assert {split: len(cases) for split, cases in lists.items()} == {
        "train": 1082,
        "val": 57,
        "test": 89,
    }
    assert len(set(sum(lists.values(), []))) == 1228
