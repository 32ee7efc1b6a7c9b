"""Tests that damaged headers tell of no patient: not in output, logs, warnings or the store."""

import pathlib
import random
import subprocess
import sys
from typing import Any

import pydicom
import pytest

from tests.eva_coralbay.pretraining import scans

_MARK = "QZXJV"
"""What all values have in them that could tell of a patient, and nothing else has."""

_PREPARE = """
import sys
from eva_coralbay.cli import main
sys.exit(main.main(["pretrain", "prepare", sys.argv[1], "--out", sys.argv[2], "--workers", "1",
                    "--spacing", "3", "3", "3"]))
"""


def _mark(_: int, header: pydicom.Dataset) -> None:
    """Marks the values of a header that tell of a patient."""
    marked: dict[str, Any] = {
        "PatientName": f"{_MARK}^Name", "PatientID": f"{_MARK}1", "PatientAddress": f"{_MARK} St",
        "OtherPatientNames": f"{_MARK}^Other", "InstitutionName": f"{_MARK} Hospital",
        "ReferringPhysicianName": f"{_MARK}^Physician", "StudyDescription": f"{_MARK} study",
        "AccessionNumber": f"{_MARK}2", "StudyID": f"{_MARK}3", "SeriesDescription": _MARK,
        "PatientComments": f"{_MARK} " * 20, "StationName": _MARK,
    }  # fmt: skip
    for tag, value in marked.items():
        setattr(header, tag, value)
    header.PatientBirthDate = "19500101"
    header.add_new(0x00091001, "LO", f"{_MARK} private")


def _damage(content: bytes, generator: random.Random) -> bytes:
    """Returns a file with damage in its header."""
    damaged = bytearray(content)
    kind = generator.randrange(4)
    marks = [place for place in range(len(content)) if content.startswith(_MARK.encode(), place)]
    if kind == 0:  # any bytes
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(132, marks[-1])] = generator.randrange(256)
    elif kind == 1:  # the length before a value that tells of a patient
        damaged[generator.choice(marks) - generator.choice((1, 2))] = generator.randrange(256)
    elif kind == 2:  # its representation or tag
        damaged[generator.choice(marks) - generator.randint(3, 8)] = generator.randrange(256)
    else:  # bytes that were lost
        place = generator.randrange(132, marks[-1])
        del damaged[place : place + generator.randint(1, 20)]
    return bytes(damaged)


def _prepare_damaged(folder: pathlib.Path, *, series: int) -> str:
    """Prepares damaged series, and returns all that was said and written."""
    generator = random.Random(0)
    for number in range(series):
        array = scans.hounsfield(seed=number)
        source = scans.write_series(folder / "source" / f"{number}", array, change=_mark)
        files = sorted(source.iterdir())
        # in some all files are damaged, so that something is read of a series at all
        for path in files if number % 2 else generator.sample(files, 1):
            path.write_bytes(_damage(path.read_bytes(), generator))
    store = folder / "store"
    command = [sys.executable, "-W", "always", "-c", _PREPARE, folder / "source", store]
    done = subprocess.run([str(part) for part in command], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert (store / "manifest.json").exists()
    written = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    names = "\n".join(str(path) for path in store.rglob("*"))
    return (done.stdout + done.stderr + written).decode("latin-1") + names


def test_damaged_headers_tell_of_no_patient(tmp_path: pathlib.Path) -> None:
    assert _MARK not in _prepare_damaged(tmp_path, series=8)


@pytest.mark.slow
def test_thousands_of_damaged_headers_tell_of_no_patient(tmp_path: pathlib.Path) -> None:
    """More than 2,000 files: in every other series all 14, in the others one."""
    assert _MARK not in _prepare_damaged(tmp_path, series=290)
