"""Tests the commands below `eva-coralbay pretrain`."""

import json
import pathlib

import pytest

from eva_coralbay.cli import main
from eva_coralbay.data import phantom
from tests.eva_coralbay.pretraining import runs, small_config, stores


@pytest.fixture(name="pretrained", scope="module")
def _pretrained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Trains for two steps, and returns the folder with the store and the run."""
    folder = tmp_path_factory.mktemp("pretraining")
    store = stores.write_store(folder / "store", cases=2)
    with pytest.MonkeyPatch.context() as patch:
        runs.fit_heads_to_few_samples(patch)
        small_config.set_environment(patch, STORE=store, OUTPUT_ROOT=str(folder / "run"))
        assert main.main(["pretrain", "fit", "--config", small_config.PATH]) == 0
    return folder


def test_pretrain_fit_leaves_a_checkpoint_and_curves(pretrained: pathlib.Path) -> None:
    run = pretrained / "run"
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step=2.ckpt"]
    assert "train/loss" in (run / "metrics.csv").read_text()
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_pretrain_export(pretrained: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, out = pretrained / "run/checkpoints/step=2.ckpt", pretrained / "encoder"
    exit_code = main.main(["pretrain", "export", str(checkpoint), "--out", str(out)])

    assert exit_code == 0
    assert capsys.readouterr().out == f"encoder: {out}\n"
    names = {path.name for path in out.iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors"}


def test_pretrain_views_are_those_of_the_config(
    pretrained: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_config.set_environment(monkeypatch)
    arguments = [str(pretrained / "store"), "--case", "case_1", "--config", small_config.PATH]
    path = pretrained / "views.png"
    exit_code = main.main(["pretrain", "views", *arguments, "--out", str(path)])

    assert exit_code == 0
    assert capsys.readouterr().out == f"picture: {path}\n"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_pretrain_prepare_counts_all_that_is_excluded(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phantom.write_dataset(str(tmp_path / "scans"), cases=3, val_cases=1, shape=(24, 24, 24))
    arguments = [str(tmp_path / "scans"), "--out", str(tmp_path / "store"), "--workers", "1"]
    excluded = ["--exclude", "*phantom_000*", "--exclude", "*phantom_002*"]
    exit_code = main.main(
        ["pretrain", "prepare", *arguments, *excluded, "--spacing", "6", "6", "6"]
    )

    assert exit_code == 0
    content = json.loads((tmp_path / "store/manifest.json").read_text())
    (case,) = content["cases"]
    assert "phantom_001" in case["case"] and case["status"] == "prepared"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.init_args.clip_nrom=1.0"], "eva-coralbay: error: The config is wrong: "),
        (["--dry-run"], "eva-coralbay: error: 'nowhere/manifest.json': "),
        ([], "eva-coralbay: error: 'nowhere/manifest.json': "),
    ],
)
def test_pretrain_fit_with_wrong_input_is_one_message(
    arguments: list[str],
    message: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small_config.set_environment(monkeypatch, STORE="nowhere", OUTPUT_ROOT=str(tmp_path / "run"))
    exit_code = main.main(["pretrain", "fit", "--config", small_config.PATH, *arguments])

    assert exit_code == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1 and errors[0].startswith(message)
