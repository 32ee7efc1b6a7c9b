"""Tests who sees progress bars."""

import pathlib
import re
import subprocess
import sys
import time

import pytest

from eva_coralbay import _progress
from eva_coralbay.cli import main

_GENERATE = """
from eva_coralbay.data import phantom
phantom.write_dataset({folder!r}, cases=2, val_cases=1, shape=(16, 16, 16))
"""


def test_from_python_nothing_is_drawn(tmp_path: pathlib.Path) -> None:
    script = _GENERATE.format(folder=str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_command_draws_in_a_terminal_only(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pipe", "terminal"):
        command = ["phantom", str(tmp_path / name), "--cases", "2", "--val-cases", "1"]
        monkeypatch.setattr(sys.stderr, "isatty", lambda name=name: name == "terminal")

        assert main.main(command) == 0
        assert ("Generating phantoms" in capsys.readouterr().err) == (name == "terminal")


def test_long_work_draws_in_a_log_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_progress, "is_shown", True)
    monkeypatch.setattr(_progress, "SECONDS_IN_A_LOG", 0.05)

    for _ in _progress.bar(range(3), desc="Working"):
        time.sleep(0.06)

    assert "Working" in capsys.readouterr().err


def test_a_bar_of_scans_moves_within_a_scan(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate and the time that is left are there before the first scan is done."""
    monkeypatch.setattr(_progress, "is_shown", True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = _progress.ScanBar(3, done=1)
    for window in (1, 2):
        # a bar is drawn ten times a second
        time.sleep(0.11)
        bar.move("a", window / 4, f"window {window} of 4")
    drawn = capsys.readouterr().err
    bar.move("b", 0.5, "window 1 of 2")
    for scan in "ab":
        bar.finish(scan)
    bar.close()

    time_and_rate = r"\[00:00<00:00, +[\d.]+(scan/s|s/scan)"
    assert re.search(rf"1\.25/3 {time_and_rate}, window 1 of 4", drawn)
    assert re.search(rf"1\.50/3 {time_and_rate}, window 2 of 4", drawn)
    assert re.search(r"100%\|.*\| 3\.00/3 ", capsys.readouterr().err)


def test_only_one_module_draws() -> None:
    source = pathlib.Path(main.__file__).parents[1]
    users = [path for path in source.rglob("*.py") if "import tqdm" in path.read_text()]

    assert [path.name for path in users] == ["_progress.py"]
