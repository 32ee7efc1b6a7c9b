"""Tests that our names are known to eva's own configs after nothing but an installation."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
"""The top of the repository."""

_STOCK_CONFIG = """
trainer:
  class_path: eva.Trainer
  init_args:
    n_runs: ${oc.env:N_RUNS, 1}
    max_steps: &MAX_STEPS ${oc.env:MAX_STEPS, 10}
    default_root_dir: ${oc.env:OUTPUT_ROOT, logs}
    accelerator: cpu
model:
  class_path: eva.vision.models.modules.SemanticSegmentationModule
  init_args:
    encoder:
      class_path: eva.vision.models.ModelFromRegistry
      init_args:
        model_name: ${oc.env:MODEL_NAME, radiology/voco_b}
        model_kwargs:
          out_indices: ${oc.env:OUT_INDICES, 6}
    decoder:
      class_path: eva.vision.models.networks.decoders.segmentation.SwinUNETRDecoderWithProjection
      init_args:
        feature_size: ${oc.env:IN_FEATURES, 48}
        out_channels: 14
    spatial_dims: 3
    inferer:
      class_path: monai.inferers.SlidingWindowInferer
      init_args:
        roi_size: [96, 96, 96]
    criterion:
      class_path: monai.losses.DiceCELoss
      init_args:
        softmax: true
    lr_multiplier_encoder: 0.0
data:
  class_path: eva.DataModule
  init_args:
    datasets:
      train:
        class_path: eva.vision.datasets.BTCV
        init_args:
          root: ${oc.env:DATA_ROOT, ./data/btcv}
          split: train
    dataloaders:
      train:
        batch_size: 2
"""
"""A config of eva's classes only, built like those that eva ships for radiology."""

_INSTANTIATE = """
import sys
import jsonargparse
from eva.core import interface

parser = jsonargparse.ArgumentParser(parser_mode="omegaconf")
parser.add_method_arguments(interface.Interface, "fit", fail_untyped=False)
parser.add_argument("--config", action="config")
parsed = parser.parse_args(["--config", sys.argv[1]])
model = parser.instantiate_classes(parsed).model
print("built", type(model.encoder.model).__name__, model.encoder.model.out_indices)
"""

_PLAIN_LIGHTNING = """
import sys
from lightning.pytorch import Trainer

Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
print("loaded", sorted({"eva", "monai"} & set(sys.modules)))
"""


def _run(python: str, *arguments: str, **environment: str) -> str:
    """Runs Python in a process of its own and returns what it prints."""
    result = subprocess.run(
        [python, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def _check_environment(python: str, folder: pathlib.Path) -> None:
    """Checks that an eva config finds our backbone by name in an environment."""
    config = folder / "stock.yaml"
    config.write_text(_STOCK_CONFIG)
    name = "radiology/coralbay_random"

    arguments = ["-m", "eva", "fit", "--config", str(config), "--print_config"]
    assert "ModelFromRegistry" in _run(python, *arguments, MODEL_NAME=name)
    built = _run(python, "-c", _INSTANTIATE, str(config), MODEL_NAME=name)
    assert "built CoralBayEncoder 6" in built


def test_eva_finds_our_names(tmp_path: pathlib.Path) -> None:
    _check_environment(sys.executable, tmp_path)


def test_other_programs_load_nothing() -> None:
    """The entry point is called in every program that builds a trainer; it must cost nothing."""
    assert "loaded []" in _run(sys.executable, "-c", _PLAIN_LIGHTNING)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv to make an environment")
def test_fresh_environment(tmp_path: pathlib.Path) -> None:
    """Nothing but an installation from the source tree is needed."""
    uv = str(shutil.which("uv"))
    python = str(tmp_path / "environment" / "bin" / "python")
    subprocess.run([uv, "venv", "--python", sys.executable, tmp_path / "environment"], check=True)
    subprocess.run([uv, "pip", "install", "--python", python, str(_ROOT)], check=True)

    _check_environment(python, tmp_path)
    assert "loaded []" in _run(python, "-c", _PLAIN_LIGHTNING)
