"""Tests of OpenKBP: lists of voxels against the same scans as NIfTI files."""

import json
import os
import pathlib
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from eva_coralbay.data import datasets, transforms
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import catalog
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import task_layouts

SPLITS = splits_lib.read_splits("openkbp")
CASES = {split: cases[:2] for split, cases in SPLITS.schemes["v1"].items()}
FIRST = CASES["test"][0]
ORGANS = catalog.TASKS["openkbp"].classes
REAL_DATA = os.environ.get("EVA_CORALBAY_REAL_DATA")


@pytest.fixture
def root(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Two cases of each split with a head whose organs lie along its first axis."""
    few = SPLITS._replace(schemes={"v1": CASES})
    monkeypatch.setattr(splits_lib, "read_splits", lambda _: few)
    values = np.zeros((128,) * 3, dtype=np.int64)
    values[40:60, 50:80, 30:90] = 1040
    values[48:50, 50:80, 30:90] = 900
    labels = np.zeros_like(values)
    for label in range(1, 6):
        labels[40 + 3 * label, 60:64, 40:44] = label
    for case in sum(CASES.values(), []):
        task_layouts.write_openkbp_case(
            tmp_path / "provided-data" / "train-pats" / case, values, labels, (3.5, 4.0, 2.5)
        )
    return tmp_path


def make(root: pathlib.Path, split: Any = "test", **kwargs: Any) -> datasets.OpenKBP:
    dataset = datasets.OpenKBP(str(root), split, **kwargs)
    dataset.setup()
    return dataset


def test_a_volume_is_oriented_and_in_hounsfield_units(root: pathlib.Path) -> None:
    volume, mask, metadata = make(root)[0]

    assert metadata == {"case": FIRST}
    assert sorted(volume.unique().tolist()) == [-1000.0, -100.0, 40.0]
    assert mask.dtype == torch.uint8
    # the axes of the cube are posterior, left and inferior; those of a volume are SPL
    assert grid_lib.spacing(volume.affine) == pytest.approx((2.5, 3.5, 4.0))
    body = torch.nonzero(volume[0] > -1000)
    assert body.min(dim=0).values.tolist() == [128 - 90, 40, 50]
    assert torch.nonzero(mask[0] == 1).float().mean(dim=0).tolist() == [127 - 41.5, 43, 61.5]


def test_prepared_scans_are_cropped_to_the_body(root: pathlib.Path) -> None:
    dataset = make(root, transforms=transforms.EvalTransform(spacing=(3.0, 3.0, 3.0)))
    dataset.prepare_data()

    image, mask, _ = dataset[0]

    assert image.shape == mask.shape == (1, 50, 23, 39)
    assert sorted(mask.unique().tolist()) == [0, 1, 2, 3, 4, 5]


def test_a_missing_organ_is_named(root: pathlib.Path) -> None:
    (root / "provided-data" / "train-pats" / FIRST / "Mandible.csv").unlink()

    with pytest.raises(DatasetError, match=rf"'{FIRST}': \['Mandible.csv'\] are missing"):
        make(root)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("ct.csv", ",data\n2097152,5.0\n", "an index is not an integer below 128"),
        ("ct.csv", ",data\n7,5.0\n7,6.0\n", "a voxel is there twice"),
        ("ct.csv", ",data\n7,\n", "a value is missing"),
        ("Brainstem.csv", ",data\nx,\n", "it cannot be read"),
    ],
)
def test_damaged_lists_are_named(root: pathlib.Path, name: str, content: str, problem: str) -> None:
    (root / "provided-data" / "train-pats" / FIRST / name).write_text(content)

    with pytest.raises(DatasetError, match=rf"Case '{FIRST}', file .*{name}': {problem}"):
        make(root)[0]


def test_damaged_lengths_are_named(root: pathlib.Path) -> None:
    (root / "provided-data" / "train-pats" / FIRST / "voxel_dimensions.csv").write_text("3\n0\n3\n")

    with pytest.raises(DatasetError, match="not three lengths in mm"):
        make(root)


def test_every_file_can_be_downloaded_by_its_checksum() -> None:
    task = catalog.TASKS["openkbp"]
    cases = sum(SPLITS.schemes["v1"].values(), [])
    names = ("ct", "voxel_dimensions", *ORGANS)

    assert {resource.filename for resource in task.resources} == {
        f"provided-data/train-pats/{case}/{name}.csv" for case in cases for name in names
    }
    assert all(resource.url.endswith(resource.filename) for resource in task.resources)


@pytest.mark.skipif(REAL_DATA is None, reason="EVA_CORALBAY_REAL_DATA is not set")
def test_the_split_is_that_of_the_converted_scans() -> None:
    folder = pathlib.Path(str(REAL_DATA)) / "openkbp_oar99"
    (theirs,) = json.loads((folder / "splits_final.json").read_text())

    for ours, name in (("train", "train"), ("test", "val")):
        assert sorted(f"openkbp_{case}" for case in SPLITS.schemes["v1"][ours]) == sorted(
            theirs[name]
        )


@pytest.mark.skipif(REAL_DATA is None, reason="EVA_CORALBAY_REAL_DATA is not set")
@pytest.mark.parametrize("case", ["pt_1", "pt_100"])
def test_the_lists_give_the_scan_that_was_converted_from_them(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """A part of the cube is the scan: the rest of it is air."""
    folder = pathlib.Path(str(REAL_DATA)) / "openkbp_oar99"
    image = nib.load(folder / "imagesTr" / f"openkbp_{case}_0000.nii.gz")
    label = nib.load(folder / "labelsTr" / f"openkbp_{case}.nii.gz")
    spacing = np.abs(np.array([image.affine[1, 0], image.affine[0, 1], image.affine[2, 2]]))
    start = np.rint(
        -np.array([image.affine[1, 3], image.affine[0, 3], image.affine[2, 3]]) / spacing
    )
    box = tuple(slice(int(a), int(a) + b) for a, b in zip(start, image.shape, strict=True))
    values, labels = np.zeros((2, 128, 128, 128), dtype=np.int64)
    values[box] = np.asarray(image.dataobj) + 1000
    labels[box] = np.asarray(label.dataobj)
    few = SPLITS._replace(schemes={"v1": {"train": [case]}})
    monkeypatch.setattr(splits_lib, "read_splits", lambda _: few)
    task_layouts.write_openkbp_case(
        tmp_path / "provided-data" / "train-pats" / case, values, labels, spacing
    )

    volume, mask, _ = make(tmp_path, "train")[0]

    (converted,) = _converted(folder, case)
    found = torch.nonzero(mask[0])
    expected = torch.nonzero(converted[1][0])
    offset = (found.min(dim=0).values - expected.min(dim=0).values).tolist()
    part = tuple(slice(a, a + b) for a, b in zip(offset, converted[0].shape[1:], strict=True))
    assert torch.equal(volume[0][part], converted[0][0])
    assert torch.equal(mask[0][part], converted[1][0])
    first = volume.affine.double() @ torch.tensor([*offset, 1], dtype=torch.float64)
    torch.testing.assert_close(first[:3], converted[0].affine[:3, 3], atol=0.01, rtol=0)


def _converted(folder: pathlib.Path, case: str) -> list[Any]:
    dataset = datasets.NnUNet(str(folder), "train", fold=0)
    dataset.setup()
    names = dataset.case_ids
    if f"openkbp_{case}" not in names:
        dataset = datasets.NnUNet(str(folder), "val", fold=0)
        dataset.setup()
        names = dataset.case_ids
    return [dataset[names.index(f"openkbp_{case}")]]
