"""Folders for the files of scans and for the store."""

import pathlib

import pytest


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder for the files of scans."""
    folder = tmp_path / "scans"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path: pathlib.Path) -> str:
    """A folder for the store."""
    return str(tmp_path / "store")
