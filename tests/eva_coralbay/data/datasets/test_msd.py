"""Tests of the layout of the Medical Segmentation Decathlon."""

import pathlib
import unicodedata
from collections.abc import Sequence
from typing import Any

import pytest

from eva_coralbay.data import datasets
from eva_coralbay.errors import DatasetError
from tests.eva_coralbay.data.datasets import layouts

CASES = [f"pancreas_{index:03d}" for index in range(1, 8)]


def write(root: pathlib.Path, cases: Sequence[str] = CASES, **description: Any) -> None:
    """Writes a data set with the official names and a description of the official form."""
    for case in cases:
        layouts.write_image(root / "imagesTr" / f"{case}.nii.gz")
        layouts.write_label(root / "labelsTr" / f"{case}.nii.gz")
    layouts.write_json(
        root / "dataset.json",
        {
            "name": "PANCREAS",
            "license": "CC-BY-SA 4.0",
            "tensorImageSize": "3D",
            "modality": {"0": "CT"},
            "labels": {"0": "background", "1": "pancreas", "2": "cancer"},
            "numTraining": len(cases),
            "training": [
                {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
                for case in cases
            ],
            "test": ["./imagesTs/pancreas_900.nii.gz"],
            **description,
        },
    )


def make(root: pathlib.Path, split: Any = None, **kwargs: Any) -> datasets.MSD:
    dataset = datasets.MSD(str(root), split, **kwargs)
    dataset.setup()
    return dataset


def test_official_names(tmp_path: pathlib.Path) -> None:
    write(tmp_path)

    dataset = make(tmp_path)

    assert dataset.case_ids == CASES
    assert dataset.filename(0) == "imagesTr/pancreas_001.nii.gz"
    assert dataset.classes == ["background", "pancreas", "cancer"]
    assert (dataset.name, dataset.license) == ("PANCREAS", "CC-BY-SA 4.0")
    volume, mask, metadata = dataset[0]
    assert volume.shape == mask.shape
    assert metadata == {"case": "pancreas_001"}


def test_images_renamed_for_nnunet(tmp_path: pathlib.Path) -> None:
    write(tmp_path)
    for case in CASES:
        image = tmp_path / "imagesTr" / f"{case}.nii.gz"
        image.rename(image.with_name(f"{case}_0000.nii.gz"))

    dataset = make(tmp_path)

    assert dataset.case_ids == CASES
    assert dataset.filename(0) == "imagesTr/pancreas_001_0000.nii.gz"


def test_splits_are_those_of_the_file(tmp_path: pathlib.Path) -> None:
    write(tmp_path)
    layouts.write_json(tmp_path / "splits_final.json", [{"train": CASES[1:], "val": CASES[:1]}])

    assert make(tmp_path, "train").case_ids == CASES[1:]
    assert make(tmp_path, "val").case_ids == CASES[:1]


def test_without_a_split_file_five_folds_share_the_cases(tmp_path: pathlib.Path) -> None:
    write(tmp_path)

    held_out = [case for fold in range(5) for case in make(tmp_path, "val", fold=fold).case_ids]

    assert sorted(held_out) == CASES


def test_the_test_split_needs_labels(tmp_path: pathlib.Path) -> None:
    write(tmp_path)
    layouts.write_image(tmp_path / "imagesTs" / "pancreas_900.nii.gz")

    with pytest.raises(DatasetError, match="'pancreas_900': image without label, .*labelsTs/"):
        make(tmp_path, "test")
    layouts.write_label(tmp_path / "labelsTs" / "pancreas_900.nii.gz")
    assert make(tmp_path, "test").case_ids == ["pancreas_900"]


def test_hidden_files_are_no_cases(tmp_path: pathlib.Path) -> None:
    hidden = {
        "image": "./imagesTr/._pancreas_001.nii.gz",
        "label": "labelsTr/._pancreas_001.nii.gz",
    }
    listed = {"image": "./imagesTr/pancreas_001.nii.gz", "label": "./labelsTr/pancreas_001.nii.gz"}
    write(tmp_path, CASES[:1], training=[hidden, listed])

    assert make(tmp_path).case_ids == CASES[:1]


def test_a_listed_case_without_files_is_an_error(tmp_path: pathlib.Path) -> None:
    write(tmp_path)
    (tmp_path / "imagesTr" / "pancreas_003.nii.gz").unlink()

    with pytest.raises(DatasetError, match="'pancreas_003': label without image"):
        make(tmp_path)


@pytest.mark.parametrize(
    ("training", "problem"),
    [
        (None, "no list 'training'"),
        ({"image": "a", "label": "b"}, "no list 'training'"),
        ([{"image": "./imagesTr/pancreas_001.nii.gz"}], "an 'image' and a 'label'"),
        ([7], "an 'image' and a 'label'"),
    ],
)
def test_a_wrong_list_of_cases_is_an_error(
    tmp_path: pathlib.Path, training: Any, problem: str
) -> None:
    write(tmp_path, CASES[:1], training=training)

    with pytest.raises(DatasetError, match=f"dataset.json'.*{problem}"):
        make(tmp_path)


def test_more_than_one_channel_is_an_error(tmp_path: pathlib.Path) -> None:
    write(tmp_path, modality={"0": "FLAIR", "1": "T1w"})

    with pytest.raises(DatasetError, match="2 channels"):
        make(tmp_path)


def test_a_list_that_windows_wrote(tmp_path: pathlib.Path) -> None:
    listed = [
        {"image": f".\\imagesTr\\{case}.nii.gz", "label": f"labelsTr\\{case}.nii.gz"}
        for case in CASES
    ]
    write(tmp_path, training=listed)

    dataset = make(tmp_path)

    assert dataset.case_ids == CASES
    assert dataset.filename(0) == "imagesTr/pancreas_001.nii.gz"


def test_names_on_the_disk_in_another_form(tmp_path: pathlib.Path) -> None:
    """The list is composed and in lower case, the files decomposed and in upper case."""
    write(tmp_path, ["b\u00e4r"])
    for path in tmp_path.glob("*Tr/*.nii.gz"):
        name = unicodedata.normalize("NFD", path.name).replace(".nii.gz", ".NII.GZ")
        path.rename(path.with_name(name))

    dataset = make(tmp_path)

    assert dataset.case_ids == ["b\u00e4r"]
    assert dataset[0][1].max() == 2


@pytest.mark.parametrize("path", ["\ud800.nii.gz", "a\x00.nii.gz", 7, "", ["a"]])
def test_a_path_that_is_none_is_an_error(tmp_path: pathlib.Path, path: Any) -> None:
    write(tmp_path, CASES[:1], training=[{"image": path, "label": "labelsTr/a.nii.gz"}])

    with pytest.raises(DatasetError, match="dataset.json': a path is"):
        make(tmp_path)


def test_two_labels_of_one_name_are_an_error(tmp_path: pathlib.Path) -> None:
    listed = [{"image": f"images{i}/a.nii.gz", "label": f"labels{i}/a.nii.gz"} for i in (1, 2)]
    write(tmp_path, CASES[:1], training=listed)

    with pytest.raises(DatasetError, match="two cases have the label 'a.nii.gz'"):
        make(tmp_path)
