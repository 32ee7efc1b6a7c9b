"""Tests of the data of a segmentation task."""

import pathlib
from typing import Any

import pytest

from eva_coralbay.data import (
    ClassificationData,
    SegmentationData,
    datasets,
    phantom,
    volume_transforms,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A small phantom data set in nnU-Net's layout."""
    folder = tmp_path_factory.mktemp("phantom")
    phantom.write_dataset(
        str(folder), cases=3, val_cases=1, shape=(16, 24, 24), spacing_mm=(20.0, 18.0, 18.0)
    )
    return folder


def _data(root: pathlib.Path, **arguments: Any) -> SegmentationData:
    dataset = {
        "class_path": "eva_coralbay.data.datasets.NnUNet",
        "init_args": {"root": str(root), "prepared": "False"},
    }
    return SegmentationData(
        dataset=dataset,
        roi_size=(16, 16, 16),
        num_samples=3,
        spacing=(20.0, 18.0, 18.0),
        num_workers=0,
        **arguments,
    )


def test_splits_have_their_transforms_and_loaders(root: pathlib.Path) -> None:
    data = _data(root)
    data.prepare_data()
    data.setup("fit")

    images, targets, metadata = next(iter(data.train_dataloader()))
    assert images.shape == targets.shape == (6, 1, 16, 16, 16), "2 scans of 3 crops"
    assert len(metadata) == 2
    image, target, metadata = next(iter(data.val_dataloader()[0]))
    assert image.shape == target.shape and image.shape[0] == 1
    assert metadata == {"case": ["phantom_002"]}
    assert data.datasets.test is None


def test_an_unknown_argument_of_the_data_set_is_an_error(
    root: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = {
        "class_path": "eva_coralbay.data.datasets.NnUNet",
        "init_args": {"root": str(root), "fould": 1},
    }
    with pytest.raises(SystemExit):
        SegmentationData(dataset=dataset)
    assert "Option 'fould' is not accepted" in capsys.readouterr().err


_TRANSFORM = volume_transforms.ResizeTransform()


def _classification_data(root: pathlib.Path, **arguments: Any) -> ClassificationData:
    dataset = {
        "class_path": "eva_coralbay.data.datasets.classification.CCCCII",
        "init_args": {"root": str(root)},
    }
    return ClassificationData(dataset=dataset, transform=_TRANSFORM, num_workers=0, **arguments)


@pytest.mark.parametrize(
    ("arguments", "built", "predicted"),
    [
        ({}, ["train", "val", "test"], None),
        ({"protocol": "frozen-eva"}, ["train", "val"], None),
        ({"embeddings_root": "embeddings"}, ["train", "val", "test"] * 2, ["train", "val", "test"]),
    ],
)
def test_no_more_data_sets_are_built_than_used(
    arguments: Any,
    built: list[str],
    predicted: list[str] | None,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    splits: list[Any] = []
    kind = datasets.classification.CCCCII
    choose = kind._choose_scheme

    def choose_and_note(self: Any, scheme: str | None) -> None:
        splits.append(self.split)
        choose(self, scheme)

    monkeypatch.setattr(kind, "_choose_scheme", choose_and_note)
    data = _classification_data(tmp_path, **arguments)

    assert splits == built
    predict: Any = data.datasets.predict
    assert (predict and [dataset.split for dataset in predict]) == predicted


def test_embeddings_are_not_transformed_in_training(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="leave out `train_transform`"):
        _classification_data(tmp_path, embeddings_root=str(tmp_path), train_transform=_TRANSFORM)
