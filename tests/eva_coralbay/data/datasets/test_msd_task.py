"""Tests of the CT tasks of the Medical Segmentation Decathlon."""

import pathlib

import pytest

from eva_coralbay.data import datasets
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import split_drawing, task_layouts

COUNTS = {
    datasets.MSDLiver: (131, 108, 23),
    datasets.MSDLung: (63, 50, 13),
    datasets.MSDPancreas: (281, 257, 24),
    datasets.MSDHepaticVessel: (303, 242, 61),
    datasets.MSDSpleen: (41, 32, 9),
    datasets.MSDColon: (126, 100, 26),
}
"""The published number of labeled cases, and those of VoCo's train and val."""


@pytest.mark.parametrize("dataset_class", COUNTS)
@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("{folder}/imagesTr/{case}.nii.gz", "{folder}/labelsTr/{case}.nii.gz"),
        ("imagesTr/{case}.nii.gz", "labelsTr/{case}.nii.gz"),
        ("Dataset000/imagesTr/{case}_0000.nii.gz", "Dataset000/labelsTr/{case}.nii.gz"),
    ],
)
def test_names_of_the_files(
    tmp_path: pathlib.Path, dataset_class: type[datasets.MSDTask], image: str, label: str
) -> None:
    names = {"folder": dataset_class.folder}
    cases = splits_lib.read_splits(dataset_class.facts.id).schemes["v1"]["test"]
    files = {
        case: (
            tmp_path / image.format(case=case, **names),
            tmp_path / label.format(case=case, **names),
        )
        for case in cases
    }
    task_layouts.write_cases(files, num_labels=len(dataset_class.facts.labels), shape=(6, 6, 6))

    dataset = dataset_class(str(tmp_path), "test")
    dataset.setup()

    assert dataset.case_ids == cases
    assert dataset.filename(0) == image.format(case=cases[0], **names)


@pytest.mark.parametrize("dataset_class", COUNTS)
def test_splits(dataset_class: type[datasets.MSDTask]) -> None:
    schemes = splits_lib.read_splits(dataset_class.facts.id).schemes
    cases = task_layouts.all_cases(dataset_class)

    assert (len(cases), *map(len, schemes["voco"].values())) == COUNTS[dataset_class]
    assert all(case.startswith(dataset_class.prefix) for case in cases)
    if dataset_class is not datasets.MSDLiver:  # its scans are those of LiTS17
        assert schemes["v1"] == split_drawing.draw(cases)


def test_the_archive_of_a_task() -> None:
    (resource,) = datasets.MSDPancreas.facts.resources

    assert resource.filename == "Task07_Pancreas.tar"
    assert resource.url.endswith("/Task07_Pancreas.tar")
    assert resource.checksum == "md5:4f7080cfca169fa8066d17ce6eb061e4"
