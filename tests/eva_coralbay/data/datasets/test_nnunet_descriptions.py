"""Tests of foreign descriptions, and of the names of files."""

import os
import pathlib
import unicodedata
from typing import Any

import numpy as np
import pytest
import torch

from eva_coralbay.data import datasets, label_values, transforms
from eva_coralbay.errors import DatasetError
from tests.eva_coralbay.data.datasets import layouts, raw_layouts


@pytest.mark.parametrize(
    ("description", "problem"),
    [
        ({"labels": {"background": 0, "kidney": [1, 2], "tumour": 2}}, "'kidney' is the region"),
        ({"labels": {"background": 0, "liver": 1, "ignore": 1}}, "the same value 1"),
        ({"labels": {"0": "background", "1": "liver", "2": "liver"}}, "the same name"),
        ({"labels": {"background": 0, "liver": True}}, "'liver' is True, which is not a whole"),
        ({"labels": {"background": 0, "a\nb": 1}}, "not text in UTF-8"),
        ({"labels": {"background": 0, "\ud800": 1}}, "not text in UTF-8"),
        ({"labels": {}}, "has no 'labels'"),
        ({"name": ["a"]}, "'name' is .'a'., which is not a name"),
        ({"file_ending": 3}, "'file_ending' is 3, which is not a name"),
        ({"channel_names": {"0": "T1"}}, "the scans are 'T1' and no CT"),
        ({"channel_names": None, "modality": {"0": "MRI"}}, "the scans are 'MRI' and no CT"),
        ({"channel_names": "PET"}, "the scans are 'PET' and no CT"),
        ({"labels": {"background": 0, "liver": 1, "spleen": 3}}, "without gaps"),
        ({"labels": {"background": 0, "liver": 1, "spleen": 1}}, "the same value"),
        ({"labels": {"liver": 1, "spleen": 2}}, "without gaps"),
        ({"labels": ["background", "liver"]}, "has no 'labels'"),
        ({"labels": {"background": 0, "liver": 1.5}}, "'liver' is 1.5, which is not a whole"),
        ({"channel_names": {"0": "CT", "1": "PET"}}, "2 channels"),
        ({"channel_names": None, "modality": {"0": "T1", "1": "T2"}}, "2 channels"),
    ],
)
def test_an_unsupported_description_is_an_error(
    tmp_path: pathlib.Path, description: dict[str, Any], problem: str
) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1], description=description)

    with pytest.raises(DatasetError, match=f"dataset.json'.*{problem}"):
        raw_layouts.make(tmp_path)


@pytest.mark.parametrize("key", ["license", "licence"])
def test_either_spelling_of_the_license_is_read(tmp_path: pathlib.Path, key: str) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1], description={key: "CC-BY-SA 4.0"})

    assert raw_layouts.make(tmp_path).license == "CC-BY-SA 4.0"


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
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1], description={"labels": labels})

    assert raw_layouts.make(tmp_path).classes == classes


@pytest.mark.parametrize(
    "labels", [{"background": 1, "liver": 0}, {"liver": 0, "spleen": 1, "Background": 2}]
)
def test_a_background_that_is_not_0_is_an_error(
    tmp_path: pathlib.Path, labels: dict[str, int]
) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1], description={"labels": labels})

    with pytest.raises(DatasetError, match="the background has the value ., but it must have 0"):
        raw_layouts.make(tmp_path)


def test_a_class_with_the_value_0_is_said_not_to_be_scored(
    tmp_path: pathlib.Path, log: list[str]
) -> None:
    layouts.write_nnunet(
        tmp_path, raw_layouts.CASES[:1], description={"labels": {"liver": 0, "spleen ": 1}}
    )

    assert raw_layouts.make(tmp_path).classes == ["background", "spleen"]
    assert any("Label 0 is called 'liver'. It is the background" in line for line in log)


def test_a_region_says_what_to_write_instead(tmp_path: pathlib.Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1], description={"labels": labels})

    with pytest.raises(DatasetError, match="{'background': 0, 'part_1': 1, 'part_2': 2, 'enhanc"):
        raw_layouts.make(tmp_path)


@pytest.mark.parametrize("value", [3, 7, 255])
@pytest.mark.parametrize("prepared", [True, False])
def test_ignored_voxels_are_marked_and_are_no_class(
    tmp_path: pathlib.Path, value: int, prepared: bool
) -> None:
    description = {"labels": {**layouts.LABELS, "ignore": value}}
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1], description=description)
    labels = np.zeros(layouts.SHAPE, np.uint8)
    labels[1], labels[2], labels[3] = 1, 2, value
    layouts.write_volume(tmp_path / "labelsTr" / f"{raw_layouts.CASES[0]}.nii.gz", labels)
    transform = transforms.TrainTransform(
        spacing=(3.0, 2.0, 1.0), roi_size=(6, 5, 4), num_samples=40
    )

    dataset = raw_layouts.make(tmp_path, transforms=transform, prepared=prepared)
    _, targets, _ = dataset[0]

    assert dataset.classes == ["background", "liver", "spleen"]
    _, mask, _ = raw_layouts.make(tmp_path)[0]
    assert mask.unique().tolist() == [label_values.IGNORE_LABEL, 0, 1, 2]
    assert (mask == label_values.IGNORE_LABEL).sum() == 30
    # each crop holds the whole scan, whatever it is centered on
    for target in targets:
        assert torch.bincount(target.flatten() + 1).tolist() == [30, 30, 30, 30]
        assert target.dtype == torch.int64


def test_another_value_than_the_ignored_one_is_unknown(tmp_path: pathlib.Path) -> None:
    description = {"labels": {**layouts.LABELS, "ignore": 7}}
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1], description=description)
    path = tmp_path / "labelsTr" / f"{raw_layouts.CASES[0]}.nii.gz"
    layouts.write_volume(path, np.full(layouts.SHAPE, 6, np.uint8))

    with pytest.raises(DatasetError, match=r"label values 6; known are 0 to 2 and 7"):
        raw_layouts.make(tmp_path)[0]


@pytest.mark.parametrize(
    "channel",
    ["MR_T2", "mri_t1", "Magnetic resonance", "Dixon-water", "CT_PET", "petct", "FLAIR.1"],
)
@pytest.mark.parametrize("other", [{}, {"modality": {"0": "CT"}}])
def test_scans_of_another_modality_are_an_error_however_it_is_written(
    tmp_path: pathlib.Path, channel: str, other: dict[str, Any]
) -> None:
    description = {"channel_names": {"0": channel}, **other}
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1], description=description)

    with pytest.raises(DatasetError, match=f"the scans are '{channel}' and no CT"):
        raw_layouts.make(tmp_path)


def test_the_older_entry_counts_beside_the_newer_one(tmp_path: pathlib.Path) -> None:
    description = {"channel_names": {"0": "CT"}, "modality": {"0": "MRI"}}
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1], description=description)

    with pytest.raises(DatasetError, match="the scans are 'MRI' and no CT"):
        raw_layouts.make(tmp_path)


@pytest.mark.parametrize("channel", ["CT", "ct", "CTA", "noNorm", "Computed tomography", "portal"])
def test_scans_with_the_name_of_a_ct_are_taken(tmp_path: pathlib.Path, channel: str) -> None:
    layouts.write_nnunet(
        tmp_path, raw_layouts.CASES[:1], description={"channel_names": {"0": channel}}
    )

    assert len(raw_layouts.make(tmp_path)) == 1


def test_scans_that_are_called_no_ct_may_be_taken_as_they_are(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(
        tmp_path, raw_layouts.CASES[:1], description={"channel_names": {"0": "MRI"}}
    )

    assert len(raw_layouts.make(tmp_path, unchecked_cases=["*"])) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_descriptions_from_windows(tmp_path: pathlib.Path, encoding: str) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:3], splits=raw_layouts.SPLITS)
    for name in ("dataset.json", "splits_final.json"):
        path = tmp_path / name
        path.write_text(path.read_text(), encoding=encoding)

    assert raw_layouts.make(tmp_path, "val").case_ids == ["case_01"]


@pytest.mark.parametrize(("on_disk", "listed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_that_macos_writes_in_another_form(
    tmp_path: pathlib.Path, on_disk: Any, listed: Any
) -> None:
    """One name, two spellings: the image in the one, its label and the split in the other."""
    name = "L\u00e9on_\u00fc"
    stored, wanted = (unicodedata.normalize(form, name) for form in (on_disk, listed))
    layouts.write_nnunet(tmp_path, [stored], splits=[{"train": [wanted], "val": []}])
    (tmp_path / "labelsTr" / f"{stored}.nii.gz").rename(tmp_path / "labelsTr" / f"{wanted}.nii.gz")

    dataset = raw_layouts.make(tmp_path, "train")

    assert dataset.case_ids == [unicodedata.normalize("NFC", name)]
    assert dataset[0][1].max() == 2


def test_an_ending_in_upper_case(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:2])
    for path in tmp_path.glob("*Tr/*.nii.gz"):
        path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))

    dataset = raw_layouts.make(tmp_path)

    assert dataset.case_ids == raw_layouts.CASES[:2]
    assert dataset[1][1].max() == 2


def test_a_name_that_is_not_in_utf_8_is_an_error(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1])
    folder = os.fsencode(tmp_path / "imagesTr")
    pathlib.Path(os.fsdecode(folder + b"/caf\xe9_0000.nii.gz")).write_bytes(b"")

    with pytest.raises(DatasetError, match="which is not text in UTF-8. Give it another name"):
        raw_layouts.make(tmp_path)


def test_two_names_of_one_case_are_an_error(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1])
    layouts.write_image(tmp_path / "imagesTr" / f"{raw_layouts.CASES[0]}_0000.NII.GZ")

    with pytest.raises(DatasetError, match="is the same case. Remove one of them"):
        raw_layouts.make(tmp_path)


def test_the_home_folder_may_be_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.write_nnunet(tmp_path / "mine", raw_layouts.CASES[:1])
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
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:3], splits=raw_layouts.SPLITS)
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DatasetError, match=f"{name}'"):
        raw_layouts.make(tmp_path, "train")


def test_a_background_alone_is_an_error(tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path, raw_layouts.CASES[:1], description={"labels": {"background": 0}})

    with pytest.raises(DatasetError, match="no label but the background"):
        raw_layouts.make(tmp_path)


def test_a_folder_without_description_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="dataset.json' is missing"):
        raw_layouts.make(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_a_damaged_description_is_an_error(tmp_path: pathlib.Path, content: str) -> None:
    (tmp_path / "dataset.json").write_text(content)

    with pytest.raises(DatasetError, match="dataset.json'"):
        raw_layouts.make(tmp_path)
