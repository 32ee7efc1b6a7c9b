"""Tests of AMOS22."""

import pathlib
import random

import pytest

from eva_coralbay.data import datasets
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import task_layouts

CASES = task_layouts.all_cases(datasets.AMOS22)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("amos22/imagesTr/{}.nii.gz", "amos22/labelsTr/{}.nii.gz"),
        ("imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz"),
    ],
)
def test_names_of_the_files(tmp_path: pathlib.Path, image: str, label: str) -> None:
    for name in (name.format(case) for case in CASES for name in (image, label)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    dataset = datasets.AMOS22(str(tmp_path))
    dataset.configure()

    assert dataset.case_ids == CASES
    assert dataset.filename(0) == image.format("amos_0001")


def test_mri_and_scans_without_labels_are_no_cases(tmp_path: pathlib.Path, log: list[str]) -> None:
    task_layouts.write_amos22(tmp_path)
    mri, unlabeled = ("imagesTr/amos_0507.nii.gz", "imagesTs/amos_0002.nii.gz")
    for name in (mri, unlabeled, "labelsTr/amos_0507.nii.gz"):
        path = tmp_path / "amos22" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()

    dataset = datasets.AMOS22(str(tmp_path), "test")
    dataset.setup()

    assert len(dataset) == 100
    assert dataset.filename(0) == "amos22/imagesVa/amos_0008.nii.gz"
    assert dataset[0][1].unique().tolist() == list(range(16))
    assert not log


def test_splits() -> None:
    schemes = splits_lib.read_splits("amos22").schemes
    train, val = schemes["voco"]["train"], schemes["voco"]["val"]
    drawn = sorted(train)
    random.Random(0).shuffle(drawn)

    assert (len(train), len(val)) == (200, 100)
    assert max(train + val) < "amos_0501"
    assert schemes["v1"]["test"] == val
    assert schemes["v1"]["val"] == sorted(drawn[:40])
    assert schemes["v1"]["train"] == sorted(drawn[40:])
