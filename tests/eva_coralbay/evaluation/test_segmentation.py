"""Tests the segmentation module inside eva's own evaluation session."""

import pathlib

import pandas as pd
import pytest
import torch
from eva.core import trainers as eva_trainers
from eva.core.data import dataloaders, datamodules
from eva.core.trainers import functional
from eva.vision import losses as eva_losses
from eva.vision.data.dataloaders import collate_fn
from lightning.pytorch import callbacks
from torch import nn

from eva_coralbay.data import phantom, seeding, transforms
from eva_coralbay.data.datasets import NnUNet
from eva_coralbay.evaluation import Recorder, SegmentationModule

_SPACING = (8.0, 8.0, 8.0)
"""Coarse enough, in mm, that a phantom is a few thousand voxels."""

_ROI = (16, 16, 16)
"""The window of the toy networks in voxels, as (D, H, W)."""


class ToyEncoder(nn.Module):
    """One convolution with a batch norm, which drifts unless it is in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU())

    def forward(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        return [self.layers(tensor)]


class ToyDecoder(nn.Module):
    """One convolution from the only feature map to the classes."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv3d(4, out_channels, 1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return self.layer(features[0])


_ENCODER = {"class_path": f"{__name__}.ToyEncoder"}
_DECODER = {"class_path": f"{__name__}.ToyDecoder"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("phantom")
    phantom.write_dataset(str(folder), cases=6, val_cases=2, seed=0)
    return folder


def _module(**kwargs: object) -> SegmentationModule:
    return SegmentationModule(
        **{"encoder": _ENCODER, "decoder": _DECODER, "roi_size": _ROI, "lr": 0.05, **kwargs}
    )


def _datamodule(root: pathlib.Path, *, num_workers: int = 0) -> datamodules.DataModule:
    train = transforms.TrainTransform(roi_size=_ROI, num_samples=2, spacing=_SPACING)
    evaluate = transforms.EvalTransform(spacing=_SPACING)
    workers = {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "prefetch_factor": 2 if num_workers else None,
        "worker_init_fn": seeding.seed_worker,
    }
    return datamodules.DataModule(
        datasets=datamodules.DatasetsSchema(
            train=NnUNet(str(root), "train", transforms=train),
            val=NnUNet(str(root), "val", transforms=evaluate),
        ),
        dataloaders=datamodules.DataloadersSchema(
            train=dataloaders.DataLoader(
                batch_size=1, shuffle=True, collate_fn=collate_fn.collection_collate, **workers
            ),
            val=dataloaders.DataLoader(batch_size=1, **workers),
        ),
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
    **kwargs: object,
) -> list[pd.DataFrame]:
    """Runs an evaluation session and returns the case table of each run's last checkpoint."""
    functional.run_evaluation_session(
        _trainer(folder),
        _module(**kwargs),
        _datamodule(root, num_workers=num_workers),
        n_runs=n_runs,
    )
    tables = sorted(folder.rglob("record_val_last.cases.csv"))
    assert len(tables) == n_runs
    return [pd.read_csv(table) for table in tables]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_session_run_twice_gives_equal_tables(
    root: pathlib.Path, tmp_path: pathlib.Path, num_workers: int
) -> None:
    first, second = (
        _fit(root, tmp_path / name, num_workers=num_workers)[0] for name in ("first", "second")
    )
    pd.testing.assert_frame_equal(first, second, check_exact=True)


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
    norm = module.encoder.layers[1]
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
    assert int(module.encoder.layers[1].num_batches_tracked) == 4
    saved = torch.load(trainer.checkpoint_callbacks[1].best_model_path, weights_only=True)
    assert {key.split(".")[0] for key in saved["state_dict"]} == {"decoder", "encoder"}


def test_decoder_has_the_classes_of_the_data(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    module, _ = _fitted(root, tmp_path, "frozen")
    assert module.decoder.layer.out_channels == len(NnUNet(str(root), "val").classes)


def test_learns(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    module, trainer = _module(protocol="scratch"), _trainer(tmp_path, max_steps=2)
    trainer.fit(module, datamodule=_datamodule(root))
    before = float(trainer.callback_metrics["val/dice"])
    module, trainer = _module(protocol="scratch"), _trainer(tmp_path, max_steps=60)
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
    datamodule = _datamodule(root)
    datamodule.datasets.train._transforms.roi_size = roi_size
    module = _module(decoder=_swin_unetr_decoder(), roi_size=roi_size)
    with pytest.raises(ValueError, match="multiple of 32 and at least 64"):
        _trainer(tmp_path).fit(module, datamodule=datamodule)


def test_refuses_crops_of_another_size(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="ROI_SIZE"):
        _trainer(tmp_path).fit(_module(roi_size=(8, 8, 8)), datamodule=_datamodule(root))


def test_refuses_steps_after_the_last_validation(
    root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ValueError, match="VAL_CHECK_INTERVAL"):
        _trainer(tmp_path, max_steps=5).fit(_module(), datamodule=_datamodule(root))
