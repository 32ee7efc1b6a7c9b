"""Tests the segmentation module inside eva's own evaluation session."""

import pathlib

import pandas as pd
import pytest
import torch
from eva.core import trainers as eva_trainers
from eva.core.trainers import functional
from eva.vision import losses as eva_losses
from lightning.pytorch import callbacks

from eva_coralbay.data import SegmentationData, phantom
from eva_coralbay.data.datasets import NnUNet
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import Recorder, SegmentationModule
from tests.eva_coralbay.evaluation import toy

_SPACING = (8.0, 8.0, 8.0)
"""Coarse enough, in mm, that a phantom is a few thousand voxels."""

_ROI = (16, 16, 16)
"""The window of the toy networks in voxels, as (D, H, W)."""


_ENCODER = {"class_path": f"{toy.__name__}.ToyEncoder"}
_DECODER = {"class_path": f"{toy.__name__}.ToyDecoder"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("phantom")
    phantom.write_dataset(str(folder), cases=6, val_cases=2, seed=0)
    return folder


def _module(**kwargs: object) -> SegmentationModule:
    return SegmentationModule(
        **{"encoder": _ENCODER, "decoder": _DECODER, "roi_size": _ROI, "lr": 0.05, **kwargs}
    )


def _datamodule(
    root: pathlib.Path,
    *,
    roi_size: tuple[int, int, int] = _ROI,
    num_workers: int = 0,
    batch_size: int = 1,
) -> SegmentationData:
    return SegmentationData(
        dataset={
            "class_path": "eva_coralbay.data.datasets.NnUNet",
            "init_args": {"root": str(root)},
        },
        roi_size=roi_size,
        num_samples=2,
        spacing=_SPACING,
        batch_size=batch_size,
        num_workers=num_workers,
    )


def _trainer(folder: pathlib.Path, *, max_steps: int = 4, **kwargs: object) -> eva_trainers.Trainer:
    return eva_trainers.Trainer(
        **{
            "default_root_dir": str(folder),
            "max_steps": max_steps,
            "max_epochs": None,
            "val_check_interval": 2,
            "check_val_every_n_epoch": None,
            "checkpoint_type": "last",
            "num_sanity_val_steps": 0,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [
                callbacks.ModelCheckpoint(filename="best", monitor="val/dice", mode="max"),
                callbacks.ModelCheckpoint(filename="last"),
                Recorder(task="toy", task_version="1"),
            ],
            **kwargs,
        }
    )


def _fit(
    root: pathlib.Path,
    folder: pathlib.Path,
    *,
    n_runs: int = 1,
    num_workers: int = 0,
    batch_size: int = 1,
    **kwargs: object,
) -> list[pd.DataFrame]:
    """Runs an evaluation session and returns the case table of each run's last checkpoint."""
    functional.run_evaluation_session(
        _trainer(folder),
        _module(**kwargs),
        _datamodule(root, num_workers=num_workers, batch_size=batch_size),
        n_runs=n_runs,
    )
    tables = sorted(folder.rglob("record_val_last.cases.csv"))
    assert len(tables) == n_runs
    return [pd.read_csv(table) for table in tables]


@pytest.mark.parametrize("batch_size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_number_of_workers_does_not_change_the_case_table(
    batch_size: int, root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Two sessions without workers, one with 1 and one with 3: bit for bit one table."""
    tables = [
        _fit(root, tmp_path / str(index), num_workers=num_workers, batch_size=batch_size)[0]
        for index, num_workers in enumerate((0, 0, 1, 3))
    ]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], table, check_exact=True)


def test_a_run_alone_equals_the_same_run_of_three(
    root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    three = _fit(root, tmp_path / "three", n_runs=3)
    alone = _fit(root, tmp_path / "alone", seed=2)[0]
    pd.testing.assert_frame_equal(three[2], alone, check_exact=True)
    assert not three[0].equals(three[1])
    assert not three[1].equals(three[2])


def _fitted(
    root: pathlib.Path, folder: pathlib.Path, protocol: str
) -> tuple[SegmentationModule, eva_trainers.Trainer]:
    module, trainer = _module(protocol=protocol), _trainer(folder)
    trainer.fit(module, datamodule=_datamodule(root))
    return module, trainer


def test_frozen_encoder_does_not_move(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    module, trainer = _fitted(root, tmp_path, "frozen")
    norm = module.encoder.layers[0][1]
    assert not norm.training
    assert int(norm.num_batches_tracked) == 0
    assert not any(parameter.requires_grad for parameter in module.encoder.parameters())
    saved = torch.load(trainer.checkpoint_callbacks[1].best_model_path, weights_only=True)
    assert {key.split(".")[0] for key in saved["state_dict"]} == {"decoder"}


def test_weighted_criterion_survives_the_decoder_only_checkpoint(
    root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    weight = [1.0] * len(NnUNet(str(root), "val").classes)
    criterion = eva_losses.DiceCELoss(softmax=True, to_onehot_y=True, weight=weight)
    assert len(_fit(root, tmp_path, criterion=criterion)) == 1


def test_trained_encoder_moves_and_is_saved(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    module, trainer = _fitted(root, tmp_path, "scratch")
    assert int(module.encoder.layers[0][1].num_batches_tracked) == 4
    saved = torch.load(trainer.checkpoint_callbacks[1].best_model_path, weights_only=True)
    assert {key.split(".")[0] for key in saved["state_dict"]} == {"decoder", "encoder"}


def test_decoder_has_the_classes_of_the_data(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    module, _ = _fitted(root, tmp_path, "frozen")
    assert module.decoder.layer.out_channels == len(NnUNet(str(root), "val").classes)


def test_two_encoders_meet_one_decoder_and_the_same_crops(
    root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """So the runs of one seed can be compared in pairs, however many weights are drawn."""

    class Spy(callbacks.Callback):
        def on_train_start(self, trainer: object, pl_module: SegmentationModule) -> None:
            self.decoder = {k: v.clone() for k, v in pl_module.decoder.state_dict().items()}
            self.noise: list[torch.Tensor] = []
            self.crops: list[torch.Tensor] = []

        def on_train_batch_end(self, trainer: object, pl_module: object, *args: object) -> None:
            self.crops.append(args[1][0].clone())
            self.noise.append(torch.rand(1))

    spies = []
    encoders = {"toy": _ENCODER, "other": {**_ENCODER, "init_args": {"unused": 10000}}}
    for name, encoder in encoders.items():
        spies.append(Spy())
        trainer = _trainer(tmp_path / name)
        trainer.callbacks.append(spies[-1])
        module = _module(encoder=encoder, protocol="scratch", seed=5)
        trainer.fit(module, datamodule=_datamodule(root))
    one, other = spies
    assert all(torch.equal(one.decoder[key], other.decoder[key]) for key in one.decoder)
    assert torch.equal(torch.stack(one.crops), torch.stack(other.crops))
    assert torch.equal(torch.stack(one.noise), torch.stack(other.noise))
    assert len({float(noise) for noise in one.noise}) == 4, "each step draws anew"


def test_refuses_a_training_without_end(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    trainer = _trainer(tmp_path, max_steps=-1, max_epochs=2)
    with pytest.raises(EvaCoralbayError, match="MAX_STEPS"):
        trainer.fit(_module(), datamodule=_datamodule(root))


def test_learns(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    module, trainer = _module(protocol="scratch", seed=2), _trainer(tmp_path, max_steps=2)
    trainer.fit(module, datamodule=_datamodule(root))
    before = float(trainer.callback_metrics["val/dice"])
    module, trainer = _module(protocol="scratch", seed=2), _trainer(tmp_path, max_steps=60)
    trainer.fit(module, datamodule=_datamodule(root))
    assert float(trainer.callback_metrics["val/dice"]) > before + 0.05


def _swin_unetr_decoder() -> dict:
    return {
        "class_path": "eva.vision.models.networks.decoders.segmentation.SwinUNETRDecoder",
        "init_args": {"feature_size": 12},
    }


@pytest.mark.parametrize("roi_size", [(32, 32, 32), (64, 64, 80)])
def test_refuses_a_roi_the_decoder_cannot_take(
    root: pathlib.Path, tmp_path: pathlib.Path, roi_size: tuple[int, int, int]
) -> None:
    module = _module(decoder=_swin_unetr_decoder(), roi_size=roi_size)
    with pytest.raises(EvaCoralbayError, match="multiple of 32 and at least 64"):
        _trainer(tmp_path).fit(module, datamodule=_datamodule(root, roi_size=roi_size))


def test_refuses_crops_of_another_size(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(EvaCoralbayError, match="ROI_SIZE"):
        _trainer(tmp_path).fit(_module(roi_size=(8, 8, 8)), datamodule=_datamodule(root))


def test_refuses_steps_after_the_last_validation(
    root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(EvaCoralbayError, match="VAL_CHECK_INTERVAL"):
        _trainer(tmp_path, max_steps=5).fit(_module(), datamodule=_datamodule(root))


@pytest.mark.parametrize("protocol", ["frozen", "scratch"])
def test_a_checkpoint_is_a_module_by_itself(
    root: pathlib.Path, tmp_path: pathlib.Path, protocol: str
) -> None:
    """Without arguments: the networks, the classes and the random encoder of the run."""
    module, trainer = _fitted(root, tmp_path, protocol)
    path = trainer.checkpoint_callbacks[1].best_model_path
    loaded = SegmentationModule.load_from_checkpoint(path)
    assert loaded.classes == module.classes and loaded.protocol == protocol
    window = torch.rand(1, 1, *_ROI, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, expected = (
            networks.decoder(networks.encoder(window)) for networks in (loaded, module.eval())
        )
    assert torch.equal(logits, expected)


def test_a_decoder_is_not_loaded_on_another_encoder(
    root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    _, trainer = _fitted(root, tmp_path, "frozen")
    path = trainer.checkpoint_callbacks[1].best_model_path
    other = _trainer(tmp_path / "other")
    with pytest.raises(EvaCoralbayError, match="encoder with other weights"):
        other.fit(_module(seed=9), datamodule=_datamodule(root), ckpt_path=path)
