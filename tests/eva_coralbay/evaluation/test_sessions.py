"""Tests of what a session states of its runs."""

import pathlib

import pytest

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import sessions


def test_the_scores_of_a_stage_are_kept(tmp_path: pathlib.Path) -> None:
    sessions.Progress(tmp_path).keep("fit", [{"val/dice": 0.5}])
    progress = sessions.Progress(tmp_path)
    assert progress.scores("fit") == [{"val/dice": 0.5}]
    assert progress.scores("test") is None and not progress.is_complete
    progress.complete()
    assert progress.is_complete and progress.scores("fit") == [{"val/dice": 0.5}]


@pytest.mark.parametrize("content", [b"", b'{"fit"', b"[]", b"\xff", b"[" * 100_000])
def test_what_is_damaged_is_named(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "scores.json").write_bytes(content)
    with pytest.raises(EvaCoralbayError, match="scores.json' is damaged. Remove it"):
        _ = sessions.Progress(tmp_path).is_complete
