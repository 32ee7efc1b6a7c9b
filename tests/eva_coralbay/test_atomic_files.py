"""Tests of writing files."""

import os
import pathlib
import socket
from typing import Any

import pytest

from eva_coralbay import _atomic_files


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Any
) -> None:
    """Whenever it stops: the old file as it was, and nothing beside it."""
    path = tmp_path / "record.json"
    _atomic_files.write_atomically(path, b"old")

    def interrupt(*args: Any) -> None:
        raise error()

    with monkeypatch.context() as patch:
        patch.setattr(os, step, interrupt)
        with pytest.raises(error):
            _atomic_files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_were_writing_is_removed(tmp_path: pathlib.Path) -> None:
    """And what living ones write, here or elsewhere, is not, unless it is days old."""
    here, gone, alive = socket.gethostname(), 2**30, os.getpid()
    name = "record.json"
    states = {
        f".{name}~{here}~{gone}~{'0' * 32}.tmp": True,
        f".{name}~{here}~{alive}~{'0' * 32}.tmp": False,
        f".{name}~other.host~{gone}~{'0' * 32}.tmp": False,
        f".{name}~other.host~{gone}~{'1' * 32}.tmp": True,
        f".{name}.tmp": False,
        name: False,
    }
    for file in states:
        (tmp_path / file).touch()
    os.utime(tmp_path / f".{name}~other.host~{gone}~{'1' * 32}.tmp", (0, 0))
    _atomic_files.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        file for file, removed in states.items() if not removed
    }


def test_the_name_while_writing_is_known(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would never be removed."""
    names = []

    def fsync(descriptor: int) -> None:
        names.extend(path.name for path in tmp_path.iterdir())

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(socket, "gethostname", lambda: "some-host.org")
    _atomic_files.write_atomically(tmp_path / "record.json", b"")
    (name,) = names
    (tmp_path / name.replace(f"~{os.getpid()}~", f"~{2**30}~")).touch()
    _atomic_files.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
