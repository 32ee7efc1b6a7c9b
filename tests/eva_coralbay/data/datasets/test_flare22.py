"""Tests of FLARE22."""

import pathlib

import pytest

from eva_coralbay.data import datasets
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import split_drawing, task_layouts

CASES = [f"FLARE22_Tr_{number:04d}" for number in range(1, 51)]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("FLARE22Train/images/{}_0000.nii.gz", "FLARE22Train/labels/{}.nii.gz"),
        ("FLARE22Train/FLARE22Train/images/{}_0000.nii.gz", "FLARE22Train/labels/{}.nii.gz"),
        ("images/{}_0000.nii.gz", "labels/{}.nii.gz"),
        ("imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz"),
    ],
)
def test_names_of_the_files(tmp_path: pathlib.Path, image: str, label: str) -> None:
    files = {case: (tmp_path / image.format(case), tmp_path / label.format(case)) for case in CASES}
    task_layouts.write_cases(files, num_labels=14)

    dataset = datasets.FLARE22(str(tmp_path))
    dataset.setup()

    assert dataset.case_ids == CASES
    assert dataset.filename(0) == image.format(CASES[0])


def test_splits() -> None:
    schemes = splits_lib.read_splits("flare22").schemes

    assert schemes["voco"] == {"train": CASES[10:], "val": CASES[:10]}
    assert schemes["v1"] == split_drawing.draw(CASES)
