"""Tests of the hashes of weights whose publisher states none."""

import pathlib

import pytest
from huggingface_hub import constants

from eva_coralbay.models import first_hashes, weight_files

_SOURCE = "https://example.org/weights.pth"
_FIRST, _OTHER = "a" * 64, "b" * 64


@pytest.fixture(name="cache")
def _cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path / "eva_coralbay"


def _warnings(log: list[str]) -> list[str]:
    return [message for message in log if message.startswith("WARNING")]


def _check(digest: str) -> None:
    first_hashes.check("a model", _SOURCE, digest)


def _keep(cache: pathlib.Path) -> pathlib.Path:
    """Keeps the first hash, and returns its file."""
    _check(_FIRST)
    (path,) = cache.iterdir()
    return path


def test_the_first_hash_is_kept_and_others_are_refused(cache: pathlib.Path, log: list[str]) -> None:
    path = _keep(cache)
    _check(_FIRST)
    (warning,) = _warnings(log)
    assert "is checked from now on" in warning and _FIRST in warning and str(path) in warning

    with pytest.raises(weight_files.CheckpointError, match="delete the weights and load them"):
        _check(_OTHER)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"abc", b"A" * 64])
def test_what_is_no_hash_is_replaced(cache: pathlib.Path, content: bytes) -> None:
    path = _keep(cache)
    path.write_bytes(content)

    _check(_OTHER)

    assert path.read_text() == f"{_OTHER}\n"


def test_a_hash_that_cannot_be_read_is_warned_of(cache: pathlib.Path, log: list[str]) -> None:
    """As that of another user of the same cache; a folder cannot be read by anybody."""
    path = _keep(cache)
    path.unlink()
    path.mkdir()
    log.clear()

    _check(_OTHER)

    (warning,) = _warnings(log)
    assert "cannot be read or written" in warning and str(path) in warning
    assert "from now on" not in warning and path.is_dir()


def test_a_cache_that_cannot_be_written_is_warned_of(cache: pathlib.Path, log: list[str]) -> None:
    """Its folder is a link to nowhere, in which no file can be made."""
    cache.symlink_to(cache.with_name("absent") / "folder")

    _check(_FIRST)

    (warning,) = _warnings(log)
    assert "cannot be read or written" in warning and "from now on" not in warning
