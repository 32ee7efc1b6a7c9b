"""Walks through nnU-Net itself, where it is installed: `nox -s nnunet`."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import torch

from eva_coralbay.cli import main
from eva_coralbay.data import phantom
from eva_coralbay.results import record

pytestmark = pytest.mark.slow

_DATASET = "Dataset900_Phantom"

_TRAINER = """
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class ShortTrainer(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cpu")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.num_val_iterations_per_epoch = 1
        self.num_iterations_per_epoch = 2
"""
"""The stock trainer, but for two steps."""


@pytest.fixture
def root(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    pytest.importorskip("nnunetv2")
    for folder in ("raw", "preprocessed", "results"):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(f"nnUNet_{folder}", str(tmp_path / folder))
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "trainers"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers/short_trainer.py").write_text(_TRAINER)
    phantom.write_dataset(
        str(tmp_path / "raw" / _DATASET),
        cases=6,
        val_cases=2,
        shape=(40, 44, 48),
        spacing_mm=(8.0, 8.0, 8.0),
    )
    return tmp_path


def _run(command: str, *arguments: object) -> str:
    """Runs a command of nnU-Net, and returns what it printed."""
    program = pathlib.Path(sys.executable).with_name(f"nnUNetv2_{command}")
    run = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False, env=os.environ
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def _train(plans: str, *options: object) -> str:
    trainer = ("-tr", "ShortTrainer", "-device", "cpu")
    return _run("train", 900, "3d_fullres", 0, "-p", plans, *trainer, *options)


def _score(root: pathlib.Path, predictions: pathlib.Path, model: str) -> record.Record:
    out = root / "logs" / model
    command = ["score", str(predictions), "nnunet", "--root", str(root / "raw" / _DATASET)]
    assert main.main([*command, "--model", f"nnunet/{model}", "--out", str(out)]) == 0
    return record.Record.read(out / "seed_0/record_val_last.json")


def _fold(root: pathlib.Path, plans: str) -> pathlib.Path:
    return root / "results" / _DATASET / f"ShortTrainer__{plans}__3d_fullres" / "fold_0"


@pytest.mark.parametrize("options", [["--frozen"], ["--hu-window", "-200", "300"]])
def test_an_encoder_is_trained_and_scored(root: pathlib.Path, options: list[str]) -> None:
    _run("plan_and_preprocess", "-d", 900, "-c", "3d_fullres", "-np", 1, "-npfp", 1, "--no_pp")
    planned = root / "preprocessed" / _DATASET / "nnUNetPlans.json"
    command = ["nnunet", "export", "radiology/coralbay_random", "--kwarg", "feature_size=12"]
    assert main.main([*command, "--plans", str(planned), *options]) == 0
    (weights,) = planned.parent.glob("*.pth")

    _run("preprocess", "-d", 900, "-plans_name", weights.stem, "-c", "3d_fullres", "-np", 1)
    printed = _train(weights.stem, "-pretrained_weights", weights)
    shutil.copytree(root / "raw" / _DATASET / "imagesTr", root / "images")
    for case in (root / "images").glob("*_00[0-3]_0000.nii.gz"):
        case.unlink()
    paths = ("-i", root / "images", "-o", root / "predictions")
    network = ("-d", 900, "-c", "3d_fullres", "-f", 0, "-p", weights.stem, "-tr", "ShortTrainer")
    _run("predict", *paths, *network, "-device", "cpu", "-npp", 1, "-nps", 1, "--disable_tta")

    assert re.search(r"Loading pretrained weights from file .*Plans\.pth", printed)
    # of its own file, written a moment ago
    checkpoint = torch.load(
        _fold(root, weights.stem) / "checkpoint_final.pth", map_location="cpu", weights_only=False
    )
    before = torch.load(weights, weights_only=True)["network_weights"]
    moved = {
        key.partition(".")[0]
        for key, value in before.items()
        if not torch.equal(checkpoint["network_weights"][key], value)
    }
    assert moved == ({"decoder"} if "--frozen" in options else {"encoder", "decoder"})
    result = _score(root, root / "predictions", "coralbay_random")
    assert (result.split.n, result.protocol) == (2, "external")
    assert 0 <= (result.metrics["dice"] or 0.0) < 1


def test_its_own_network_is_scored(root: pathlib.Path) -> None:
    planner = ("-pl", "nnUNetPlannerResEncM")
    _run("plan_and_preprocess", "-d", 900, "-c", "3d_fullres", "-np", 1, "-npfp", 1, *planner)
    plans = "nnUNetResEncUNetMPlans"

    _train(plans)

    predictions = _fold(root, plans) / "validation"
    result = _score(root, predictions, "resenc_m")
    own = json.loads((predictions / "summary.json").read_text())["mean"]
    expected = {
        name: own[str(value)]["Dice"] for value, name in enumerate(phantom.CLASSES) if value
    }
    found = {name: result.metrics[f"dice_{name}"] for name in expected}
    assert found == pytest.approx(expected, nan_ok=True)
