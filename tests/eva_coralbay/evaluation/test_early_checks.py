"""Tests that a wrong configuration is found before any scan is prepared."""

import json
import pathlib
import shutil
from typing import Any

import jsonargparse
import pytest
import torch

from eva_coralbay.data import SegmentationData, phantom
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import (
    ClassificationModule,
    ProbeModule,
    SegmentationModule,
    Trainer,
    early_checks,
    sessions,
)
from tests.eva_coralbay.evaluation import toy

_DECODERS = "eva.vision.models.networks.decoders.segmentation"


def _registered(name: str, **arguments: Any) -> dict[str, Any]:
    return {
        "class_path": "eva.vision.models.ModelFromRegistry",
        "init_args": {"model_name": name, "model_kwargs": {"out_indices": 6, **arguments}},
    }


def _toy(**arguments: Any) -> dict[str, Any]:
    return {"class_path": f"{toy.__name__}.ToyEncoder", "init_args": arguments}


_RANDOM = _registered("radiology/coralbay_random", feature_size=12)


def _decoder(feature_size: int = 12) -> dict[str, Any]:
    return {
        "class_path": f"{_DECODERS}.SwinUNETRDecoderWithProjection",
        "init_args": {"feature_size": feature_size},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("phantom")
    phantom.write_dataset(
        str(folder), cases=3, val_cases=1, shape=(16, 24, 24), spacing_mm=(20.0, 18.0, 18.0)
    )
    return folder


@pytest.fixture(scope="module", name="data")
def _data(root: pathlib.Path) -> SegmentationData:
    dataset = {
        "class_path": "eva_coralbay.data.datasets.NnUNet",
        "init_args": {"root": str(root)},
    }
    return SegmentationData(dataset=dataset, roi_size=(64, 64, 64), num_workers=0)


def _check(data: SegmentationData, **arguments: Any) -> None:
    module = SegmentationModule(
        **{"encoder": _RANDOM, "decoder": _decoder(), "roi_size": (64, 64, 64), **arguments}
    )
    early_checks.check(module, data, torch.device("cpu"))
    assert isinstance(module.encoder, dict), "the module itself is as it was"


def _trainer(folder: pathlib.Path, **arguments: Any) -> Trainer:
    return Trainer(
        task="toy",
        task_version="1",
        default_root_dir=str(folder),
        accelerator="cpu",
        n_runs=1,
        refresh_rate=0,
        **arguments,
    )


def test_what_is_right_passes(data: SegmentationData) -> None:
    _check(data, class_weights=[1.0] * 7)
    module = SegmentationModule(encoder=_RANDOM, decoder=_decoder(), roi_size=(64, 64, 64))
    early_checks.check(module, data, torch.device("cpu"), monitor="val/dice_liver")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"encoder": _registered("radiology/coralbay_randon")},
            "no model 'radiology/coralbay_randon' .*Did you mean radiology/coralbay_random",
        ),
        ({"encoder": _registered("zzz")}, "There are .*radiology/coralbay"),
        ({"class_weights": [1.0, 2.0]}, r"CLASS_WEIGHTS\) has 2 numbers, but there are 7 classes"),
        ({"class_weights": [1.0] * 8}, r"CLASS_WEIGHTS\) has 8 numbers, but there are 7 classes"),
        ({"class_weights": [1.0, -1.0] + [1.0] * 5}, "CLASS_WEIGHTS.* must be numbers from 0 on"),
        ({"class_weights": [0.0] * 7}, "of which one is not 0"),
        ({"class_weights": [float("nan")] * 7}, "must be numbers from 0 on"),
        ({"seed": -1}, r"SEED\) must be 0 or more; got -1"),
        ({"lr": -1.0}, r"LR_VALUE\) must be 0 or more; got -1.0"),
        ({"lr_end": float("nan")}, r"LR_VALUE_END\) must be finite, and 0 or more; got nan"),
        ({"weight_decay": float("inf")}, r"WEIGHT_DECAY\) must be finite, and 0 or more; got inf"),
        ({"roi_size": (48, 48, 48)}, "multiple of 32"),
        ({"roi_size": (64, 64)}, r"ROI_SIZE\) must be three numbers .*got .64, 64"),
        ({"roi_size": (64, 64, 0)}, "must be three numbers"),
        ({"overlap": 1.0}, r"\(SW_OVERLAP\) must be a share of the window .*got 1.0"),
        ({"monitor_overlap": -0.1}, r"\(SW_MONITOR_OVERLAP\) must be"),
        ({"sw_batch_size": 0}, r"\(SW_BATCH_SIZE\) must be 1 or more; got 0"),
        ({"roi_size": 64}, r"ROI_SIZE\) must be three numbers .*got 64"),
        ({"decoder": _decoder(24)}, "IN_FEATURES=12"),
        ({"encoder": _toy(channels=[12] * 3, strides=[1] * 3)}, "6 maps, not 3: set OUT_INDICES=6"),
        ({"encoder": _toy(pooled=True)}, "set OUT_INDICES"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    data: SegmentationData, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(EvaCoralbayError, match=message) as raised:
        _check(data, **arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("encoder", "roi_size", "message"),
    [
        (_registered("radiology/coralbay_random", feature_size=13), 64, "IN_FEATURES"),
        (_registered("radiology/coralbay_random", featur_size=12), 64, "does not take featur_size"),
        (_registered("radiology/coralbay", checkpoint="no.pt"), 64, "no such file"),
        (_RANDOM, 32, "fails on a window of .32, 32, 32. voxels .ROI_SIZE."),
        (_toy(pooled=True), 64, "set OUT_INDICES"),
    ],
)
def test_the_encoder_of_a_probe(
    data: SegmentationData, encoder: dict[str, Any], roi_size: int, message: str
) -> None:
    """Before, all scans were prepared first."""
    module = ProbeModule(encoder=encoder, task="toy", roi_size=[roi_size] * 3)
    with pytest.raises(EvaCoralbayError, match=message) as raised:
        early_checks.check(module, data, torch.device("cpu"))
    assert "\n" not in str(raised.value)


def test_a_probe_that_is_right_passes(data: SegmentationData) -> None:
    module = ProbeModule(encoder=_RANDOM, roi_size=(64, 64, 64))
    early_checks.check(module, data, torch.device("cpu"))
    assert isinstance(module.encoder, dict), "the module itself is as it was"


def test_the_encoder_of_a_classification() -> None:
    encoder = _registered("radiology/coralbay", checkpoint="no.pt")
    with pytest.raises(EvaCoralbayError, match="no such file"):
        early_checks.check(ClassificationModule(encoder=encoder), None, torch.device("cpu"))


@pytest.mark.parametrize("ratios", [[1.0] * 6, [1.0] * 8, [-1.0] + [1.0] * 6])
def test_ratios_of_classes(root: pathlib.Path, ratios: list[float]) -> None:
    """More ratios than classes had no effect before, and fewer ended a training in its midst."""
    dataset = {
        "class_path": "eva_coralbay.data.datasets.NnUNet",
        "init_args": {"root": str(root)},
    }
    with pytest.raises(EvaCoralbayError, match="SAMPLE_CLASS_RATIOS"):
        _check(SegmentationData(dataset=dataset, roi_size=(64, 64, 64), class_ratios=ratios))


@pytest.mark.parametrize("kind", [SegmentationModule, ProbeModule])
def test_a_class_with_the_name_of_a_metric(
    root: pathlib.Path, tmp_path: pathlib.Path, kind: Any
) -> None:
    """The scores of the class were those on the resampled grid before."""
    folder = shutil.copytree(root, tmp_path / "data")
    description = json.loads((folder / "dataset.json").read_text())
    *names, _ = description["labels"]
    description["labels"] = {name: index for index, name in enumerate([*names, "resampled"])}
    (folder / "dataset.json").write_text(json.dumps(description))
    dataset = {
        "class_path": "eva_coralbay.data.datasets.NnUNet",
        "init_args": {"root": str(folder)},
    }
    arguments = {"decoder": _decoder()} if kind is SegmentationModule else {"task": "toy"}
    module = kind(encoder=_RANDOM, roi_size=(64, 64, 64), **arguments)
    with pytest.raises(EvaCoralbayError, match="A class cannot be called 'resampled'"):
        early_checks.check(module, SegmentationData(dataset=dataset), torch.device("cpu"))


def test_no_scan_is_prepared_before(
    data: SegmentationData, root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    trainer = _trainer(tmp_path)
    module = SegmentationModule(encoder=_RANDOM, decoder=_decoder(24), roi_size=(64, 64, 64))
    with pytest.raises(EvaCoralbayError, match="IN_FEATURES"):
        trainer.fit(module, datamodule=data)
    assert not list(root.rglob("*.scan"))


@pytest.mark.parametrize("monitor", ["val/dic", "val/hd95", "val/loss", "dice"])
def test_the_metric_of_the_best_checkpoint(data: SegmentationData, monitor: str) -> None:
    """Before, it was found after the first 500 steps."""
    module = SegmentationModule(encoder=_RANDOM, decoder=_decoder(), roi_size=(64, 64, 64))
    with pytest.raises(EvaCoralbayError, match=r"MONITOR_METRIC.*Set one of .*val/dice") as raised:
        early_checks.check(module, data, torch.device("cpu"), monitor=monitor)
    assert "\n" not in str(raised.value)


def test_the_length_of_the_training(data: SegmentationData, tmp_path: pathlib.Path) -> None:
    """Before, it was found after all scans were prepared."""
    trainer = _trainer(tmp_path, max_steps=7, val_check_interval=2)
    with pytest.raises(EvaCoralbayError, match="multiple of `val_check_interval`"):
        trainer.fit(SegmentationModule(encoder={}, decoder={}), datamodule=data)


def test_no_embedding_is_computed_before(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In `eva predict_fit` the training comes after the embeddings, hours later."""
    monkeypatch.setattr(sessions, "is_resumable", lambda: True)
    trainer = _trainer(tmp_path, protocol="frozen-offline", max_steps=7, val_check_interval=2)
    with pytest.raises(EvaCoralbayError, match="multiple of `val_check_interval`"):
        trainer.predict(ClassificationModule(encoder={}, protocol="frozen-offline"))


@pytest.mark.parametrize("kind", [SegmentationModule, ProbeModule, SegmentationData])
def test_a_number_in_place_of_a_size_is_refused_in_one_line(
    root: pathlib.Path, kind: type[Any]
) -> None:
    """As of ROI_SIZE=64: jsonargparse lets it pass, whose own message takes five lines."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "part")
    dataset = {"class_path": "eva_coralbay.data.datasets.NnUNet", "init_args": {"root": str(root)}}
    arguments = {
        SegmentationModule: {"encoder": _RANDOM, "decoder": _decoder()},
        ProbeModule: {"encoder": _RANDOM},
        SegmentationData: {"dataset": dataset},
    }[kind]
    config = parser.parse_object({"part": {**arguments, "roi_size": 64}})
    with pytest.raises(
        EvaCoralbayError, match=r"ROI_SIZE\) must be three numbers.*got 64\."
    ) as raised:
        parser.instantiate_classes(config)
    assert "\n" not in str(raised.value)


def test_one_weight_in_place_of_those_of_the_classes_is_named() -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SegmentationModule, "part")
    part = {"encoder": _RANDOM, "decoder": _decoder(), "class_weights": 1}
    config = parser.parse_object({"part": part})
    with pytest.raises(EvaCoralbayError, match=r"CLASS_WEIGHTS\) must be a list .*; got 1\.$"):
        parser.instantiate_classes(config)


@pytest.mark.parametrize(
    ("name", "value"), [("class_weights", "high"), ("roi_size", [64, 64, "large"])]
)
def test_what_is_no_number_is_refused_by_the_parser(name: str, value: Any) -> None:
    """The message names the argument and the value."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SegmentationModule)
    arguments = {"encoder": _RANDOM, "decoder": _decoder()}
    parser.parse_object(arguments)
    with pytest.raises(Exception, match=rf"(?s){name}.*(high|large)"):
        parser.parse_object({**arguments, name: value})
