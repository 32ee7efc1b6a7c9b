"""Tests of the raw layout of nnU-Net."""

import os
import pathlib
from typing import Any

import pytest
import torch

from eva_coralbay.data import datasets, phantom, transforms
from eva_coralbay.errors import DatasetError
from tests.eva_coralbay.data.datasets import layouts, raw_layouts

NNUNET_FOLDS = [
    ["case_00", "case_07"],
    ["case_03", "case_09"],
    ["case_04", "case_06"],
    ["case_01", "case_08"],
    ["case_02", "case_05"],
]
"""The validation cases that nnU-Net draws from `CASES`: 5 folds, shuffled with seed 12345."""


REAL_DATA = os.environ.get("EVA_CORALBAY_REAL_DATA")


def test_version_2(tmp_path: pathlib.Path) -> None:
    description = {"name": "Mine", "license": "CC-BY-4.0"}
    layouts.write_nnunet(
        tmp_path, raw_layouts.CASES[:3], splits=raw_layouts.SPLITS, description=description
    )

    dataset = raw_layouts.make(tmp_path, "train")

    assert dataset.name == "Mine"
    assert dataset.license == "CC-BY-4.0"
    assert dataset.classes == ["background", "liver", "spleen"]
    assert dataset.case_ids == ["case_00", "case_02"]
    assert dataset.split_name == "fold_0"
    assert dataset.filename(1) == "imagesTr/case_02_0000.nii.gz"
    volume, mask, metadata = dataset[1]
    assert volume.shape == mask.shape == (1, 6, 5, 4)
    assert metadata == {"case": "case_02"}


def test_version_1(tmp_path: pathlib.Path) -> None:
    description = {
        "modality": {"0": "CT"},
        "labels": {str(value): f"organ {value}" for value in (0, 10, 2, 1, 3, 4, 5, 6, 7, 8, 9)},
        "license": "MIT",
    }
    layouts.write_nnunet(
        tmp_path / "Task001_Organs", raw_layouts.CASES[:1], description=description
    )

    dataset = raw_layouts.make(tmp_path / "Task001_Organs")

    assert dataset.classes == ["background", *(f"organ {value}" for value in range(1, 11))]
    assert dataset.license == "MIT"
    assert dataset.name == "Task001_Organs"


def test_labels_are_in_numeric_order(tmp_path: pathlib.Path) -> None:
    labels = {f"organ {value}": value for value in (11, 2, 0, 1, 10, 3, 4, 5, 6, 7, 8, 9)}
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1], description={"labels": labels})

    assert raw_layouts.make(tmp_path).classes[1:] == [f"organ {value}" for value in range(1, 12)]


def test_the_license_may_be_unknown(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1])

    assert raw_layouts.make(tmp_path).license == "unknown"


def test_another_fold(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:3], splits=raw_layouts.SPLITS)

    dataset = raw_layouts.make(tmp_path, "val", fold=1)

    assert dataset.case_ids == ["case_00", "case_02"]
    assert dataset.split_name == "fold_1"


def test_without_a_split_all_cases_are_used(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES, splits=raw_layouts.SPLITS)

    dataset = raw_layouts.make(tmp_path)

    assert dataset.case_ids == raw_layouts.CASES
    assert dataset.split_name == "all"


def test_the_test_split_lies_in_its_own_folders(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:3], splits=raw_layouts.SPLITS)
    layouts.write_nnunet(tmp_path, ["held_out"], suffix="Ts")

    dataset = raw_layouts.make(tmp_path, "test")

    assert dataset.case_ids == ["held_out"]
    assert dataset.split_name == "test"
    assert dataset.filename(0) == "imagesTs/held_out_0000.nii.gz"


def test_the_file_ending_is_that_of_the_description(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1], file_ending=".nii")

    assert raw_layouts.make(tmp_path).filename(0) == "imagesTr/case_00_0000.nii"


def test_hidden_files_are_no_cases(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1])
    (tmp_path / "imagesTr" / "._case_00_0000.nii.gz").write_bytes(b"mac")
    (tmp_path / "labelsTr" / "._case_00.nii.gz").write_bytes(b"mac")

    assert raw_layouts.make(tmp_path).case_ids == ["case_00"]


def test_without_a_split_file_the_folds_are_those_of_nnunet(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES)

    held_out = [raw_layouts.make(tmp_path, "val", fold=fold).case_ids for fold in range(5)]

    assert held_out == NNUNET_FOLDS
    for fold, val in enumerate(held_out):
        assert raw_layouts.make(tmp_path, "train", fold=fold).case_ids == sorted(
            set(raw_layouts.CASES) - set(val)
        )


@pytest.mark.parametrize(("num_cases", "fold"), [(4, 0), (10, 5), (10, -1)])
def test_folds_that_cannot_be_drawn_are_an_error(
    tmp_path: pathlib.Path, num_cases: int, fold: int
) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:num_cases])

    with pytest.raises(DatasetError, match=f"fold {fold} of 5 .* the {num_cases} cases"):
        raw_layouts.make(tmp_path, "train", fold=fold)


def test_a_case_that_only_the_split_file_knows_is_an_error(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:2], splits=raw_layouts.SPLITS)

    assert raw_layouts.make(tmp_path, "val").case_ids == ["case_01"]
    with pytest.raises(DatasetError, match="(?s)split 'train' .fold_0.*'case_02': neither"):
        raw_layouts.make(tmp_path, "train")


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_case_with_one_of_two_files_is_an_error(tmp_path: pathlib.Path, kind: str) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:2])
    next(path for path in (tmp_path / f"{kind}Tr").glob("case_01*")).unlink()

    with pytest.raises(DatasetError, match="'case_01': .* without"):
        raw_layouts.make(tmp_path)


@pytest.mark.parametrize(
    ("splits", "problem"),
    [
        ([], "has no fold 0"),
        ({"train": []}, "has no fold 0"),
        (["case_00"], "has no fold 0"),
        ([{"train": ["case_00"], "val": ["case_00"]}], "cases case_00 are listed more than"),
        ([{"train": ["case_01", "case_01"], "val": []}], "cases case_01 are listed more than"),
        ([{"train": "case_01", "val": []}], "'train' is not a list"),
        ([{"train": [["case_01"]], "val": []}], "a case of 'train' is .'case_01'., which is no"),
        ([{"train": [None], "val": []}], "a case of 'train' is None"),
    ],
)
def test_a_wrong_split_file_is_an_error(tmp_path: pathlib.Path, splits: Any, problem: str) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:3], splits=splits)

    with pytest.raises(DatasetError, match=f"splits_final.json'.*{problem}"):
        raw_layouts.make(tmp_path, "train")


@pytest.mark.skipif(
    not REAL_DATA, reason="EVA_CORALBAY_REAL_DATA does not name a folder with real CT"
)
def test_real_cases() -> None:
    root = pathlib.Path(f"{REAL_DATA}/openkbp_oar")

    train, val = raw_layouts.make(root, "train"), raw_layouts.make(root, "val")

    assert (len(train), len(val)) == (40, 12)
    assert not set(train.case_ids) & set(val.case_ids)
    assert train.classes[3:5] == ["RightParotid", "LeftParotid"]
    for index in range(len(val)):
        volume, mask, _ = val[index]
        assert volume.shape == mask.shape
        assert set(mask.unique().tolist()) == set(range(6))


@pytest.mark.parametrize("data", ["phantom", "openkbp_oar"])
def test_the_store_changes_hounsfield_by_half_a_unit_and_no_label(
    tmp_path: pathlib.Path, data: str
) -> None:
    root = str(tmp_path / data)
    if data == "phantom":
        phantom.write_dataset(root, cases=4, val_cases=2, shape=(40, 48, 48), spacing_mm=(6, 7, 7))
    elif REAL_DATA:
        root = os.path.join(REAL_DATA, data)
    else:
        pytest.skip("EVA_CORALBAY_REAL_DATA does not name a folder with real CT")
    transform = transforms.EvalTransform(spacing=(5.0, 5.0, 5.0), hu_window=(-175.0, 250.0))
    stored = datasets.NnUNet(
        root, "val", transforms=transform, prepared_root=str(tmp_path / "prepared")
    )
    loaded = datasets.NnUNet(root, "val", transforms=transform, prepared=False)
    stored.prepare_data()
    loaded.setup()

    for index in range(len(loaded)):
        (image, target, case), (expected, labels, expected_case) = stored[index], loaded[index]
        assert case["case"] == expected_case["case"]
        assert torch.equal(case["affine"], expected_case["affine"])
        assert torch.equal(target, labels)
        assert image.shape == expected.shape
        assert float((image - expected).abs().max()) <= 0.501 / 425, "half a HU of the window"
