"""Tests the protocols that give each encoder the input that it was trained on."""

import dataclasses
import pathlib
from typing import Any

import pytest
import torch
import yaml
from eva.core.trainers import functional
from torch import nn

from eva_coralbay.data import SegmentationData, phantom
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import ProbeModule, SegmentationModule, Trainer, native_input
from eva_coralbay.inference import trained
from eva_coralbay.models import registry, zoo
from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.results import record

_NAME = "test/tiny"

_INPUT = Preprocessing.of_window(
    -1000.0, 1000.0, spacing=(8.0, 10.0, 12.0), orientation="RAS", window=(20, 24, 16)
)
"""The input of a tiny encoder: the tensor's axes run to the right, the front and the top."""

_ENCODER = {
    "class_path": "eva.vision.models.ModelFromRegistry",
    "init_args": {"model_name": _NAME, "model_kwargs": {"out_indices": 2}},
}


@pytest.fixture(scope="module", autouse=True)
def _tiny_entry() -> Any:
    """Puts a tiny encoder into the zoo, with random weights."""
    entry = dataclasses.replace(
        zoo.ENTRIES["radiology/suprem_segresnet"],
        name=_NAME,
        arguments={"init_filters": 8, "blocks_down": (1, 1)},
        maps=(zoo.FeatureMap.of_stride(8, 1), zoo.FeatureMap.of_stride(16, 2)),
        weights=None,
        preprocessing=_INPUT,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "ENTRIES", {**zoo.ENTRIES, _NAME: entry})
        registry.register_backbones()
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("phantom")
    phantom.write_dataset(str(folder), cases=6, val_cases=2, seed=0)
    return folder


def _datamodule(data: pathlib.Path, protocol: Any) -> SegmentationData:
    return SegmentationData(
        dataset={
            "class_path": "eva_coralbay.data.datasets.NnUNet",
            "init_args": {"root": str(data)},
        },
        protocol=protocol,
        spacing=(8.0, 8.0, 8.0),
        roi_size=(64, 64, 64),
        num_samples=1,
        batch_size=1,
        num_workers=0,
    )


def _evaluate(
    data: pathlib.Path, out: pathlib.Path, module: Any, **kwargs: Any
) -> tuple[pathlib.Path, SegmentationData]:
    """Evaluates as `eva fit` does; returns the folder of the run, and the data."""
    datamodule = _datamodule(data, module.protocol)
    trainer = Trainer(
        task="phantom",
        task_version="2",
        protocol=module.protocol,
        default_root_dir=str(out),
        n_runs=1,
        refresh_rate=0,
        accelerator="cpu",
        **kwargs,
    )
    functional.run_evaluation_session(trainer, module, datamodule, n_runs=1)
    (folder,) = out.glob("*/run_0")
    return folder, datamodule


class _Network(nn.Module):
    """Returns its input as its only map."""

    def __init__(self, preprocessing: Preprocessing | None) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.seen = torch.empty(0)

    def forward(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        self.seen = tensor
        return [tensor]


@pytest.mark.parametrize("hu_clip", [(-1000.0, 1900.0), None])
def test_an_encoder_sees_its_own_orientation_and_intensities(
    hu_clip: tuple[float, float] | None,
) -> None:
    own = dataclasses.replace(_INPUT, hu_clip=hu_clip, hu_offset=-573.8, hu_scale=461.3)
    network = _Network(own)
    lowest, highest = hu_clip or (-1024.0, 3071.0)
    hounsfield = torch.linspace(lowest, highest, 4 * 5 * 6).reshape(1, 1, 4, 5, 6)

    assert native_input.attach(network) == own
    (found,) = network((hounsfield - lowest) / (highest - lowest))

    # left to right, back to front, bottom to top: SPL has the first two the other way round
    expected = (hounsfield + 573.8) / 461.3
    torch.testing.assert_close(network.seen[0, 0, 0, 0, 0], expected[0, 0, 0, -1, -1])
    assert network.seen.shape == (1, 1, 6, 5, 4)
    torch.testing.assert_close(network.seen, own.orient(expected))
    torch.testing.assert_close(found, expected)


def test_a_probe_on_the_input_of_the_encoder(data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The scans have its spacing and its HU, the windows its size, and the record says so."""
    module = ProbeModule(encoder=_ENCODER, task="phantom", protocol="probe-native")

    run, datamodule = _evaluate(data, tmp_path / "native", module)

    written = record.Record.read(run / "record_val_last.json")
    assert written.protocol == "probe-native"
    assert written.encoder is not None and written.encoder.preprocessing == _INPUT.as_dict()
    assert written.metrics["dice"] is not None and written.metrics["dice"] > 0.1
    transform = datamodule.datasets.val.transforms
    assert transform.preparation.spacing == (12.0, 10.0, 8.0)
    assert transform.preparation.body_above == -1000.0

    # other scans get the same input
    init_args = {"spacing": [8.0, 8.0, 8.0], "hu_window": [-175.0, 250.0]}
    config = {
        part: {"class_path": "x.Y", "init_args": init_args if part == "data" else {}}
        for part in ("trainer", "model", "data")
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    loaded = trained.load(run)
    assert loaded.transform.preparation == transform.preparation
    assert loaded.module.sliding.size == (16, 24, 20)


def test_a_training_on_the_input_of_the_encoder(data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    module = SegmentationModule(
        encoder=_ENCODER,
        decoder={
            "class_path": "eva.vision.models.networks.decoders.segmentation"
            ".SwinUNETRDecoderWithProjection",
            "init_args": {"feature_size": 12},
        },
        protocol="frozen-native",
        roi_size=(64, 64, 64),
    )

    run, datamodule = _evaluate(data, tmp_path, module, max_steps=1, val_check_interval=1)

    written = record.Record.read(run / "record_val_last.json")
    assert written.protocol == "frozen-native"
    assert written.encoder is not None and written.encoder.preprocessing == _INPUT.as_dict()
    for dataset in (datamodule.datasets.train, datamodule.datasets.val):
        assert dataset.transforms.preparation.spacing == (12.0, 10.0, 8.0)


@pytest.mark.parametrize(
    "encoder",
    [
        {"class_path": "x", "init_args": {"model_name": "radiology/coralbay_random"}},
        {"class_path": "tests.eva_coralbay.evaluation.toy.ToyEncoder"},
        nn.Identity(),
    ],
)
def test_an_encoder_without_a_known_input(encoder: Any, data: pathlib.Path) -> None:
    with pytest.raises(EvaCoralbayError, match="is not known.*another PROTOCOL"):
        native_input.set_up_data(encoder, _datamodule(data, "probe-native"))
    if isinstance(encoder, nn.Module):
        with pytest.raises(EvaCoralbayError, match="is not known"):
            native_input.attach(encoder)


def test_a_spacing_that_is_not_stated_is_that_of_the_task(data: pathlib.Path) -> None:
    datamodule = _datamodule(data, "probe-native")

    native_input.set_up_data({"init_args": {"model_name": "radiology/voxelfm"}}, datamodule)

    preparation = datamodule.datasets.train.transforms.preparation
    assert preparation.spacing == (8.0, 8.0, 8.0) and preparation.body_above == -1000.0


def test_a_probe_has_no_protocol_of_a_training() -> None:
    with pytest.raises(EvaCoralbayError, match=r"not of 'frozen' \(PROTOCOL\)"):
        ProbeModule(encoder=_ENCODER, protocol="frozen")


def test_a_decoder_has_no_protocol_of_a_probe() -> None:
    with pytest.raises(EvaCoralbayError, match=r"not trained by the protocol 'probe-native'"):
        SegmentationModule(encoder=_ENCODER, decoder={}, protocol="probe-native")


@pytest.mark.parametrize(
    ("own", "of_module", "of_data", "named"),
    [
        ("probe-native", "probe", "probe-native", "module is 'probe'"),
        ("probe", "probe-native", "probe", "module is 'probe-native'"),
        ("probe", "probe", "frozen-eva", "data is 'frozen-eva'"),
    ],
)
def test_the_protocols_of_trainer_module_and_data_are_one(
    own: Any, of_module: Any, of_data: Any, named: str, data: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Otherwise a number of one protocol would be recorded as one of the other."""
    trainer = Trainer(
        task="phantom", task_version="2", protocol=own, default_root_dir=str(tmp_path)
    )
    module = ProbeModule(encoder=_ENCODER, task="phantom", protocol=of_module)
    for begin in (trainer.fit, trainer.validate, trainer.test):
        with pytest.raises(EvaCoralbayError, match=f"{named}: set PROTOCOL"):
            begin(model=module, datamodule=_datamodule(data, of_data))
