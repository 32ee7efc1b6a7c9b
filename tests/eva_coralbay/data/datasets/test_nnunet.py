"""Tests of the raw layout of nnU-Net."""

import os
import pathlib
import unicodedata
from typing import Any

import numpy as np
import pytest
import torch

from eva_coralbay.data import datasets, label_values, phantom, transforms
from eva_coralbay.errors import DatasetError
from tests.eva_coralbay.data.datasets import layouts

CASES = [f"case_{index:02d}" for index in range(10)]

SPLITS = [
    {"train": ["case_02", "case_00"], "val": ["case_01"]},
    {"train": ["case_01"], "val": ["case_00", "case_02"]},
]

NNUNET_FOLDS = [
    ["case_00", "case_07"],
    ["case_03", "case_09"],
    ["case_04", "case_06"],
    ["case_01", "case_08"],
    ["case_02", "case_05"],
]
"""The validation cases that nnU-Net draws from `CASES`: 5 folds, shuffled with seed 12345."""

REAL_DATA = os.environ.get("EVA_CORALBAY_REAL_DATA")


def make(root: pathlib.Path, split: Any = None, **kwargs: Any) -> datasets.NnUNet:
    dataset = datasets.NnUNet(str(root), split, **kwargs)
    dataset.setup()
    return dataset


def test_version_2(tmp_path: pathlib.Path) -> None:
    description = {"name": "Mine", "license": "CC-BY-4.0"}
    layouts.write_nnunet(tmp_path, CASES[:3], splits=SPLITS, description=description)

    dataset = make(tmp_path, "train")

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
    layouts.write_nnunet(tmp_path / "Task001_Organs", CASES[:1], description=description)

    dataset = make(tmp_path / "Task001_Organs")

    assert dataset.classes == ["background", *(f"organ {value}" for value in range(1, 11))]
    assert dataset.license == "MIT"
    assert dataset.name == "Task001_Organs"


def test_labels_are_in_numeric_order(tmp_path: pathlib.Path) -> None:
    labels = {f"organ {value}": value for value in (11, 2, 0, 1, 10, 3, 4, 5, 6, 7, 8, 9)}
    layouts.write_nnunet(tmp_path, CASES[:1], description={"labels": labels})

    assert make(tmp_path).classes[1:] == [f"organ {value}" for value in range(1, 12)]


def test_the_license_may_be_unknown(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, CASES[:1])

    assert make(tmp_path).license == "unknown"


def test_another_fold(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, CASES[:3], splits=SPLITS)

    dataset = make(tmp_path, "val", fold=1)

    assert dataset.case_ids == ["case_00", "case_02"]
    assert dataset.split_name == "fold_1"


def test_without_a_split_all_cases_are_used(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, CASES, splits=SPLITS)

    dataset = make(tmp_path)

    assert dataset.case_ids == CASES
    assert dataset.split_name == "all"


def test_the_test_split_lies_in_its_own_folders(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, CASES[:3], splits=SPLITS)
    layouts.write_nnunet(tmp_path, ["held_out"], suffix="Ts")

    dataset = make(tmp_path, "test")

    assert dataset.case_ids == ["held_out"]
    assert dataset.split_name == "test"
    assert dataset.filename(0) == "imagesTs/held_out_0000.nii.gz"


def test_the_file_ending_is_that_of_the_description(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, CASES[:1], file_ending=".nii")

    assert make(tmp_path).filename(0) == "imagesTr/case_00_0000.nii"


def test_hidden_files_are_no_cases(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, CASES[:1])
    (tmp_path / "imagesTr" / "._case_00_0000.nii.gz").write_bytes(b"mac")
    (tmp_path / "labelsTr" / "._case_00.nii.gz").write_bytes(b"mac")

    assert make(tmp_path).case_ids == ["case_00"]


def test_without_a_split_file_the_folds_are_those_of_nnunet(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, CASES)

    held_out = [make(tmp_path, "val", fold=fold).case_ids for fold in range(5)]

    assert held_out == NNUNET_FOLDS
    for fold, val in enumerate(held_out):
        assert make(tmp_path, "train", fold=fold).case_ids == sorted(set(CASES) - set(val))


@pytest.mark.parametrize(("num_cases", "fold"), [(4, 0), (10, 5), (10, -1)])
def test_folds_that_cannot_be_drawn_are_an_error(
    tmp_path: pathlib.Path, num_cases: int, fold: int
) -> None:
    layouts.write_nnunet(tmp_path, CASES[:num_cases])

    with pytest.raises(DatasetError, match=f"fold {fold} of 5 .* the {num_cases} cases"):
        make(tmp_path, "train", fold=fold)


def test_a_case_that_only_the_split_file_knows_is_an_error(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, CASES[:2], splits=SPLITS)

    assert make(tmp_path, "val").case_ids == ["case_01"]
    with pytest.raises(DatasetError, match="(?s)split 'train' .fold_0.*'case_02': neither"):
        make(tmp_path, "train")


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_case_with_one_of_two_files_is_an_error(tmp_path: pathlib.Path, kind: str) -> None:
    layouts.write_nnunet(tmp_path, CASES[:2])
    next(path for path in (tmp_path / f"{kind}Tr").glob("case_01*")).unlink()

    with pytest.raises(DatasetError, match="'case_01': .* without"):
        make(tmp_path)


@pytest.mark.parametrize(
    ("splits", "problem"),
    [
        ([], "has no fold 0"),
        ({"train": []}, "has no fold 0"),
        (["case_00"], "has no fold 0"),
        ([{"train": ["case_00"], "val": ["case_00"]}], "cases case_00 are listed more than"),
        ([{"train": ["case_01", "case_01"], "val": []}], "cases case_01 are listed more than"),
        ([{"train": "case_01", "val": []}], "'train' is no list"),
        ([{"train": [["case_01"]], "val": []}], "a case of 'train' is .'case_01'., which is no"),
        ([{"train": [None], "val": []}], "a case of 'train' is None"),
    ],
)
def test_a_wrong_split_file_is_an_error(tmp_path: pathlib.Path, splits: Any, problem: str) -> None:
    layouts.write_nnunet(tmp_path, CASES[:3], splits=splits)

    with pytest.raises(DatasetError, match=f"splits_final.json'.*{problem}"):
        make(tmp_path, "train")


@pytest.mark.parametrize(
    ("description", "problem"),
    [
        ({"labels": {"background": 0, "kidney": [1, 2], "tumour": 2}}, "'kidney' is the region"),
        ({"labels": {"background": 0, "liver": 1, "ignore": 1}}, "the same value 1"),
        ({"labels": {"0": "background", "1": "liver", "2": "liver"}}, "the same name"),
        ({"labels": {"background": 0, "liver": True}}, "'liver' is True, which is no whole"),
        ({"labels": {"background": 0, "a\nb": 1}}, "no text in UTF-8"),
        ({"labels": {"background": 0, "\ud800": 1}}, "no text in UTF-8"),
        ({"labels": {}}, "has no 'labels'"),
        ({"name": ["a"]}, "'name' is .'a'., which is no name"),
        ({"file_ending": 3}, "'file_ending' is 3, which is no name"),
        ({"channel_names": {"0": "T1"}}, "the scans are 'T1' and no CT"),
        ({"channel_names": None, "modality": {"0": "MRI"}}, "the scans are 'MRI' and no CT"),
        ({"channel_names": "PET"}, "the scans are 'PET' and no CT"),
        ({"labels": {"background": 0, "liver": 1, "spleen": 3}}, "without gaps"),
        ({"labels": {"background": 0, "liver": 1, "spleen": 1}}, "the same value"),
        ({"labels": {"liver": 1, "spleen": 2}}, "without gaps"),
        ({"labels": ["background", "liver"]}, "has no 'labels'"),
        ({"labels": {"background": 0, "liver": 1.5}}, "'liver' is 1.5, which is no whole"),
        ({"channel_names": {"0": "CT", "1": "PET"}}, "2 channels"),
        ({"channel_names": None, "modality": {"0": "T1", "1": "T2"}}, "2 channels"),
    ],
)
def test_an_unsupported_description_is_an_error(
    tmp_path: pathlib.Path, description: dict[str, Any], problem: str
) -> None:
    layouts.write_nnunet(tmp_path, CASES[:1], description=description)

    with pytest.raises(DatasetError, match=f"dataset.json'.*{problem}"):
        make(tmp_path)


@pytest.mark.parametrize("key", ["license", "licence"])
def test_either_spelling_of_the_license_is_read(tmp_path: pathlib.Path, key: str) -> None:
    layouts.write_nnunet(tmp_path, CASES[:1], description={key: "CC-BY-SA 4.0"})

    assert make(tmp_path).license == "CC-BY-SA 4.0"


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ({"background": 0, "1": 2, "2": 1}, ["background", "2", "1"]),
        ({"0": 0, "1": 2, "2": 1}, ["background", "2", "1"]),
        ({"0": "0", "1": "2", "2": "1"}, ["background", "2", "1"]),
        ({"background": 0, "liver": [1], "spleen": 2.0}, ["background", "liver", "spleen"]),
        ({"background": "0", "liver": "1", "spleen": "2"}, ["background", "liver", "spleen"]),
        ({"0": "clear", "1": "liver", "2": "spleen"}, ["background", "liver", "spleen"]),
    ],
)
def test_values_decide_which_label_is_which(
    tmp_path: pathlib.Path, labels: dict[str, Any], classes: list[str]
) -> None:
    layouts.write_nnunet(tmp_path, CASES[:1], description={"labels": labels})

    assert make(tmp_path).classes == classes


@pytest.mark.parametrize(
    "labels", [{"background": 1, "liver": 0}, {"liver": 0, "spleen": 1, "Background": 2}]
)
def test_a_background_that_is_not_0_is_an_error(
    tmp_path: pathlib.Path, labels: dict[str, int]
) -> None:
    layouts.write_nnunet(tmp_path, CASES[:1], description={"labels": labels})

    with pytest.raises(DatasetError, match="the background has the value ., but it must have 0"):
        make(tmp_path)


def test_a_class_with_the_value_0_is_said_not_to_be_scored(
    tmp_path: pathlib.Path, log: list[str]
) -> None:
    layouts.write_nnunet(tmp_path, CASES[:1], description={"labels": {"liver": 0, "spleen ": 1}})

    assert make(tmp_path).classes == ["background", "spleen"]
    assert any("Label 0 is called 'liver'. It is the background" in line for line in log)


def test_a_region_says_what_to_write_instead(tmp_path: pathlib.Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    layouts.write_nnunet(tmp_path, CASES[:1], description={"labels": labels})

    with pytest.raises(DatasetError, match="{'background': 0, 'part_1': 1, 'part_2': 2, 'enhanc"):
        make(tmp_path)


@pytest.mark.parametrize("value", [3, 7, 255])
@pytest.mark.parametrize("prepared", [True, False])
def test_ignored_voxels_are_marked_and_are_no_class(
    tmp_path: pathlib.Path, value: int, prepared: bool
) -> None:
    description = {"labels": {**layouts.LABELS, "ignore": value}}
    layouts.write_nnunet(tmp_path, CASES[:1], description=description)
    labels = np.zeros(layouts.SHAPE, np.uint8)
    labels[1], labels[2], labels[3] = 1, 2, value
    layouts.write_volume(tmp_path / "labelsTr" / f"{CASES[0]}.nii.gz", labels)
    transform = transforms.TrainTransform(
        spacing=(3.0, 2.0, 1.0), roi_size=(6, 5, 4), num_samples=40
    )

    dataset = make(tmp_path, transforms=transform, prepared=prepared)
    _, targets, _ = dataset[0]

    assert dataset.classes == ["background", "liver", "spleen"]
    _, mask, _ = make(tmp_path)[0]
    assert mask.unique().tolist() == [label_values.IGNORE_LABEL, 0, 1, 2]
    assert (mask == label_values.IGNORE_LABEL).sum() == 30
    # each crop holds the whole scan, whatever it is centered on
    for target in targets:
        assert torch.bincount(target.flatten() + 1).tolist() == [30, 30, 30, 30]
        assert target.dtype == torch.int64


def test_another_value_than_the_ignored_one_is_unknown(tmp_path: pathlib.Path) -> None:
    description = {"labels": {**layouts.LABELS, "ignore": 7}}
    layouts.write_nnunet(tmp_path, CASES[:1], description=description)
    path = tmp_path / "labelsTr" / f"{CASES[0]}.nii.gz"
    layouts.write_volume(path, np.full(layouts.SHAPE, 6, np.uint8))

    with pytest.raises(DatasetError, match=r"label values 6; known are 0 to 2 and 7"):
        make(tmp_path)[0]


@pytest.mark.parametrize(
    "channel",
    ["MR_T2", "mri_t1", "Magnetic resonance", "Dixon-water", "CT_PET", "petct", "FLAIR.1"],
)
@pytest.mark.parametrize("other", [{}, {"modality": {"0": "CT"}}])
def test_scans_of_another_modality_are_an_error_however_it_is_written(
    tmp_path: pathlib.Path, channel: str, other: dict[str, Any]
) -> None:
    description = {"channel_names": {"0": channel}, **other}
    layouts.write_nnunet(tmp_path, CASES[:1], description=description)

    with pytest.raises(DatasetError, match=f"the scans are '{channel}' and no CT"):
        make(tmp_path)


def test_the_older_entry_counts_beside_the_newer_one(tmp_path: pathlib.Path) -> None:
    description = {"channel_names": {"0": "CT"}, "modality": {"0": "MRI"}}
    layouts.write_nnunet(tmp_path, CASES[:1], description=description)

    with pytest.raises(DatasetError, match="the scans are 'MRI' and no CT"):
        make(tmp_path)


@pytest.mark.parametrize("channel", ["CT", "ct", "CTA", "noNorm", "Computed tomography", "portal"])
def test_scans_with_the_name_of_a_ct_are_taken(tmp_path: pathlib.Path, channel: str) -> None:
    layouts.write_nnunet(tmp_path, CASES[:1], description={"channel_names": {"0": channel}})

    assert len(make(tmp_path)) == 1


def test_scans_that_are_called_no_ct_may_be_taken_as_they_are(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, CASES[:1], description={"channel_names": {"0": "MRI"}})

    assert len(make(tmp_path, unchecked_cases=["*"])) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_descriptions_from_windows(tmp_path: pathlib.Path, encoding: str) -> None:
    layouts.write_nnunet(tmp_path, CASES[:3], splits=SPLITS)
    for name in ("dataset.json", "splits_final.json"):
        path = tmp_path / name
        path.write_text(path.read_text(), encoding=encoding)

    assert make(tmp_path, "val").case_ids == ["case_01"]


@pytest.mark.parametrize(("on_disk", "listed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_that_macos_writes_in_another_form(
    tmp_path: pathlib.Path, on_disk: Any, listed: Any
) -> None:
    """One name, two spellings: the image in the one, its label and the split in the other."""
    name = "L\u00e9on_\u00fc"
    stored, wanted = (unicodedata.normalize(form, name) for form in (on_disk, listed))
    layouts.write_nnunet(tmp_path, [stored], splits=[{"train": [wanted], "val": []}])
    (tmp_path / "labelsTr" / f"{stored}.nii.gz").rename(tmp_path / "labelsTr" / f"{wanted}.nii.gz")

    dataset = make(tmp_path, "train")

    assert dataset.case_ids == [unicodedata.normalize("NFC", name)]
    assert dataset[0][1].max() == 2


def test_an_ending_in_upper_case(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, CASES[:2])
    for path in tmp_path.glob("*Tr/*.nii.gz"):
        path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))

    dataset = make(tmp_path)

    assert dataset.case_ids == CASES[:2]
    assert dataset[1][1].max() == 2


def test_a_name_that_is_not_in_utf_8_is_an_error(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, CASES[:1])
    folder = os.fsencode(tmp_path / "imagesTr")
    pathlib.Path(os.fsdecode(folder + b"/caf\xe9_0000.nii.gz")).write_bytes(b"")

    with pytest.raises(DatasetError, match="which is no text in UTF-8. Give it another name"):
        make(tmp_path)


def test_two_names_of_one_case_are_an_error(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, CASES[:1])
    layouts.write_image(tmp_path / "imagesTr" / f"{CASES[0]}_0000.NII.GZ")

    with pytest.raises(DatasetError, match="is the same case. Remove one of them"):
        make(tmp_path)


def test_the_home_folder_may_be_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.write_nnunet(tmp_path / "mine", CASES[:1])
    monkeypatch.setenv("HOME", str(tmp_path))

    dataset = datasets.NnUNet(
        "~/mine", transforms=transforms.EvalTransform(), prepared_root="~/prepared"
    )
    dataset.prepare_data()

    assert len(dataset) == 1
    assert list((tmp_path / "prepared").glob("*/*.scan"))


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"labels": ' * 3000, b'{"a": ' + b"9" * 5000 + b"}", b"\xff\xfe{"]
)
@pytest.mark.parametrize("name", ["dataset.json", "splits_final.json"])
def test_foreign_json_is_one_error(tmp_path: pathlib.Path, name: str, content: bytes) -> None:
    layouts.write_nnunet(tmp_path, CASES[:3], splits=SPLITS)
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DatasetError, match=f"{name}'"):
        make(tmp_path, "train")


def test_a_background_alone_is_an_error(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, CASES[:1], description={"labels": {"background": 0}})

    with pytest.raises(DatasetError, match="no label but the background"):
        make(tmp_path)


def test_a_folder_without_description_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="dataset.json' is missing"):
        make(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_a_damaged_description_is_an_error(tmp_path: pathlib.Path, content: str) -> None:
    (tmp_path / "dataset.json").write_text(content)

    with pytest.raises(DatasetError, match="dataset.json'"):
        make(tmp_path)


@pytest.mark.skipif(
    not REAL_DATA, reason="EVA_CORALBAY_REAL_DATA does not name a folder with real CT"
)
def test_real_cases() -> None:
    root = pathlib.Path(f"{REAL_DATA}/openkbp_oar")

    train, val = make(root, "train"), make(root, "val")

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
