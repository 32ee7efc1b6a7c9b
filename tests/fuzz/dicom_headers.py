"""DICOM series with damaged headers, in which all that tells of a patient is marked.

No command may say or write a mark: not to the terminal or a log, in no file, and in no picture,
which has to be the same for two patients of other names.
"""

import contextlib
import gzip
import os
import pathlib
import random as random_lib
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from loguru import logger
from PIL import Image
from pyarrow import parquet

from eva_coralbay.cli import main
from tests.eva_coralbay.pretraining import marked_headers, scans
from tests.fuzz import kill_folder, kill_inputs
from tests.fuzz.campaign import Kind

_OTHER = "KWPYG"
"""The mark of the second patient, which is as long as that of the first one."""

_ENCODER = (
    "--model", "radiology/coralbay_random", "--kwarg", "feature_size=12", "--window", "64", "32",
    "32", "--spacing", "3", "3", "3",
)  # fmt: skip

_COMMANDS: Sequence[Sequence[str]] = (
    ("pretrain", "prepare", "source", "--out", "store", "--workers", "1", "--spacing", *"333"),
    ("embed", "source", *_ENCODER, "--workers", "1", "--devices", "cpu", "--out", "table.parquet"),
    ("segment", "source", "--run", "run", "--overlay", "--device", "cpu", "--out", "labels"),
)
"""The commands that read DICOM series."""


def _write(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    array = scans.hounsfield(seed=int(random.integers(1000)))
    series = scans.write_series(folder / "source" / "series", array, change=marked_headers.mark)
    files = sorted(series.iterdir())
    generator = random_lib.Random(int(random.integers(2**63)))
    # mostly all, so that many are damaged, and else one: something is read of the series then
    for path in files if random.random() < 0.7 else generator.sample(files, 1):
        path.write_bytes(marked_headers.damage(path.read_bytes(), generator))
    return folder / "source"


def _read(source: pathlib.Path) -> list[str]:
    """Runs the commands for both patients, and returns where something of them is found."""
    marked = source.parent
    other = marked.with_name(f"{marked.name}-other")
    shutil.copytree(marked, other)
    for path in (other / "source" / "series").iterdir():
        content = path.read_bytes().replace(marked_headers.MARK.encode(), _OTHER.encode())
        path.write_bytes(content)
    try:
        for folder in (marked, other):
            _run_commands(folder)
        found = [*_find(marked, marked_headers.MARK), *_find(other, _OTHER)]
        return [*found, *_compare_pictures(marked, other)]
    finally:
        shutil.rmtree(other)


def _run_commands(folder: pathlib.Path) -> None:
    kill_inputs.make("probe", kill_folder.FOLDER)
    (folder / "tmp").mkdir()
    (folder / "run").symlink_to(kill_folder.FOLDER / "probe" / "session" / "run_0")
    with _heard(folder / "said.txt"), _in(folder):
        for command in _COMMANDS:
            status = main.main(command)
            if status not in (0, 1):
                raise AssertionError(f"{command[0]} ends with {status}")


@contextlib.contextmanager
def _heard(path: pathlib.Path) -> Iterator[None]:
    """Writes what this process says, with all warnings, into a file."""
    before = [os.dup(number) for number in (1, 2)]
    with (
        path.open("a", encoding="utf-8") as file,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        warnings.simplefilter("always")
        sink = logger.add(file)
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            logger.remove(sink)
            for number, old in zip((1, 2), before, strict=True):
                os.dup2(old, number)
                os.close(old)


@contextlib.contextmanager
def _in(folder: pathlib.Path) -> Iterator[None]:
    """Makes a folder the current one, with temporary files in it."""
    place, temporary = pathlib.Path.cwd(), tempfile.tempdir
    os.chdir(folder)
    tempfile.tempdir = str(folder / "tmp")
    try:
        yield
    finally:
        os.chdir(place)
        tempfile.tempdir = temporary


def _find(folder: pathlib.Path, mark: str) -> list[str]:
    """Returns the files with a mark in their content or name."""
    written = [
        path
        for path in folder.rglob("*")
        if not path.is_relative_to(folder / "source") and not path.is_symlink()
    ]
    return [
        str(path.relative_to(folder))
        for path in written
        if mark.lower() in f"{path.relative_to(folder)}\n{_text_of(path)}".lower()
    ]


def _text_of(path: pathlib.Path) -> str:
    """Returns all text that a file may hold, also where it is compressed."""
    if not path.is_file():
        return ""
    content: Any = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    elif path.suffix == ".parquet":
        table = parquet.read_table(path)
        return f"{table.drop_columns('embedding').to_pylist()}\n{table.schema.metadata}"
    elif path.suffix == ".png":
        with Image.open(path) as image:
            return f"{image.info}"
    return content.decode("latin-1")


def _compare_pictures(first: pathlib.Path, second: pathlib.Path) -> list[str]:
    """Returns the pictures of two patients that differ, or that one of them lacks."""
    pictures = [{path.name: path.read_bytes() for path in one.glob("labels/*.png")}
                for one in (first, second)]  # fmt: skip
    names = pictures[0].keys() | pictures[1].keys()
    return [name for name in names if pictures[0].get(name) != pictures[1].get(name)]


def _check(_: pathlib.Path, found: list[str]) -> str | None:
    return f"something of a patient is in {found}" if found else None


# six commands an input, some of which import what they compute with
HEADERS = Kind(
    "headers", _write, _read, _check, inputs=220, max_seconds=180.0, max_growth=1024 * 2**20
)
