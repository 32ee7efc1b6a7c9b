"""Tests of WORD."""

import pathlib

import pytest

from eva_coralbay.data import datasets
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import task_layouts

CASES = [f"word_{number:04d}" for number in range(1, 151)]

# fmt: off
TEST = [
    14, 16, 17, 19, 21, 23, 24, 33, 34, 37, 43, 50, 52, 54, 57, 60, 69, 74, 76, 77, 88, 92, 97, 99,
    103, 110, 120, 124, 129, 131,
]
"""The numbers of the cases in the published archive of test labels."""
# fmt: on


def test_each_split_is_read_from_its_folder(tmp_path: pathlib.Path) -> None:
    task_layouts.write_word(tmp_path)

    for split, folder, count in (("train", "Tr", 100), ("val", "Val", 20), ("test", "Ts", 30)):
        dataset = datasets.WORD(str(tmp_path), split)
        dataset.setup()

        assert len(dataset) == count
        assert {str(pathlib.Path(dataset.filename(index)).parent) for index in range(count)} == {
            f"WORD-V0.1.0/images{folder}"
        }
        assert dataset[0][1].unique().tolist() == list(range(17))


def test_names_of_nnunet(tmp_path: pathlib.Path) -> None:
    files = {
        case: (tmp_path / f"imagesTr/{case}_0000.nii.gz", tmp_path / f"labelsTr/{case}.nii.gz")
        for case in CASES
    }
    task_layouts.write_cases(files, num_labels=17)

    dataset = datasets.WORD(str(tmp_path))
    dataset.setup()

    assert dataset.case_ids == CASES


def test_without_the_second_archive_the_labels_of_the_test_cases_are_missed(
    tmp_path: pathlib.Path,
) -> None:
    task_layouts.write_word(tmp_path)
    for path in tmp_path.glob("WORD-V0.1.0/labelsTs/*"):
        path.unlink()

    datasets.WORD(str(tmp_path), "train").setup()
    with pytest.raises(DatasetError, match="(?s)30 of 30 .*'word_0014': image without.*labelsTs"):
        datasets.WORD(str(tmp_path), "test").setup()


def test_the_organs_are_in_the_order_of_their_values() -> None:
    assert datasets.WORD.facts.labels[1:5] == ("liver", "spleen", "left_kidney", "right_kidney")
    assert datasets.WORD.facts.labels[10:12] == ("colon", "intestine")
    assert len(set(datasets.WORD.facts.labels)) == 17


def test_splits() -> None:
    splits = splits_lib.read_splits("word")

    assert splits.default == "voco"
    assert sorted(sum(splits.schemes["voco"].values(), [])) == CASES
    assert len(splits.schemes["voco"]["val"]) == 20
    assert splits.schemes["voco"]["test"] == [f"word_{number:04d}" for number in TEST]
