"""Tests that every shipped config runs by plain `eva fit --config`."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jsonargparse
import pandas as pd
import pytest
from eva.core import interface
from eva.vision.models.networks.backbones import backbone_registry
from torch import nn

from eva_coralbay.data import phantom
from eva_coralbay.models import CoralBayEncoder, registry
from eva_coralbay.pretraining import fit
from eva_coralbay.results import record
from eva_coralbay.tasks import catalog
from tests.eva_coralbay.data.datasets import layouts, task_layouts
from tests.eva_coralbay.evaluation import toy

_ROOT = pathlib.Path(__file__).parents[2]
"""The top of the repository."""

_CONFIGS = sorted((_ROOT / "configs/vision/radiology/online/segmentation").glob("*.yaml"))
"""The configs of the segmentation tasks."""

_PROBES = [
    path
    for path in sorted((_ROOT / "configs/vision/radiology/probe").glob("*.yaml"))
    if path.stem not in catalog.TASKS or catalog.TASKS[path.stem].kind == "segmentation"
]
"""The configs of the dense linear probes."""

_PRETRAINING = sorted((_ROOT / "configs/vision/radiology/pretraining").glob("*.yaml"))
"""The configs of the pre-training."""

_ALL_CONFIGS = sorted(
    path
    for mode in ("online", "offline")
    for path in (_ROOT / "configs/vision/radiology" / mode).rglob("*.yaml")
)
"""The configs of all tasks."""

_NNUNET = _ROOT / "configs/vision/radiology/online/segmentation/nnunet.yaml"

_CASES = 1
"""How many cases of each split the generated data sets have."""

_OURS = "radiology/coralbay_random"
"""The name of our encoder."""

_TOY = "tests/toy"
"""The name of an encoder that takes no time."""

_SMALL = {
    "MODEL_NAME": _OURS,
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


def _build_toy(feature_size: int) -> nn.Module:
    """Builds an encoder of the shapes of our encoder's six maps."""
    return toy.ToyEncoder(
        channels=[factor * feature_size for factor in (1, 1, 2, 4, 8, 16)],
        strides=[2**level for level in range(6)],
    )


def _instantiate(path: pathlib.Path, patch: pytest.MonkeyPatch, **environment: str) -> Any:
    """Parses a config as eva's command does and builds what it names."""
    for name, value in {**_SMALL, **environment}.items():
        patch.setenv(name, value)
    patch.setattr(sys, "argv", ["eva", "fit", "--config", str(path)])
    parser = jsonargparse.auto_parser(
        interface.Interface, parser_mode="omegaconf", fail_untyped=False
    )
    return parser.instantiate_classes(parser.parse_args(sys.argv[1:])).fit


def _write_data(name: str, root: pathlib.Path, patch: pytest.MonkeyPatch) -> None:
    """Writes small generated scans in the layout of a task."""
    if name in ("msd", "nnunet", "phantom"):
        phantom.write_dataset(
            str(root), cases=3, val_cases=1, shape=(24, 24, 24), spacing_mm=(13.0, 18.0, 18.0)
        )
        if name == "msd":
            _turn_into_decathlon(root)
        return
    splits = layouts.few_cases(name, patch, count=_CASES)
    task_layouts.WRITERS[name](root, sorted(set(sum(splits.schemes[splits.default].values(), []))))


def _turn_into_decathlon(root: pathlib.Path) -> None:
    """Renames the images of a data set for nnU-Net, and lists the cases in `dataset.json`."""
    for path in (root / "imagesTr").iterdir():
        path.rename(path.with_name(path.name.replace("_0000", "")))
    names = sorted(path.name for path in (root / "labelsTr").iterdir())
    description = json.loads((root / "dataset.json").read_text())
    training = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    labels = {str(value): name for name, value in description["labels"].items()}
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "training": training}))


@pytest.mark.slow
@pytest.mark.parametrize("path", _ALL_CONFIGS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_parses_and_instantiates(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run by `nox -s configs` on every jsonargparse that is allowed; elsewhere two steps are."""
    arguments = _instantiate(path, monkeypatch)
    assert arguments.data.datasets.train.split == "train"


@pytest.mark.slow
@pytest.mark.parametrize("path", _PRETRAINING, ids=lambda path: path.stem)
def test_pretraining_parses_and_instantiates(path: pathlib.Path) -> None:
    trainer, _, data = fit.build(["--config", str(path)])
    assert trainer.max_steps > 0 and data.views == fit.read_views(str(path))


@pytest.mark.parametrize("path", _CONFIGS, ids=lambda path: path.stem)
def test_two_steps_on_data_in_the_true_layout(
    path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of our encoder with one config, with the others of one that takes no time."""
    monkeypatch.setitem(backbone_registry._registry, _TOY, _build_toy)
    model, features = (_OURS, "12") if path == _NNUNET else (_TOY, "2")
    _write_data(path.stem, tmp_path / "data", monkeypatch)
    arguments = _instantiate(
        path,
        monkeypatch,
        MODEL_NAME=model,
        IN_FEATURES=features,
        DATA_ROOT=str(tmp_path / "data"),
        OUTPUT_ROOT=str(tmp_path / "out"),
        MAX_STEPS="2",
        VAL_CHECK_INTERVAL="2",
        SAMPLE_BATCH_SIZE="1",
        N_DATA_WORKERS="0",
        SPACING="[13.0, 18.0, 18.0]" if path.stem == "phantom" else "[3.0, 3.0, 3.0]",
    )
    interface.Interface().fit(arguments.trainer, arguments.model, arguments.data)

    entries = [record.Record.read(file) for file in (tmp_path / "out").rglob("record_*_last.json")]
    assert {entry.task.id for entry in entries} == {path.stem}
    assert {entry.protocol for entry in entries} == {"frozen"}
    known = arguments.data.datasets
    parts = {name for name in ("val", "test") if getattr(known, name) is not None}
    assert {entry.split.part for entry in entries} == parts
    assert all(entry.task.config_sha256 for entry in entries)


@pytest.mark.parametrize("path", _PROBES, ids=lambda path: path.stem)
def test_a_probe_of_data_in_the_true_layout(
    path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path.stem == "msd":
        pytest.skip("as nnunet, in a layout that the data set's own tests read")
    monkeypatch.setitem(backbone_registry._registry, _TOY, _build_toy)
    _write_data(path.stem, tmp_path / "data", monkeypatch)
    arguments = _instantiate(
        path,
        monkeypatch,
        MODEL_NAME=_TOY,
        IN_FEATURES="2",
        DATA_ROOT=str(tmp_path / "data"),
        OUTPUT_ROOT=str(tmp_path / "out"),
        N_DATA_WORKERS="0",
        SPACING="[13.0, 18.0, 18.0]" if path.stem == "phantom" else "[3.0, 3.0, 3.0]",
    )
    interface.Interface().fit(arguments.trainer, arguments.model, arguments.data)

    entries = [record.Record.read(file) for file in (tmp_path / "out").rglob("record_*.json")]
    assert entries
    assert {(entry.task.id, entry.protocol) for entry in entries} == {(path.stem, "probe")}
    assert all(entry.task.config_sha256 for entry in entries)
    known = catalog.TASKS.get(path.stem)
    counts_lesions = known is not None and known.lesion_classes != ()
    for entry in entries:
        assert any(name.startswith("lesion_") for name in entry.metrics) == counts_lesions


def test_every_task_has_a_config() -> None:
    kinds = {name for name, dataset in catalog.TASKS.items() if dataset.kind == "segmentation"}
    for paths in (_CONFIGS, _PROBES):
        assert {path.stem for path in paths} == kinds | {"msd", "nnunet", "phantom"}


@pytest.mark.parametrize(("name", "scheme"), [("btcv", "voco"), ("flare22", "eva")])
def test_frozen_eva_repeats_the_protocol_of_eva(
    monkeypatch: pytest.MonkeyPatch, name: str, scheme: str
) -> None:
    path = _NNUNET.with_name(f"{name}.yaml")
    for name in ("SW_OVERLAP", "SW_MONITOR_OVERLAP"):
        monkeypatch.setitem(_SMALL, name, "null")
    arguments = _instantiate(path, monkeypatch, PROTOCOL="frozen-eva")

    assert arguments.trainer.checkpoint_type == "best"
    assert arguments.trainer.max_steps == 20000
    assert arguments.model.overlap == arguments.model.monitor_overlap == 0.75
    assert arguments.data.datasets.train.split_name.startswith(f"{scheme}@")
    assert arguments.data.datasets.test is None


def _fit(root: pathlib.Path, out: pathlib.Path, **environment: str) -> list[pathlib.Path]:
    """Runs `eva fit` in a process of its own and returns the folders of its runs."""
    env = {**os.environ, **_SMALL, "DATA_ROOT": str(root), "OUTPUT_ROOT": str(out), **environment}
    command = [sys.executable, "-m", "eva", "fit", "--config", str(_NNUNET)]
    subprocess.run(command, env=env, check=True, cwd=out.parent)
    return sorted(path.parent for path in out.rglob("record_val_last.json"))


def _find_real_data() -> pathlib.Path:
    real_data = os.environ.get("EVA_CORALBAY_REAL_DATA")
    if not real_data:
        pytest.skip("EVA_CORALBAY_REAL_DATA is not set: no folder of real scans.")
    return pathlib.Path(real_data) / "openkbp_oar"


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
    root = _find_real_data()
    short = {"MAX_STEPS": "20", "VAL_CHECK_INTERVAL": "20", "SPACING": "[6.0, 6.0, 6.0]"}
    store = {"PREPARED_ROOT": str(tmp_path / "store")}
    (run,) = _fit(root, tmp_path / "out", PROTOCOL=protocol, **store, **short)
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


@pytest.mark.slow
@pytest.mark.parametrize("data", ["phantom", "openkbp_oar"])
def test_the_store_changes_a_case_table_by_no_more_than_the_rounding(
    tmp_path: pathlib.Path, data: str
) -> None:
    root = _find_real_data() if data == "openkbp_oar" else tmp_path / data
    if data == "phantom":
        phantom.write_dataset(str(root), cases=6, val_cases=2, seed=0)
    short = {"MAX_STEPS": "3", "VAL_CHECK_INTERVAL": "3", "SPACING": "[6.0, 6.0, 6.0]"}
    store = {"PREPARED": "true", "PREPARED_ROOT": str(tmp_path / "store")}
    (stored,) = _fit(root, tmp_path / "stored", **store, **short)
    (loaded,) = _fit(root, tmp_path / "loaded", PREPARED="false", **short)

    assert any((tmp_path / "store").rglob("*.scan"))
    assert not (root / "prepared").exists()
    stored_cases, loaded_cases = _cases(stored), _cases(loaded)
    columns = ["case", "class", "metric", "truth_voxels"]
    pd.testing.assert_frame_equal(stored_cases[columns], loaded_cases[columns])
    values = (stored_cases["value"] - loaded_cases["value"]).abs()
    sizes = (stored_cases["predicted_voxels"] - loaded_cases["predicted_voxels"]).abs()
    # three voxels of a class of which next to nothing is predicted
    sizes /= loaded_cases["predicted_voxels"].clip(lower=100)
    is_distance = stored_cases["metric"].str.startswith("hd95")
    shares, distances = values[~is_distance].max(), values[is_distance].max()
    print(f"{data}: largest differences {shares:.5f}, {distances:.2f} mm, {sizes.max():.2%} voxels")
    # a sixth of a voxel, for the distances
    assert shares <= 0.005 and distances <= 1.0 and sizes.max() <= 0.03


def test_encoder_of_the_default_config_is_ours() -> None:
    from eva.vision.models import ModelFromRegistry

    registry.register_backbones()
    model = ModelFromRegistry("radiology/coralbay_random", {"feature_size": 12, "out_indices": 6})
    assert isinstance(model.model, CoralBayEncoder)
