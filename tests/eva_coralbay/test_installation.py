"""Tests the wheel in an environment that has nothing else, away from the clone."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.eva_coralbay import test_plugin

_ROOT = pathlib.Path(__file__).parents[2]
"""The top of the repository."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv to make an environment"),
]


@pytest.fixture(name="environment", scope="module")
def _environment(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Installs the wheel into a new environment, and returns the folder of the environment."""
    folder = tmp_path_factory.mktemp("installation")
    environment = folder / "environment"
    for command in (
        ["uv", "build", "--wheel", "--out-dir", folder / "dist", _ROOT],
        ["uv", "venv", "--python", sys.executable, environment],
    ):
        subprocess.run(command, check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    install = ["uv", "pip", "install", "--python", environment / "bin" / "python", wheel]
    subprocess.run(install, check=True)
    return environment


def _run(environment: pathlib.Path, folder: pathlib.Path, script: str, **variables: str) -> str:
    """Runs a shell script in a folder with the programs of an environment, returns its output."""
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": "", **variables},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout


def test_names_are_known_to_eva(environment: pathlib.Path, tmp_path: pathlib.Path) -> None:
    python, config = str(environment / "bin" / "python"), tmp_path / "stock.yaml"
    test_plugin.check_environment(python, config)
    printed = test_plugin.run_python(
        python, "-m", "eva", "fit", "--config", str(config), "--print_config", MODEL_NAME="a/name"
    )
    assert "model_name: a/name" in printed


def test_trains_and_scores_by_the_config_in_it(
    environment: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    script = """
        eva-coralbay phantom data/phantom --cases 3 --val-cases 1
        eva fit --config "$(eva-coralbay config phantom)"
        eva-coralbay results logs
    """
    printed = _run(environment, tmp_path, script, MAX_STEPS="2", VAL_CHECK_INTERVAL="2")

    assert "dice_spleen" in printed
    (record,) = tmp_path.rglob("record_val_last.json")
    assert record.with_name("config.yaml").is_file()
