"""Tests that our names are known to eva's own configs after nothing but an installation."""

import importlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from eva_coralbay import errors, plugin

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

_TWO_PROGRAMS = """
import sys
from lightning.pytorch import Trainer

Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
print("a trainer alone loads", sorted({"eva", "monai"} & set(sys.modules)))

import jsonargparse
from eva.core import interface

parser = jsonargparse.auto_parser(
    interface.Interface, parser_mode="omegaconf", fail_untyped=False
)
arguments = parser.parse_args(["fit", "--config", sys.argv[1]])
module = parser.instantiate_classes(arguments).fit.model
module.configure_model()  # eva builds the encoder when the trainer sets the module up
backbone = module.encoder.model
print("eva builds", type(backbone).__name__, backbone.out_indices)
"""
"""What becomes of a program that builds a trainer, without eva and with it."""


def run_python(python: str, *arguments: str, **environment: str) -> str:
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


def check_environment(python: str, config: pathlib.Path) -> None:
    """Checks that eva finds our backbone by name, and that other programs do not pay for it."""
    config.write_text(_STOCK_CONFIG)
    output = run_python(
        python, "-c", _TWO_PROGRAMS, str(config), MODEL_NAME="radiology/coralbay_random"
    )

    assert "a trainer alone loads []" in output
    assert "eva builds CoralBayEncoder 6" in output


def test_this_environment(tmp_path: pathlib.Path) -> None:
    check_environment(sys.executable, tmp_path / "stock.yaml")


@pytest.fixture(name="show")
def _show(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Returns what shows an error that ends a program in which eva has built a trainer."""
    importlib.import_module("eva.vision")  # what the plugin looks for
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    plugin.callbacks_factory()
    return lambda error: sys.excepthook(type(error), error, error.__traceback__)


def test_an_error_of_the_user_ends_a_program_with_its_message_alone(
    show: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    show(errors.DatasetError("Case 'a' has no label."))

    message, hint = capsys.readouterr().err.splitlines()
    assert message == "error: Case 'a' has no label."
    assert "EVA_CORALBAY_DEBUG=1" in hint


def test_a_bug_keeps_its_traceback(
    show: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    show(ValueError("a bug"))

    assert capsys.readouterr().err == "ValueError: a bug\n"


def test_on_request_so_does_an_error_of_the_user(
    show: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVA_CORALBAY_DEBUG", "1")
    show(errors.EvaCoralbayError("mine"))

    assert capsys.readouterr().err == "eva_coralbay.errors.EvaCoralbayError: mine\n"


def test_the_hook_of_a_debugger_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def hook(*_: object) -> None: ...

    monkeypatch.setattr(sys, "excepthook", hook)
    plugin.callbacks_factory()

    assert sys.excepthook is hook


@pytest.mark.slow
def test_eva_fit_prints_one_line(tmp_path: pathlib.Path) -> None:
    """A data set that is not there ends `eva fit` without a traceback, on the plugin's hook."""
    config = _ROOT / "configs/vision/radiology/online/segmentation/nnunet.yaml"
    result = subprocess.run(
        [sys.executable, "-m", "eva", "fit", "--config", str(config)],
        env={
            **os.environ,
            "DATA_ROOT": str(tmp_path / "nowhere"),
            "OUTPUT_ROOT": str(tmp_path / "logs"),
            "MODEL_NAME": "radiology/coralbay_random",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )

    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "\nerror: " in result.stderr and "nowhere" in result.stderr
