"""Tests that every shipped config runs by plain `eva fit --config`."""

import os
import pathlib
import subprocess
import sys

import jsonargparse
import pandas as pd
import pytest
from eva.core import interface

from eva_coralbay.data import phantom
from eva_coralbay.evaluation import Recorder, SegmentationModule
from eva_coralbay.leaderboard import record
from eva_coralbay.models import CoralBayEncoder, registry

_ROOT = pathlib.Path(__file__).parents[2]
"""The top of the repository."""

_CONFIGS = sorted((_ROOT / "configs").rglob("*.yaml"))
"""Every shipped config."""

_NNUNET = _ROOT / "configs/vision/radiology/online/segmentation/nnunet.yaml"

_SMALL = {
    "MODEL_NAME": "radiology/coralbay_random",
    "ACCELERATOR": "cpu",
    "IN_FEATURES": "12",
    "ROI_SIZE": "[64, 64, 64]",
    "BATCH_SIZE": "1",
    "SAMPLE_BATCH_SIZE": "2",
    "N_DATA_WORKERS": "1",
    "N_RUNS": "1",
    "SW_OVERLAP": "0",
    "SW_MONITOR_OVERLAP": "0",
    "TQDM_REFRESH_RATE": "0",
}
"""What makes an evaluation small enough for a CPU."""


def _parser() -> jsonargparse.ArgumentParser:
    """The parser of eva's own command."""
    return jsonargparse.auto_parser(
        interface.Interface, parser_mode="omegaconf", fail_untyped=False
    )


def test_there_are_configs() -> None:
    assert _NNUNET in _CONFIGS


@pytest.mark.parametrize("path", _CONFIGS, ids=lambda path: path.stem)
def test_parses_and_instantiates(
    path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_NAME", "radiology/coralbay_random")
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path))
    parser = _parser()
    config = parser.parse_args(["fit", "--config", str(path)])
    arguments = parser.instantiate_classes(config).fit
    assert isinstance(arguments.model, SegmentationModule)
    assert any(isinstance(callback, Recorder) for callback in arguments.trainer.callbacks)
    registry.register_backbones()
    assert arguments.data.datasets.train.split == "train"


def _fit(root: pathlib.Path, out: pathlib.Path, **environment: str) -> list[pathlib.Path]:
    """Runs `eva fit` in a process of its own and returns the folders of its runs."""
    env = {**os.environ, **_SMALL, "DATA_ROOT": str(root), "OUTPUT_ROOT": str(out), **environment}
    command = [sys.executable, "-m", "eva", "fit", "--config", str(_NNUNET)]
    subprocess.run(command, env=env, check=True, cwd=out.parent)
    return sorted(path.parent for path in out.rglob("record_val_last.json"))


def _cases(run: pathlib.Path) -> pd.DataFrame:
    return pd.read_csv(run / "record_val_last.cases.csv")


@pytest.mark.slow
def test_equal_numbers_in_two_processes(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "phantom"
    phantom.write_dataset(str(root), cases=6, val_cases=2, seed=0)
    short = {"MAX_STEPS": "3", "VAL_CHECK_INTERVAL": "3", "SPACING": "[6.0, 6.0, 6.0]"}
    three = _fit(root, tmp_path / "three", N_RUNS="3", **short)
    again = _fit(root, tmp_path / "again", N_RUNS="3", **short)
    alone = _fit(root, tmp_path / "alone", SEED="2", **short)
    assert [len(runs) for runs in (three, again, alone)] == [3, 3, 1]
    for first, second in zip(three, again, strict=True):
        pd.testing.assert_frame_equal(_cases(first), _cases(second), check_exact=True)
    pd.testing.assert_frame_equal(_cases(three[2]), _cases(alone[0]), check_exact=True)
    assert not _cases(three[0]).equals(_cases(three[1]))
    assert (three[2] / "config.yaml").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["frozen", "scratch"])
def test_evaluates_real_ct(tmp_path: pathlib.Path, protocol: str) -> None:
    real_data = os.environ.get("EVA_CORALBAY_REAL_DATA")
    if not real_data:
        pytest.skip("EVA_CORALBAY_REAL_DATA is not set: no folder of real scans.")
    root = pathlib.Path(real_data) / "openkbp_oar"
    short = {"MAX_STEPS": "20", "VAL_CHECK_INTERVAL": "20", "SPACING": "[6.0, 6.0, 6.0]"}
    (run,) = _fit(root, tmp_path / "out", PROTOCOL=protocol, **short)
    entry = record.Record.read(run / "record_val_last.json")
    cases = _cases(run)
    assert entry.protocol == protocol
    assert entry.split.n == cases["case"].nunique() == 12
    assert set(cases["class"]) == {
        "Brainstem",
        "SpinalCord",
        "RightParotid",
        "LeftParotid",
        "Mandible",
    }
    assert entry.model.weights_sha256 is not None
    assert entry.metrics["dice"] is not None and 0.0 <= entry.metrics["dice"] <= 1.0
    assert (run / "cases_val.png").is_file()


def test_encoder_of_the_default_config_is_ours() -> None:
    from eva.vision.models import ModelFromRegistry

    registry.register_backbones()
    model = ModelFromRegistry("radiology/coralbay_random", {"feature_size": 12, "out_indices": 6})
    assert isinstance(model.model, CoralBayEncoder)
