"""Tests that every config of a classification task runs on data in the true layout."""

import functools
import pathlib
import sys
from typing import Any

import jsonargparse
import pytest
import torch
from eva.core import interface
from eva.vision.data import tv_tensors
from eva.vision.models.networks.backbones import backbone_registry
from torch import nn

from eva_coralbay.cli import main as cli
from eva_coralbay.evaluation import ClassificationModule
from eva_coralbay.results import case_table, record
from eva_coralbay.tasks import catalog
from tests.eva_coralbay.data.datasets import classification_layouts as layouts
from tests.eva_coralbay.data.datasets.layouts import few_cases
from tests.eva_coralbay.evaluation import toy

_ROOT = pathlib.Path(__file__).parents[2] / "configs/vision/radiology"

_TASKS = ("cc_ccii", "luna25", "nodule_mnist_3d", "organ_mnist_3d")

_SMALL = {
    "MODEL_NAME": "radiology/coralbay_random",
    "ACCELERATOR": "cpu",
    "IN_FEATURES": "12",
    "ROI_SIZE": "[34, 34, 34]",
    "BATCH_SIZE": "2",
    "PREDICT_BATCH_SIZE": "2",
    "N_DATA_WORKERS": "0",
    "N_RUNS": "1",
    "MAX_STEPS": "2",
    "VAL_CHECK_INTERVAL": "2",
    "TQDM_REFRESH_RATE": "0",
}
"""What makes an evaluation small enough for a CPU."""


_TOY = "tests/toy"
"""The name of an encoder that takes no time."""


def _build_toy(feature_size: int, *, pooled: bool = True) -> nn.Module:
    """Builds an encoder that gives a vector, or two feature maps."""
    return toy.ToyEncoder(channels=[feature_size, 2 * feature_size], strides=[1, 4], pooled=pooled)


def _instantiate(
    mode: str, task: str, root: pathlib.Path, patch: pytest.MonkeyPatch, **environment: str
) -> Any:
    """Parses a config as eva's command does and builds what it names."""
    folders = {"DATA_ROOT": "data", "OUTPUT_ROOT": "out", "EMBEDDINGS_ROOT": "embeddings"}
    paths = {name: str(root / folder) for name, folder in folders.items()}
    for name, value in {**_SMALL, **paths, **environment}.items():
        patch.setenv(name, value)
    command = "predict_fit" if mode == "offline" else "fit"
    folder = _ROOT / mode if mode == "probe" else _ROOT / mode / "classification"
    path = folder / f"{task}.yaml"
    patch.chdir(root)
    patch.setattr(sys, "argv", ["eva", command, "--config", str(path)])
    parser = jsonargparse.auto_parser(
        interface.Interface, parser_mode="omegaconf", fail_untyped=False
    )
    return parser.instantiate_classes(parser.parse_args(sys.argv[1:]))[command]


def test_every_task_has_all_configs() -> None:
    for mode in ("online", "offline"):
        files = (_ROOT / mode / "classification").glob("*.yaml")
        assert sorted(path.stem for path in files) == sorted(_TASKS)
    assert {path.stem for path in (_ROOT / "probe").glob("*.yaml")} >= set(_TASKS)


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("task", _TASKS)
def test_two_steps_on_data_in_the_true_layout(
    task: str, mode: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = few_cases(task, monkeypatch, count=1 if task == "cc_ccii" else 2)
    (tmp_path / "data").mkdir()
    getattr(layouts, f"write_{task}")(tmp_path / "data", layouts.all_cases(splits))
    before = sorted((tmp_path / "data").rglob("*"))
    arguments = _instantiate(mode, task, tmp_path, monkeypatch)
    session = interface.Interface()
    run = session.fit if mode == "online" else session.predict_fit
    run(arguments.trainer, arguments.model, arguments.data)
    for part in ("val", "test"):
        for selection in ("last", "best"):
            (path,) = tmp_path.rglob(f"record_{part}_{selection}.json")
            read = record.Record.read(path)
            rows: Any = case_table.read(path.with_name(read.cases.file))
            cases = splits.schemes[splits.default][part]
            protocol = "frozen" if mode == "online" else "frozen-offline"
            assert (read.task.id, read.task.version, read.protocol) == (
                task,
                catalog.TASKS[task].version,
                protocol,
            )
            assert {row.case for row in rows} == set(cases)
            assert read.split.n == len(cases) and read.dataset.name == task
            assert read.model.weights_sha256 is not None and read.checkpoint.step == 2
            assert read.task.config_sha256 is not None
    assert sorted((tmp_path / "data").rglob("*")) == before


@pytest.mark.parametrize("task", _TASKS)
def test_a_probe_of_data_in_the_true_layout(
    task: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """With two cases of a class, of more classes than there are cases, and of two to a patient."""
    monkeypatch.setitem(backbone_registry._registry, _TOY, _build_toy)
    splits = few_cases(task, monkeypatch, count=2 if task == "cc_ccii" else 4)
    (tmp_path / "data").mkdir()
    getattr(layouts, f"write_{task}")(tmp_path / "data", layouts.all_cases(splits))
    arguments = _instantiate("probe", task, tmp_path, monkeypatch, MODEL_NAME=_TOY)
    # not earlier, as the trainer replaces the handlers of the log when it is built
    log: list[str] = request.getfixturevalue("log")
    interface.Interface().fit(arguments.trainer, arguments.model, arguments.data)

    has_missing = len(splits.schemes[splits.default]["train"]) < len(catalog.TASKS[task].labels)
    assert any("(0). All of them are used" in message for message in log) == has_missing

    for part in ("val", "test"):
        (path,) = tmp_path.rglob(f"record_{part}_last.json")
        read = record.Record.read(path)
        cases = splits.schemes[splits.default][part]
        assert (read.task.id, read.protocol, read.split.n) == (task, "probe", len(cases))
        assert {row.case for row in case_table.read(path.with_name(read.cases.file))} == {*cases}
        assert read.task.config_sha256 is not None and read.encoder is not None
        assert read.metrics["knn_balanced_accuracy"] is not None
        assert (tmp_path / path.with_name(f"curve_{part}.png")).is_file()


def test_probes_of_two_encoders_reach_the_page(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From `eva fit` over `curves`, `results` and `submit` to `validate` and `build`."""
    models = {_TOY: _build_toy, "tests/maps": functools.partial(_build_toy, pooled=False)}
    splits = few_cases("luna25", monkeypatch, count=8)
    (tmp_path / "data").mkdir()
    layouts.write_luna25(tmp_path / "data", layouts.all_cases(splits))
    for model, network in models.items():
        monkeypatch.setitem(backbone_registry._registry, model, network)
        arguments = _instantiate(
            "probe",
            "luna25",
            tmp_path,
            monkeypatch,
            MODEL_NAME=model,
            OUTPUT_ROOT=str(tmp_path / "logs" / model),
            ROI_SIZE="[64, 64, 64]",
        )
        interface.Interface().fit(arguments.trainer, arguments.model, arguments.data)

    logs, results = str(tmp_path / "logs"), str(tmp_path / "board/results")
    assert cli.main(["curves", logs]) == 0
    assert (tmp_path / "logs/curves.png").is_file()
    assert cli.main(["results", logs]) == 0
    assert cli.main(["leaderboard", "submit", logs, "--out", results]) == 0
    assert cli.main(["leaderboard", "validate", results]) == 0
    site = tmp_path / "site"
    assert cli.main(["leaderboard", "build", "--results", results, "--out", str(site)]) == 0
    page = (site / "track-classification-probe--luna25-2.html").read_text()
    assert "labeled training cases of each class" in page
    assert "balanced accuracy curve" in page and "knn auroc" in page
    assert "accuracy at 1" not in page


@pytest.mark.parametrize(
    ("task", "protocol", "scheme", "checkpoint"),
    [
        ("cc_ccii", "frozen", "v1@1", "last"),
        ("cc_ccii", "frozen-eva", "voco@1", "best"),
        ("organ_mnist_3d", "frozen-eva", "official@1", "best"),
    ],
)
def test_the_protocol_decides_scheme_and_checkpoint(
    task: str,
    protocol: str,
    scheme: str,
    checkpoint: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = _instantiate("online", task, tmp_path, monkeypatch, PROTOCOL=protocol)
    assert isinstance(arguments.model, ClassificationModule)
    assert arguments.data.datasets.train.split_name == scheme
    assert (arguments.data.datasets.test is None) == (scheme == "voco@1")
    assert arguments.trainer.checkpoint_type == checkpoint


def test_nodules_turn_in_training_only(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _instantiate("online", "luna25", tmp_path, monkeypatch).data.datasets
    noise = torch.rand(1, 40, 40, 40, generator=torch.Generator().manual_seed(0))
    nodule = tv_tensors.Volume(2000 * noise - 1000, affine=torch.eye(4, dtype=torch.float64))
    for part, turns in (("train", True), ("val", False), ("test", False)):
        transform = getattr(data, part).transforms
        assert torch.equal(transform(nodule), transform(nodule)) != turns
