"""Tests that a dry run states what an evaluation takes, and does nothing else."""

import pathlib
from typing import Any

import pytest
from eva.core import trainers

from eva_coralbay.data import ClassificationData, SegmentationData, phantom, volume_transforms
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import (
    ClassificationModule,
    EmbeddingProbeModule,
    ProbeModule,
    SegmentationModule,
    Trainer,
    cost,
)
from tests.eva_coralbay.evaluation import toy
from tests.eva_coralbay.evaluation.probe import toy as probe_toy

_POOLED = {
    "class_path": f"{toy.__name__}.ToyEncoder",
    "init_args": {"channels": [4], "pooled": True},
}

_MAPS = {"class_path": f"{toy.__name__}.ToyEncoder", "init_args": {}}

_DECODER = {"class_path": f"{toy.__name__}.ToyDecoder", "init_args": {}}

_SPACING = (20.0, 18.0, 18.0)


def _lines(log: list[str]) -> list[str]:
    return [line for message in log for line in message.removeprefix("INFO ").splitlines()]


@pytest.fixture(name="scans", scope="module")
def _scans(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("phantom")
    phantom.write_dataset(
        str(folder), cases=5, val_cases=2, shape=(16, 24, 24), spacing_mm=_SPACING
    )
    return folder


def _trainer(folder: pathlib.Path, protocol: Any, **arguments: Any) -> Trainer:
    return Trainer(
        task="toy",
        task_version="1",
        protocol=protocol,
        default_root_dir=str(folder / "logs"),
        accelerator="cpu",
        refresh_rate=0,
        n_runs=3,
        dry_run=True,
        **arguments,
    )


def _run(trainer: Trainer, module: Any, data: Any, log: list[str]) -> dict[str, str]:
    """Does a dry run as `eva fit` does, and returns the lines of the report by their names."""
    with pytest.raises(SystemExit) as ended:
        trainers.run_evaluation_session(trainer, module, data, n_runs=trainer.n_runs)
    assert ended.value.code == 0
    assert not pathlib.Path(trainer.default_root_dir).exists(), "nothing is recorded"
    lines = _lines(log)
    report = lines[next(i for i, line in enumerate(lines) if line.startswith("Dry run")) :]
    rows = [line.strip().split("  ", 1) for line in report if line.startswith("  ")]
    return {**{name: value.strip() for name, value in rows}, "end": report[-1]}


def _segmentation(scans: pathlib.Path, protocol: Any, **arguments: Any) -> SegmentationData:
    return SegmentationData(
        dataset={
            "class_path": "eva_coralbay.data.datasets.NnUNet",
            "init_args": {"root": str(scans), **arguments},
        },
        protocol=protocol,
        spacing=_SPACING,
        roi_size=(16, 16, 16),
        num_samples=2,
        num_workers=0,
    )


def _classification(nodules: pathlib.Path, protocol: Any, **arguments: Any) -> ClassificationData:
    return ClassificationData(
        dataset={
            "class_path": "eva_coralbay.data.datasets.classification.NoduleMNIST3D",
            "init_args": {"root": str(nodules)},
        },
        transform=volume_transforms.ResizeTransform(size=(12, 12, 12), window=(0.0, 255.0)),
        protocol=protocol,
        num_workers=0,
        **arguments,
    )


@pytest.mark.parametrize("protocol", ["frozen", "finetuned"])
def test_a_training_of_a_segmentation(
    protocol: Any, scans: pathlib.Path, tmp_path: pathlib.Path, log: list[str]
) -> None:
    module = SegmentationModule(
        encoder=_MAPS, decoder=_DECODER, protocol=protocol, roi_size=(16, 16, 16), sw_batch_size=2
    )
    trainer = _trainer(tmp_path, protocol, max_steps=40, val_check_interval=10, robustness=True)

    rows = _run(trainer, module, _segmentation(scans, protocol), log)

    assert rows["encoder"] == "120 parameters"
    assert rows["training steps"].startswith("120 x 4 crops of 16 x 16 x 16: ")
    # 16 x 24 x 24 voxels are 1 x 2 x 2 windows that overlap by half or by a quarter, two at a time
    windows = "x 2 windows of 16 x 16 x 16: "
    assert rows["validations"].startswith(f"{3 * 4 * 2 * 4 // 2} {windows}")
    assert rows["scoring"].startswith(f"{3 * (2 + 7) * 2 * 4 // 2} {windows}")
    assert "GiB of memory beside the weights" in rows["scoring"]
    assert rows["logits of a scan"] == "0.00 GiB"
    assert rows["time of all runs"].endswith("s (3 runs)")
    assert rows["prepared scans"].startswith("5 to prepare, about 0.00 GiB in ")
    assert rows["end"] == "It fits."
    assert not list(scans.rglob("*.scan")), "nothing is prepared"
    assert isinstance(module.encoder, dict), "the module is as it was"


def test_a_probe_of_a_segmentation(
    scans: pathlib.Path, tmp_path: pathlib.Path, log: list[str]
) -> None:
    module = ProbeModule(encoder=probe_toy.ENCODER, task="toy", roi_size=(16, 16, 16))

    rows = _run(_trainer(tmp_path, "probe"), module, _segmentation(scans, "probe"), log)

    assert rows["features"].startswith(f"{3 * 3 * 4} x a window of 16 x 16 x 16: ")
    assert rows["scoring"].startswith(f"{3 * 2 * 4} x a window of 16 x 16 x 16: ")
    # ten sets of one case, ten of two and one of three, with one left out at a time
    fits = 10 * 1 + 10 * (1 + 2) + (1 + 3)
    assert rows["classifiers"].startswith(f"{3 * fits} x a fit to 9 channels: ")
    assert rows["kept features"].startswith("at most 0.0")
    assert rows["end"] == "It fits."


@pytest.mark.parametrize("is_offline", [False, True])
def test_a_training_of_a_classification(
    is_offline: bool, nodules: pathlib.Path, tmp_path: pathlib.Path, log: list[str]
) -> None:
    protocol: Any = "frozen-offline" if is_offline else "frozen"
    embeddings = {"embeddings_root": str(tmp_path / "embeddings")} if is_offline else {}
    data = _classification(nodules, protocol, batch_size=4, predict_batch_size=8, **embeddings)
    module = ClassificationModule(encoder=_POOLED, protocol=protocol)
    trainer = _trainer(tmp_path, protocol, monitor="val/auroc", max_steps=40, val_check_interval=10)

    rows = _run(trainer, module, data, log)

    unit = "4 embeddings" if is_offline else "4 volumes of 12 x 12 x 12"
    assert rows["training steps"].startswith(f"120 x {unit}: ")
    assert ("embeddings" in rows) == is_offline
    cases = {part: len(getattr(data.datasets, part)) for part in ("train", "val", "test")}
    assert rows["validations"].startswith(f"{3 * 4 * cases['val'] / 4:,.0f} x {unit}: ")
    scored = cases["val"] + cases["test"]
    assert rows["scoring"].startswith(f"{3 * 2 * scored / 4:,.0f} x {unit}: ")
    if is_offline:
        number = (cases["train"] + scored) / 8
        assert rows["embeddings"].startswith(f"{number:,.0f} x 8 volumes of 12 x 12 x 12: ")
    assert "prepared scans" not in rows
    assert not (tmp_path / "embeddings").exists()


def test_the_command_that_embeds_ends_before_it(
    nodules: pathlib.Path, tmp_path: pathlib.Path, log: list[str]
) -> None:
    data = _classification(nodules, "frozen-offline", embeddings_root=str(tmp_path / "embeddings"))
    trainer = _trainer(tmp_path, "frozen-offline", monitor="val/auroc")
    module = ClassificationModule(encoder=_POOLED, protocol="frozen-offline")

    with pytest.raises(SystemExit):
        trainers.infer_model(trainer, module, data, enable_clone=True)

    assert any("embeddings  " in line for line in _lines(log))


def test_a_probe_of_a_classification(
    nodules: pathlib.Path, tmp_path: pathlib.Path, log: list[str]
) -> None:
    data = _classification(nodules, "probe")

    rows = _run(
        _trainer(tmp_path, "probe"), EmbeddingProbeModule(encoder=_POOLED, task="toy"), data, log
    )

    cases = len(data.datasets.train) + len(data.datasets.val) + len(data.datasets.test)
    assert rows["embeddings"].startswith(f"{3 * cases} x a volume of 12 x 12 x 12: ")


def test_what_does_not_fit_is_said_with_what_to_change(
    scans: pathlib.Path,
    tmp_path: pathlib.Path,
    log: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cost, "find_free_memory", lambda device: 100_000)
    module = SegmentationModule(encoder=_MAPS, decoder=_DECODER, roi_size=(16, 16, 16))
    data = _segmentation(scans, "frozen", prepared=False)

    rows = _run(_trainer(tmp_path, "frozen"), module, data, log)

    assert "does not fit, stopped at 0.00 GiB" in rows["training steps"]
    assert rows["time of all runs"] == "0 s and the stages of unknown time (3 runs)"
    assert "'scoring' does not fit into the memory." in rows["end"]
    assert "SW_BATCH_SIZE=1" in rows["end"]
    assert "prepared scans" not in rows


def test_cases_are_known_without_the_data_but_not_their_windows(
    tmp_path: pathlib.Path, log: list[str]
) -> None:
    data = SegmentationData(
        dataset={
            "class_path": "eva_coralbay.data.datasets.BTCV",
            "init_args": {"root": str(tmp_path / "btcv")},
        },
        roi_size=(16, 16, 16),
        num_workers=0,
    )
    module = SegmentationModule(encoder=_MAPS, decoder=_DECODER, roi_size=(16, 16, 16))

    rows = _run(_trainer(tmp_path, "frozen"), module, data, log)

    assert rows["scoring"].startswith("an unknown number x 4 windows of 16 x 16 x 16: unknown (")
    assert rows["prepared scans"] == "unknown, as the scans are not there"
    assert "and the stages of unknown time" in rows["time of all runs"]


def test_the_configuration_is_checked_first(scans: pathlib.Path, tmp_path: pathlib.Path) -> None:
    module = SegmentationModule(
        encoder=_MAPS, decoder=_DECODER, roi_size=(16, 16, 16), class_weights=[1.0]
    )
    with pytest.raises(EvaCoralbayError, match="CLASS_WEIGHTS"):
        _trainer(tmp_path, "frozen").fit(module, datamodule=_segmentation(scans, "frozen"))
