"""Tests the hash of a file."""

import hashlib
import pathlib

import pytest

from eva_coralbay import _hashes

_CONTENT = bytes(range(256)) * 8192 + b"end"
"""More than is read at once."""


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "file"
    path.write_bytes(_CONTENT)
    return path


def test_is_that_of_the_whole_content(path: pathlib.Path) -> None:
    assert _hashes.hash_file(path) == hashlib.sha256(_CONTENT).hexdigest()


def test_may_be_of_another_kind(path: pathlib.Path) -> None:
    expected = hashlib.md5(_CONTENT, usedforsecurity=False).hexdigest()
    assert _hashes.hash_file(path, algorithm="md5") == expected


def test_may_leave_out_the_beginning(path: pathlib.Path) -> None:
    assert _hashes.hash_file(path, start=300) == hashlib.sha256(_CONTENT[300:]).hexdigest()
