"""Tests of LiTS17."""

import pathlib

import pytest

from eva_coralbay.data import datasets
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import split_drawing, task_layouts

CASES = sorted(f"volume-{number}" for number in range(131))


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("Training Batch 1/volume-{}.nii", "Training Batch 1/segmentation-{}.nii"),
        ("volume-{}.nii.gz", "segmentation-{}.nii.gz"),
        ("volume_pt1/volume-{}.nii", "segmentations/segmentation-{}.nii"),
        ("imagesTr/liver_{}.nii.gz", "labelsTr/liver_{}.nii.gz"),
        ("imagesTr/liver_{}_0000.nii.gz", "labelsTr/liver_{}.nii.gz"),
        ("imagesTr/volume-{}_0000.nii.gz", "labelsTr/volume-{}.nii.gz"),
    ],
)
def test_names_of_the_files(tmp_path: pathlib.Path, image: str, label: str) -> None:
    cases = splits_lib.read_splits("lits17").schemes["v1"]["test"]
    numbers = [case.removeprefix("volume-") for case in cases]
    files = {n: (tmp_path / image.format(n), tmp_path / label.format(n)) for n in numbers}
    task_layouts.write_cases(files, num_labels=3, shape=(6, 6, 6))

    dataset = datasets.LiTS17(str(tmp_path), "test")
    dataset.setup()

    assert dataset.case_ids == cases
    assert dataset.filename(0) == image.format(numbers[0])


def test_scans_without_labels_are_no_cases(tmp_path: pathlib.Path) -> None:
    task_layouts.write_lits17(tmp_path, shape=(6, 6, 6))
    (tmp_path / "test-volume-0.nii").touch()

    dataset = datasets.LiTS17(str(tmp_path))
    dataset.setup()

    assert dataset.case_ids == CASES


def test_splits() -> None:
    schemes = splits_lib.read_splits("lits17").schemes

    assert [len(cases) for cases in schemes["voco"].values()] == [108, 23]
    assert schemes["eva"] == {
        "train": [case for case in schemes["voco"]["train"] if case[7:] not in ("68", "69")],
        "val": schemes["voco"]["val"],
    }
    unit_affines = {f"volume-{number}" for number in range(28, 48)}
    others = set(CASES) - unit_affines
    assert schemes["v1"] == split_drawing.draw(list(unit_affines), list(others))


def test_the_splits_are_those_of_the_decathlon_for_the_same_scans() -> None:
    schemes, decathlon = (
        splits_lib.read_splits(task).schemes for task in ("lits17", "msd_task03_liver")
    )

    for scheme, lists in decathlon.items():
        for split, cases in lists.items():
            assert schemes[scheme][split] == [case.replace("liver_", "volume-") for case in cases]
