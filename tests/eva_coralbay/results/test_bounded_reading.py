"""Tests of the reader of what strangers have written."""

import os
import pathlib
import time

import pytest

from eva_coralbay.results import bounded_reading

_BOMB = "a: &a [x]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""A few hundred bytes that stand for 9^8 values."""


def _write(folder: pathlib.Path, content: str) -> pathlib.Path:
    path = folder / "file"
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_BOMB, "stands for more than 20000 values"),
        ("[" * 100 + "]" * 100, "nested more than 60 deep"),
        ("[" * 90_000, "nested more than 60 deep"),
        ("a: &a [*a]", "nested more than 60 deep"),
        ("a: " + "1" * 5000, "a number has 5000 characters"),
        ("a: " + "1:" * 40_000 + "1", "a number has 80001 characters"),
        ('"\\ud800"', "half of a surrogate pair"),
        ("a: [", "expected the node content"),
        ("{[a]: 1}", "unhashable"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ],
)
def test_yaml_that_harms_is_refused_at_once(
    tmp_path: pathlib.Path, content: str, message: str
) -> None:
    path = _write(tmp_path, content)
    before = time.process_time()
    with pytest.raises(bounded_reading.ForeignFileError, match=message) as error:
        bounded_reading.read_yaml(path, max_bytes=100_000)
    assert str(path) in str(error.value)
    assert time.process_time() - before < 5


def test_dates_are_text(tmp_path: pathlib.Path) -> None:
    """One that is none, too."""
    path = _write(tmp_path, "a: 2026-01-01\nb: 2026-13-45\nc: {d: 1.5e-3, e: 0x10}")
    read = bounded_reading.read_yaml(path, max_bytes=100)
    assert read == {"a": "2026-01-01", "b": "2026-13-45", "c": {"d": 1.5e-3, "e": 16}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ('{"\\udfff": 1}', "half of a surrogate pair"),
        ('{"a": 1, "a": 2}', "`a` appears twice"),
        ("[NaN]", "NaN is not a value in JSON"),
        ("[" * 70 + "]" * 70, "nested more than 60 deep"),
        ("[" * 50_000, "is not a JSON file"),
    ],
)
def test_json_that_harms_is_refused(tmp_path: pathlib.Path, content: str, message: str) -> None:
    with pytest.raises(bounded_reading.ForeignFileError, match=message):
        bounded_reading.read_json(_write(tmp_path, content), max_bytes=100_000)


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: pathlib.Path) -> None:
    """A device never ends, and a pipe waits for its other end."""
    (tmp_path / "device").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    for name in ("device", "pipe", "."):
        with pytest.raises(bounded_reading.ForeignFileError, match="is not a regular file"):
            bounded_reading.read_json(tmp_path / name, max_bytes=100)
    with pytest.raises(bounded_reading.ForeignFileError, match="has 101 bytes.* at most 100"):
        bounded_reading.read_json(_write(tmp_path, "1" * 101), max_bytes=100)
    with pytest.raises(bounded_reading.ForeignFileError, match="No such file"):
        bounded_reading.read_json(tmp_path / "nothing", max_bytes=100)
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(bounded_reading.ForeignFileError, match="is not text in UTF-8"):
        bounded_reading.read_json(tmp_path / "latin", max_bytes=100)
