"""Runs of `eva fit` that take seconds: a decoder and a probe on phantoms."""

import pathlib
from typing import Any

import yaml
from eva.core.trainers import functional

from eva_coralbay.data import SegmentationData, phantom
from eva_coralbay.evaluation import ProbeModule, SegmentationModule, Trainer
from tests.eva_coralbay.evaluation import toy
from tests.eva_coralbay.evaluation.probe import toy as probe_toy

_ROI = (16, 16, 16)


def write_data(folder: pathlib.Path) -> pathlib.Path:
    """Writes phantoms in nnU-Net's layout."""
    phantom.write_dataset(str(folder), cases=5, val_cases=2, seed=0)
    return folder


def fit(data: pathlib.Path, out: pathlib.Path, *, is_probe: bool) -> pathlib.Path:
    """Trains, scores and returns the folder of the run, with its config as `eva fit` writes it."""
    dataset = {
        "class_path": "eva_coralbay.data.datasets.NnUNet",
        # prepared scans are rounded to whole HU
        "init_args": {"root": str(data), "prepared": False},
    }
    model: dict[str, Any] = {"roi_size": _ROI}
    settings: dict[str, Any] = {"spacing": (8.0, 8.0, 8.0), "hu_window": (-200.0, 300.0)}
    if is_probe:
        module: Any = ProbeModule(encoder=probe_toy.ENCODER, task="phantom", **model)
    else:
        encoder = {"class_path": f"{toy.__name__}.ToyEncoder"}
        decoder = {"class_path": f"{toy.__name__}.ToyDecoder"}
        model |= {"protocol": "scratch", "lr": 0.05}
        module = SegmentationModule(encoder=encoder, decoder=decoder, **model)
        settings |= {"roi_size": _ROI, "num_samples": 2, "batch_size": 1}
    protocol = "probe" if is_probe else "scratch"
    trainer = Trainer(
        task="phantom",
        task_version="2",
        protocol=protocol,
        default_root_dir=str(out),
        n_runs=1,
        max_steps=40,
        val_check_interval=20,
        refresh_rate=0,
        loggers="csv",
        accelerator="cpu",
    )
    datamodule = SegmentationData(dataset=dataset, protocol=protocol, num_workers=0, **settings)
    functional.run_evaluation_session(trainer, module, datamodule, n_runs=1)
    (run,) = out.glob("*/run_0")
    plain = {name: list(value) for name, value in settings.items() if isinstance(value, tuple)}
    kind = type(module)
    config = {
        "trainer": {"class_path": "eva_coralbay.evaluation.Trainer", "init_args": {}},
        "model": {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": {}},
        # environment variables give text
        "data": {
            "class_path": "eva_coralbay.data.SegmentationData",
            "init_args": {**plain, "spacing": str(plain["spacing"])},
        },
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run
