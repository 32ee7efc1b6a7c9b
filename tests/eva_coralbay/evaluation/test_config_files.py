"""Tests that no value of a config is ignored without a word."""

import pathlib
import subprocess
import sys

import pytest

from eva_coralbay.cli import main
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import config_files

_CONFIGS = pathlib.Path(__file__).parents[3] / "configs/vision/radiology"


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of a task's config, with what it takes."""
    main.main(["config", "btcv", "--copy", str(tmp_path)])
    return tmp_path / "online/segmentation/btcv.yaml"


def _add(path: pathlib.Path, line: str) -> None:
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("  init_args:\n", f"  init_args:\n    {line}\n", 1))


@pytest.mark.parametrize(
    "path",
    [path for mode in ("online", "offline") for path in sorted((_CONFIGS / mode).rglob("*.yaml"))],
    ids=lambda path: f"{path.parts[-3]}-{path.stem}",
)
def test_the_configs_of_the_tasks_hide_nothing(path: pathlib.Path) -> None:
    config_files.check(["eva", "fit", "--config", str(path)])


@pytest.mark.parametrize("form", ["--config {}", "--config={}"])
def test_a_value_that_would_be_ignored_is_an_error(form: str, copy: pathlib.Path) -> None:
    _add(copy, "n_runs: 1")

    with pytest.raises(EvaCoralbayError) as error:
        config_files.check(["eva", "fit", *form.format(copy).split()])

    message = str(error.value)
    assert "sets trainer.init_args.n_runs, but" in message
    assert "Pass `--trainer.init_args.n_runs VALUE`" in message


def test_the_same_value_and_a_new_one_are_fine(copy: pathlib.Path) -> None:
    _add(copy, "precision: ${oc.env:PRECISION, 32-true}")
    _add(copy, "accumulate_grad_batches: 2")

    config_files.check(["eva", "fit", "--config", str(copy)])


def test_other_command_lines(tmp_path: pathlib.Path) -> None:
    for content in ("[1, 2]", "a: [", "trainer: {}"):
        (tmp_path / "other.yaml").write_text(content)
        config_files.check(["eva", "fit", "--config", str(tmp_path / "other.yaml")])
    config_files.check(["eva", "fit", "--config", str(tmp_path / "nowhere.yaml")])
    config_files.check(["pytest", "--config"])


@pytest.mark.slow
def test_eva_fit_says_so(copy: pathlib.Path, tmp_path: pathlib.Path) -> None:
    _add(copy, "n_runs: 1")

    result = subprocess.run(
        [sys.executable, "-m", "eva", "fit", "--config", str(copy)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert result.returncode != 0
    assert "sets trainer.init_args.n_runs, but" in result.stderr + result.stdout
