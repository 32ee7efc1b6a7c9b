"""Tests of the data of a segmentation task."""

import pathlib
import re
import types
from typing import Any

import pytest
import torch

from eva_coralbay.data import (
    ClassificationData,
    SegmentationData,
    phantom,
    volume_transforms,
)
from eva_coralbay.errors import EvaCoralbayError


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
        **{
            "dataset": dataset,
            "roi_size": (16, 16, 16),
            "num_samples": 3,
            "spacing": (20.0, 18.0, 18.0),
            "num_workers": 0,
            **arguments,
        }
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"BATCH_SIZE.* must be 1 or more; got 0"),
        ({"num_samples": 0}, r"SAMPLE_BATCH_SIZE\) must be 1 or more; got 0"),
        ({"num_workers": -1}, r"N_DATA_WORKERS\) must be 0 or more; got -1"),
        ({"spacing": 6}, r"SPACING\) must be a list of numbers, such as .1, 2, 3.; got 6"),
        ({"class_ratios": 0.5}, r"SAMPLE_CLASS_RATIOS\) must be a list .* got 0.5"),
    ],
)
def test_impossible_numbers_are_named(
    root: pathlib.Path, arguments: dict[str, float], message: str
) -> None:
    with pytest.raises(EvaCoralbayError, match=message):
        _data(root, **arguments)


def _fitting(*, run_seed: int, step: int = 0) -> Any:
    """What the data know of the trainer of a run."""
    module = types.SimpleNamespace(run_seed=run_seed)
    return types.SimpleNamespace(
        lightning_module=module, global_step=step, accumulate_grad_batches=1
    )


def _first_crops(data: SegmentationData, **run: int) -> torch.Tensor:
    data.setup("fit")
    data.trainer = _fitting(**run)
    return next(iter(data.train_dataloader()))[0]


def test_crops_follow_from_the_seed_of_the_run_and_the_step(root: pathlib.Path) -> None:
    first = _first_crops(_data(root, batch_size=1), run_seed=0)
    assert torch.equal(_first_crops(_data(root, batch_size=1), run_seed=0), first)
    assert not torch.equal(_first_crops(_data(root, batch_size=1), run_seed=1), first)
    second = _first_crops(_data(root, batch_size=1), run_seed=0, step=1)
    both = _first_crops(_data(root, batch_size=2), run_seed=0)
    assert torch.equal(torch.cat([first, second]), both)


@pytest.mark.parametrize(
    ("protocol", "training"), [("frozen", [(3, 4)]), ("frozen-eva", ()), ("scratch", [(3, 4)])]
)
def test_the_kidneys_of_mirror_images_are_swapped_but_by_eva(
    root: pathlib.Path, protocol: Any, training: Any
) -> None:
    data = _data(root, protocol=protocol)
    data.setup("fit")
    assert phantom.CLASSES[3:5] == ("right_kidney", "left_kidney")
    assert data.datasets.train.transforms.mirror_pairs == training
    assert data.datasets.val.transforms.mirror_pairs == [(3, 4)]


def test_the_log_lists_what_trades_places_in_mirror_images(
    root: pathlib.Path, log: list[str]
) -> None:
    data = _data(root)
    for stage in ("fit", "validate"):
        data.setup(stage)
    (line,) = [message for message in log if "trade places" in message]
    assert "right_kidney and left_kidney" in line
    assert "These keep theirs: liver, spleen, lungs, spine." in line


@pytest.mark.parametrize(
    ("names", "unpaired"),
    [
        (("right_kidney", "kidney_of_the_other_side"), "right_kidney"),
        (("right ventricle", "left ventricle"), "right ventricle, left ventricle"),
        (("rechte Niere", "linke Niere"), "rechte Niere, linke Niere"),
    ],
)
def test_a_class_without_a_partner_forbids_mirror_images(
    tmp_path: pathlib.Path, log: list[str], names: tuple[str, str], unpaired: str
) -> None:
    phantom.write_dataset(
        str(tmp_path), cases=3, val_cases=1, shape=(16, 24, 24), spacing_mm=(20.0, 18.0, 18.0)
    )
    path = tmp_path / "dataset.json"
    text = path.read_text()
    for old, new in zip(("right_kidney", "left_kidney"), names, strict=True):
        text = text.replace(old, new)
    path.write_text(text)
    data = _data(tmp_path)
    data.setup("fit")
    assert data.datasets.train.transforms.mirror_pairs is None
    (line,) = [message for message in log if "mirror images" in message]
    assert f"not known for: {unpaired}." in line


def test_splits_have_their_transforms_and_loaders(root: pathlib.Path) -> None:
    data = _data(root)
    data.prepare_data()
    data.setup("fit")
    data.trainer = _fitting(run_seed=0)

    images, targets, metadata = next(iter(data.train_dataloader()))
    assert images.shape == targets.shape == (6, 1, 16, 16, 16), "2 scans of 3 crops"
    assert len(metadata) == 2
    image, target, metadata = next(iter(data.val_dataloader()[0]))
    assert image.shape == target.shape and image.shape[0] == 1
    assert metadata["case"] == ["phantom_002"]
    assert metadata["affine"].shape == (1, 4, 4)
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
    # older versions of jsonargparse say "Key" and "expected"
    assert re.search("'fould' is not (accepted|expected)", capsys.readouterr().err)


_TRANSFORM = volume_transforms.ResizeTransform()
_EMBEDDINGS: dict[str, Any] = {"protocol": "frozen-offline", "embeddings_root": "embeddings"}


def _classification_data(root: pathlib.Path, **arguments: Any) -> ClassificationData:
    dataset = {
        "class_path": "eva_coralbay.data.datasets.classification.CCCCII",
        "init_args": {"root": str(root)},
    }
    return ClassificationData(dataset=dataset, transform=_TRANSFORM, num_workers=0, **arguments)


@pytest.mark.parametrize(
    ("arguments", "scored", "predicted"),
    [
        ({}, ["train", "val", "test"], None),
        ({"protocol": "frozen-eva"}, ["train", "val"], None),
        (_EMBEDDINGS, ["train", "val", "test"], ["train", "val", "test"]),
    ],
)
def test_there_are_the_data_sets_of_the_scheme_and_the_mode(
    arguments: Any, scored: list[str], predicted: list[str] | None, tmp_path: pathlib.Path
) -> None:
    found: Any = _classification_data(tmp_path, **arguments).datasets

    parts = (found.train, found.val, found.test)
    assert [dataset.split for dataset in parts if dataset is not None] == scored
    predict = found.predict
    assert (predict and [dataset.split for dataset in predict]) == predicted


def test_embeddings_are_not_transformed_in_training(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="leave out `train_transform`"):
        _classification_data(tmp_path, **_EMBEDDINGS, train_transform=_TRANSFORM)


@pytest.mark.parametrize(
    "arguments", [{"protocol": "frozen-offline"}, {"embeddings_root": "embeddings"}]
)
def test_embeddings_are_of_one_protocol(tmp_path: pathlib.Path, arguments: dict[str, str]) -> None:
    with pytest.raises(EvaCoralbayError, match=r"PROTOCOL\) is not for this config"):
        _classification_data(tmp_path, **arguments)
