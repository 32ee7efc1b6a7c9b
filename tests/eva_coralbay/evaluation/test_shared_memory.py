"""Tests that what data workers need of shared memory is known before an evaluation starts."""

import pathlib
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from eva_coralbay.data import ClassificationData, SegmentationData, phantom, volume_transforms
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import (
    ClassificationModule,
    ProbeModule,
    Trainer,
    early_checks,
    shared_memory,
)
from tests.eva_coralbay.evaluation.probe import toy

_SPACING = (20.0, 18.0, 18.0)
_WAITING = 3 * 2
"""Three workers with two batches each."""


@pytest.fixture(name="scans", scope="module")
def _scans(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("phantom")
    phantom.write_dataset(
        str(folder), cases=4, val_cases=1, shape=(16, 24, 24), spacing_mm=_SPACING
    )
    return folder


def _segmentation(scans: pathlib.Path, protocol: Any = "frozen", workers: int = 3) -> Any:
    return SegmentationData(
        dataset={
            "class_path": "eva_coralbay.data.datasets.NnUNet",
            "init_args": {"root": str(scans), "prepared": False},
        },
        protocol=protocol,
        roi_size=(8, 10, 12),
        num_samples=5,
        spacing=_SPACING,
        batch_size=2,
        num_workers=workers,
    )


def _classification(nodules: pathlib.Path, **arguments: Any) -> ClassificationData:
    return ClassificationData(
        dataset={
            "class_path": "eva_coralbay.data.datasets.classification.NoduleMNIST3D",
            "init_args": {"root": str(nodules)},
        },
        transform=volume_transforms.ResizeTransform(size=(12, 14, 16), window=(0.0, 255.0)),
        batch_size=4,
        predict_batch_size=8,
        num_workers=3,
        **arguments,
    )


def test_crops_wait_while_scans_are_scored(scans: pathlib.Path) -> None:
    data = _segmentation(scans)
    crops = _WAITING * 2 * 5 * (8 * 10 * 12) * (4 + 8)
    assert shared_memory.estimate(data) == crops + _WAITING * (16 * 24 * 24) * (4 + 1)


def test_what_is_counted_is_what_a_batch_has(scans: pathlib.Path) -> None:
    data = _segmentation(scans, workers=0)
    data.prepare_data()
    data.setup("fit")
    data.trainer = SimpleNamespace(
        lightning_module=SimpleNamespace(run_seed=0), global_step=0, accumulate_grad_batches=1
    )
    image, target, _ = next(iter(data.train_dataloader()))
    assert image.nbytes + target.nbytes == 2 * 5 * (8 * 10 * 12) * (4 + 8)
    (loader,) = data.val_dataloader()
    image, target, _ = next(iter(loader))
    assert image.nbytes + target.nbytes == image.numel() * (4 + 1)


def test_a_probe_reads_whole_scans_only(scans: pathlib.Path) -> None:
    data = _segmentation(scans, "probe")
    assert shared_memory.estimate(data) == _WAITING * (16 * 24 * 24) * (4 + 1)


def test_scans_that_are_not_there_do_not_count(tmp_path: pathlib.Path) -> None:
    data = SegmentationData(
        dataset={
            "class_path": "eva_coralbay.data.datasets.BTCV",
            "init_args": {"root": str(tmp_path / "btcv")},
        },
        roi_size=(8, 10, 12),
        num_samples=5,
        batch_size=2,
        num_workers=3,
    )
    assert shared_memory.estimate(data) == _WAITING * 2 * 5 * (8 * 10 * 12) * (4 + 8)


def test_volumes_that_are_classified(nodules: pathlib.Path, tmp_path: pathlib.Path) -> None:
    volume = 12 * 14 * 16 * 4
    # training and scoring
    assert shared_memory.estimate(_classification(nodules)) == 2 * _WAITING * 4 * volume
    embedded = _classification(
        nodules, protocol="frozen-offline", embeddings_root=str(tmp_path / "embeddings")
    )
    assert shared_memory.estimate(embedded) == _WAITING * 8 * volume


@pytest.mark.skipif(not pathlib.Path("/dev/shm").is_dir(), reason="Linux only")
def test_too_little_is_said_before_the_start(
    scans: pathlib.Path,
    nodules: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ProbeModule(encoder=toy.ENCODER, task="toy", roi_size=(16, 16, 16))
    cpu = torch.device("cpu")
    usage = SimpleNamespace(free=_WAITING * (16 * 24 * 24) * (4 + 1) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(EvaCoralbayError, match=r"shared memory .* lower N_DATA_WORKERS"):
        early_checks.check(module, _segmentation(scans, "probe"), cpu)
    early_checks.check(module, _segmentation(scans, "probe", workers=0), cpu)

    # of the command that embeds
    protocol: Any = "frozen-offline"
    trainer = Trainer(
        task="toy",
        task_version="1",
        protocol=protocol,
        default_root_dir=str(tmp_path),
        accelerator="cpu",
    )
    embedder = ClassificationModule(encoder=toy.ENCODER, protocol=protocol)
    embedded = _classification(
        nodules, protocol=protocol, embeddings_root=str(tmp_path / "embeddings")
    )
    with pytest.raises(EvaCoralbayError, match="shared memory"):
        trainer.predict(embedder, datamodule=embedded)
