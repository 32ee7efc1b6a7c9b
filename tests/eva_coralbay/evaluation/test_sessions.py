"""Tests of what a session states of its runs."""

import pathlib
import subprocess
import sys

import pytest

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import sessions


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ("encoder.v2", "encoder.v2"),
        ("runs/step=100.ckpt", "step-100"),
        ("lab/net@v2#weights.pt", "net"),
        ("a" * 100, "a" * 40),
        (None, ""),
    ],
)
def test_the_folder_of_a_session_tells_its_checkpoint(
    checkpoint: str | None, name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder, a file, a repository of the Hub, a long name, and none."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("encoder.v2").mkdir()
    pathlib.Path("runs").mkdir()
    pathlib.Path("runs/step=100.ckpt").touch()
    encoder = {"model_name": "lab/net", "model_kwargs": {"checkpoint": checkpoint}}
    config = {"model": {"init_args": {"seed": 0, "encoder": {"init_args": encoder}}}}
    assert sessions.name_of_weights(config) == name
    assert sessions.name_of_weights(None) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("then", "is_kept"),
    [
        ("raise ValueError('LR_VALUE')", False),
        ("sessions.keep(); raise ValueError", True),
        ("raise SystemExit(143)", True),
    ],
)
def test_an_error_before_the_training_leaves_no_folder(
    tmp_path: pathlib.Path, then: str, is_kept: bool
) -> None:
    """One after it does, and so does a signal."""
    session = tmp_path / "logs" / "session"
    program = (
        "import pathlib, sys\n"
        "from eva_coralbay.evaluation import sessions\n"
        f"sessions.begin(pathlib.Path(sys.argv[1]))\n{then}"
    )
    subprocess.run([sys.executable, "-c", program, str(session)], check=False)
    assert session.exists() == is_kept


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
