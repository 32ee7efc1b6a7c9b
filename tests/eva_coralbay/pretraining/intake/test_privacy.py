"""Tests that damaged headers tell of no patient: not in output, logs, warnings or the store."""

import pathlib
import random
import subprocess
import sys

import pytest

from tests.eva_coralbay.pretraining import marked_headers, scans

_PREPARE = """
import sys
from eva_coralbay.cli import main
sys.exit(main.main(["pretrain", "prepare", sys.argv[1], "--out", sys.argv[2], "--workers", "1",
                    "--spacing", "3", "3", "3"]))
"""


def _prepare_damaged(folder: pathlib.Path, *, series: int) -> str:
    """Prepares damaged series, and returns all that was said and written."""
    generator = random.Random(0)
    for number in range(series):
        array = scans.hounsfield(seed=number)
        source = scans.write_series(
            folder / "source" / f"{number}", array, change=marked_headers.mark
        )
        files = sorted(source.iterdir())
        # in some all files are damaged, so that something is read of a series at all
        for path in files if number % 2 else generator.sample(files, 1):
            path.write_bytes(marked_headers.damage(path.read_bytes(), generator))
    store = folder / "store"
    command = [sys.executable, "-W", "always", "-c", _PREPARE, folder / "source", store]
    done = subprocess.run([str(part) for part in command], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert (store / "manifest.json").exists()
    written = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    names = "\n".join(str(path) for path in store.rglob("*"))
    return (done.stdout + done.stderr + written).decode("latin-1") + names


def test_damaged_headers_tell_of_no_patient(tmp_path: pathlib.Path) -> None:
    assert marked_headers.MARK not in _prepare_damaged(tmp_path, series=4)


@pytest.mark.slow
def test_thousands_of_damaged_headers_tell_of_no_patient(tmp_path: pathlib.Path) -> None:
    """More than 2,000 files: in every other series all 14, in the others one."""
    assert marked_headers.MARK not in _prepare_damaged(tmp_path, series=290)
