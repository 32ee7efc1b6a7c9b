"""Tests of BTCV."""

import pathlib

import pytest

from eva_coralbay.data import datasets
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import split_drawing, task_layouts

CASES = [f"img{number:04d}" for number in (*range(1, 11), *range(21, 41))]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("RawData/Training/img/img{}.nii.gz", "RawData/Training/label/label{}.nii.gz"),
        ("BTCV/imagesTr/img{}.nii.gz", "BTCV/labelsTr/label{}.nii.gz"),
        ("imagesTr/img{}_0000.nii.gz", "labelsTr/img{}.nii.gz"),
    ],
)
def test_names_of_the_files(tmp_path: pathlib.Path, image: str, label: str) -> None:
    numbers = [case.removeprefix("img") for case in CASES]
    files = {n: (tmp_path / image.format(n), tmp_path / label.format(n)) for n in numbers}
    task_layouts.write_cases(files, num_labels=14)
    hidden = tmp_path / image.format("0001")
    hidden.with_name(f"._{hidden.name}").touch()

    dataset = datasets.BTCV(str(tmp_path))
    dataset.setup()

    assert dataset.case_ids == CASES
    assert dataset.filename(0) == image.format("0001")


def test_scans_without_labels_are_no_cases(tmp_path: pathlib.Path) -> None:
    task_layouts.write_btcv(tmp_path)
    unlabeled = tmp_path / "RawData" / "Testing" / "img" / "img0061.nii.gz"
    unlabeled.parent.mkdir(parents=True)
    unlabeled.touch()

    dataset = datasets.BTCV(str(tmp_path))
    dataset.setup()

    assert dataset.case_ids == CASES


def test_splits() -> None:
    schemes = splits_lib.read_splits("btcv").schemes

    assert schemes["voco"] == {"train": CASES[:24], "val": CASES[24:]}
    assert schemes["v1"] == split_drawing.draw(CASES)
