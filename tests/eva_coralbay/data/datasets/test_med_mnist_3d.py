"""Tests of the CT tasks of MedMNIST in 3D."""

import pathlib
from typing import Any

import medmnist
import numpy as np
import pytest
import torch

from eva_coralbay.data import volume_transforms
from eva_coralbay.data.datasets import classification
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import classification_layouts as layouts
from tests.eva_coralbay.data.datasets.layouts import few_cases

_TASKS = [
    pytest.param(classification.OrganMNIST3D, "organmnist3d", id="organ"),
    pytest.param(classification.NoduleMNIST3D, "nodulemnist3d", id="nodule"),
]


@pytest.mark.parametrize(("kind", "flag"), _TASKS)
def test_facts_are_the_official_ones(kind: type[classification.MedMNIST3D], flag: str) -> None:
    official = medmnist.INFO[flag]
    (resource,) = kind.facts.resources
    splits = splits_lib.read_splits(kind.facts.id).schemes["official"]
    assert {part: len(cases) for part, cases in splits.items()} == official["n_samples"]
    labels = kind.facts.labels
    assert list(labels) == [official["label"][str(index)] for index in range(len(labels))]
    assert resource.url == official["url_64"]
    assert resource.checksum == f"md5:{official['MD5_64']}"
    assert resource.filename == kind.archive == f"{flag}_64.npz"
    assert kind.facts.license.name.replace("-", " ") == official["license"].replace("-", " ")


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_samples(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, part: Any) -> None:
    splits = few_cases("organ_mnist_3d", monkeypatch)
    layouts.write_organ_mnist_3d(tmp_path, layouts.all_cases(splits))
    transform = volume_transforms.ResizeTransform(size=(36, 36, 36))
    raw, small = (
        classification.OrganMNIST3D(str(tmp_path), part, transforms=transforms)
        for transforms in (None, transform)
    )
    with np.load(tmp_path / "organmnist3d_64.npz") as archive:
        images, labels = archive[f"{part}_images"], archive[f"{part}_labels"]
    for dataset in (raw, small):
        dataset.setup()
        assert len(dataset) == len(images) == 4
    for index in range(4):
        image, target, metadata = raw[index]
        assert image.shape == (1, 64, 64, 64) and image.dtype == torch.float32
        np.testing.assert_array_equal(image[0], images[index])
        assert target.shape == () and target.dtype == torch.int64
        assert target == labels[index, 0]
        case = f"{part}_{index:04d}"
        assert metadata == {"case": case, "patient": case}
        assert raw.filename(index) == f"organmnist3d_64.npz/{case}"
        assert small[index][0].shape == (1, 36, 36, 36)


def test_missing_samples_are_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = few_cases("nodule_mnist_3d", monkeypatch)
    cases = layouts.all_cases(splits)
    layouts.write_nodule_mnist_3d(tmp_path, [case for case in cases if case != "val_0003"])
    classification.NoduleMNIST3D(str(tmp_path), "train").setup()
    with pytest.raises(DatasetError, match="1 of 4 cases are missing:\n  - Case 'val_0003'"):
        classification.NoduleMNIST3D(str(tmp_path), "val").setup()


@pytest.mark.parametrize("damage", ["cut off", "no archive", "other arrays", "other shape"])
def test_broken_files_are_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    few_cases("nodule_mnist_3d", monkeypatch)
    path = tmp_path / "nodulemnist3d_64.npz"
    labels = {f"{part}_labels": np.zeros((4, 1), np.uint8) for part in ("train", "val", "test")}
    np.savez(path, **labels)
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "no archive":
        path.write_text("<html>")
    elif damage == "other shape":
        np.savez(path, **labels, train_images=np.zeros((4, 28, 28, 28), np.uint8))
    dataset = classification.NoduleMNIST3D(str(tmp_path), "train")
    with pytest.raises(DatasetError, match="nodulemnist3d_64.npz': .*(?i:download it again)"):
        dataset.setup()
        dataset[0]
