"""Tests who sees progress bars."""

import pathlib
import subprocess
import sys

import pytest

from eva_coralbay.cli import main

_GENERATE = """
from eva_coralbay.data import phantom
phantom.write_dataset({folder!r}, cases=2, val_cases=1, shape=(16, 16, 16))
"""


def test_from_python_nothing_is_drawn(tmp_path: pathlib.Path) -> None:
    script = _GENERATE.format(folder=str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_command_draws(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["phantom", str(tmp_path / "out"), "--cases", "2", "--val-cases", "1"]

    assert main.main(command) == 0
    assert "Generating phantoms" in capfd.readouterr().err


def test_only_one_module_draws() -> None:
    source = pathlib.Path(main.__file__).parents[1]
    users = [path for path in source.rglob("*.py") if "import tqdm" in path.read_text()]

    assert [path.name for path in users] == ["_progress.py"]
