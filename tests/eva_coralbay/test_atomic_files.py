"""Tests of writing files."""

import errno
import os
import pathlib
import socket
import stat
import tempfile
from typing import Any

import pytest

from eva_coralbay import _atomic_files, _processes


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
        patch.setattr(pathlib.Path if step == "replace" else os, step, interrupt)
        with pytest.raises(error):
            _atomic_files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_were_writing_is_removed(tmp_path: pathlib.Path) -> None:
    """And what living ones write, here or elsewhere, is not, unless it is days old."""
    machine, process, start = _processes.name_this_process().split("~")
    gone, unique, name = str(2**30), "0" * 32, "record.json"
    states = {
        f".{name}~{machine}~{gone}~{start}~{unique}.tmp": True,
        f".{name}~{machine}~{process}~{start}~{unique}.tmp": False,
        f".{name}~other~{gone}~1~{unique}.tmp": False,
        f".{name}~other~{gone}~2~{unique}.tmp": True,
        f".{name}~old.host~{gone}~{unique}.tmp": False,
        f".{name}.tmp": False,
        name: False,
    }
    for file in states:
        (tmp_path / file).touch()
    os.utime(tmp_path / f".{name}~other~{gone}~2~{unique}.tmp", (0, 0))
    _atomic_files.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        file for file, removed in states.items() if not removed
    }


@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_process_that_got_the_id_of_a_killed_one_is_another(tmp_path: pathlib.Path) -> None:
    machine, process, _ = _processes.name_this_process().split("~")
    (tmp_path / f".a~{machine}~{process}~1~{'0' * 32}.tmp").touch()

    _atomic_files.remove_leftovers(tmp_path)

    assert not list(tmp_path.iterdir())


def test_equal_process_ids_in_two_containers_of_one_host_name_are_told_apart(
    tmp_path: pathlib.Path,
) -> None:
    """A container cannot see whether the other one's process lives, so it goes by the age."""
    machine = _processes.name_this_process().split("~")[0]
    assert machine != socket.gethostname()
    theirs = tmp_path / f".a~{'f' * 12}~{2**30}~1~{'0' * 32}.tmp"
    theirs.touch()

    _atomic_files.remove_leftovers(tmp_path)

    assert theirs.exists()


def test_the_name_while_writing_is_known(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would never be removed."""
    names = []

    def fsync(descriptor: int) -> None:
        names.extend(path.name for path in tmp_path.iterdir())

    monkeypatch.setattr(os, "fsync", fsync)
    _atomic_files.write_atomically(tmp_path / "record.json", b"")
    (name,) = names
    (tmp_path / name.replace(f"~{os.getpid()}~", f"~{2**30}~")).touch()
    _atomic_files.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_what_cannot_be_removed_stays(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a shared folder of temporary files, those of other users cannot be."""
    machine = _processes.name_this_process().split("~")[0]
    theirs, ours = (tmp_path / f".a~{machine}~{2**30}~1~{digit * 32}.tmp" for digit in "01")
    theirs.touch()
    ours.touch()
    unlink = pathlib.Path.unlink

    def refuse(path: pathlib.Path, missing_ok: bool = False) -> None:
        if path == theirs:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(pathlib.Path, "unlink", refuse)
    _atomic_files.remove_leftovers(tmp_path)

    assert list(tmp_path.iterdir()) == [theirs]


def test_a_private_folder_is_for_this_user_only_and_does_not_stay(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with _atomic_files.private_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert list(tmp_path.iterdir()) == [folder]
    assert not list(tmp_path.iterdir())


def test_private_folders_that_killed_processes_left_are_removed_once_a_process(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of temporary files may hold very many, so it is looked through once."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    machine = _processes.name_this_process().split("~")[0]
    left = tmp_path / f".eva-coralbay~{machine}~{2**30}~1~{'0' * 32}.tmp"
    left.mkdir()
    with _atomic_files.private_folder():
        assert not left.exists()

    left.mkdir()
    with _atomic_files.private_folder():
        assert left.exists()


def test_two_folders_trade_places(tmp_path: pathlib.Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    if not _atomic_files.exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange two folders")
    assert [(tmp_path / name / "file").read_text() for name in ("a", "b")] == ["b", "a"]
    with pytest.raises(FileNotFoundError, match="absent"):
        _atomic_files.exchange(tmp_path / "a", tmp_path / "absent")
    assert (tmp_path / "a" / "file").read_text() == "b"
