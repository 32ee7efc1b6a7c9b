"""Tests of KiTS23."""

import pathlib

import pytest

from eva_coralbay.data import datasets
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import split_drawing, task_layouts

CASES = [f"case_{number:05d}" for number in (*range(300), *range(400, 589))]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("{}/imaging.nii.gz", "{}/segmentation.nii.gz"),
        ("dataset/{}/imaging.nii.gz", "dataset/{}/segmentation.nii.gz"),
        ("imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz"),
    ],
)
def test_names_of_the_files(
    tmp_path: pathlib.Path, image: str, label: str, downloads: list[str]
) -> None:
    for name in (name.format(case) for case in CASES for name in (image, label)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    dataset = datasets.KiTS23(str(tmp_path), download=True)
    dataset.prepare_data()
    dataset.configure()

    assert dataset.case_ids == CASES
    assert dataset.filename(0) == image.format("case_00000")
    assert downloads == []


def test_a_data_set_without_one_file_is_downloaded(
    tmp_path: pathlib.Path, downloads: list[str]
) -> None:
    task_layouts.write_kits23(tmp_path, CASES)
    (tmp_path / "case_00588/segmentation.nii.gz").unlink()

    datasets.KiTS23(str(tmp_path), download=True).prepare_data()

    assert downloads == [str(tmp_path)]


def test_other_files_of_a_case_are_no_label_maps(tmp_path: pathlib.Path) -> None:
    cases = splits_lib.read_splits("kits23").schemes["v1"]["test"]
    task_layouts.write_kits23(tmp_path, cases)
    instances = tmp_path / cases[0] / "instances"
    for path in (
        instances / "kidney_instance-1_annotation-1.nii.gz",
        tmp_path / f"{cases[0]}.nii.gz",
    ):
        path.parent.mkdir(exist_ok=True)
        path.touch()

    dataset = datasets.KiTS23(str(tmp_path), "test")
    dataset.setup()

    assert dataset[0][1].unique().tolist() == [0, 1, 2, 3]


def test_a_missing_case_is_named_and_shifts_no_other(tmp_path: pathlib.Path) -> None:
    lists = splits_lib.read_splits("kits23").schemes["v1"]
    missing = lists["test"][3]
    task_layouts.write_kits23(tmp_path, [case for case in CASES if case != missing])

    for split in ("train", "val"):
        dataset = datasets.KiTS23(str(tmp_path), split)
        dataset.setup()
        assert dataset.case_ids == lists[split]
    with pytest.raises(DatasetError, match=f"split 'test' .*1 of 98 .*\n.*'{missing}'"):
        datasets.KiTS23(str(tmp_path), "test").setup()


def test_splits() -> None:
    schemes = splits_lib.read_splits("kits23").schemes

    assert sorted(sum(schemes["voco"].values(), [])) == CASES
    assert len(schemes["voco"]["val"]) == 24
    assert schemes["v1"] == split_drawing.draw(CASES[:300], CASES[300:])


def test_each_case_is_downloaded_to_where_it_is_found() -> None:
    resources = {resource.filename: resource.url for resource in datasets.KiTS23.facts.resources}

    assert set(resources) == {
        f"{case}/{name}.nii.gz" for case in CASES for name in ("imaging", "segmentation")
    }
    assert resources["case_00588/imaging.nii.gz"].endswith("/images/case_00588.nii.gz")
    assert resources["case_00588/segmentation.nii.gz"].endswith(
        "/neheller/kits23/main/dataset/case_00588/segmentation.nii.gz"
    )


def test_the_license_forbids_commercial_use() -> None:
    assert datasets.KiTS23.facts.license.restrictions == ["non-commercial"]
