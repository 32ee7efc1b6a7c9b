"""Tests of writing files."""

import os
import pathlib
from typing import Any

import pytest

from eva_coralbay import files


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Any
) -> None:
    """Whenever it stops: the old file as it was, and nothing beside it."""
    path = tmp_path / "record.json"
    files.write_atomically(path, b"old")

    def interrupt(*args: Any) -> None:
        raise error()

    with monkeypatch.context() as patch:
        patch.setattr(os, step, interrupt)
        with pytest.raises(error):
            files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
