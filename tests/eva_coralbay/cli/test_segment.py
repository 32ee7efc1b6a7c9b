"""Tests `eva-coralbay segment`."""

import pathlib

import pytest

from eva_coralbay.cli import main
from tests.eva_coralbay.inference import runs


def test_segments_by_a_probe(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = runs.write_data(tmp_path / "data")
    run = runs.fit(data, tmp_path / "logs", is_probe=True)
    out = tmp_path / "out"
    command = ["segment", str(data / "imagesTr"), "--run", str(run), "--out", str(out)]
    assert main.main([*command, "--exclude", "*_003_*", "*_004_*"]) == 0
    assert len(list(out.glob("*.nii.gz"))) == 3
    assert f"segmentations: {out}" in capsys.readouterr().out
    (tmp_path / "bad.nii").write_bytes(b"nothing")
    assert main.main([*command[:2], str(tmp_path / "bad.nii"), *command[2:]]) == 1
    captured = capsys.readouterr()
    assert "2 scans done, 3 were done before, 1 are left out." in captured.err

    assert main.main(["segment", "a", "--run", str(tmp_path / "logs"), "--out", str(out)]) == 1
    assert f"Did you mean '{run}'?" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_named_before_anything_is_loaded(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["segment", str(tmp_path), "--run", "nowhere", "--out", str(tmp_path / "out")]

    assert main.main(arguments) == 1
    assert capsys.readouterr().err == (
        "eva-coralbay: error: There is no folder 'nowhere': name that of a run.\n"
    )


def test_several_runs_are_refused(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a shell hands them over for --run LOGS/*."""
    runs_of_logs = [tmp_path / name for name in ("run_0", "run_1")]
    for run in runs_of_logs:
        run.mkdir()
        (run / "config.yaml").touch()
    named = ["--run", *map(str, runs_of_logs)]

    with pytest.raises(SystemExit, match="2"):
        main.main(["segment", "scan.nii.gz", *named, "--out", "out"])
    message = f"unrecognized arguments: {runs_of_logs[1]}. --run takes one run, LOGS/SESSION/run_K"
    assert message in capsys.readouterr().err

    assert main.main(["segment", *named, "scan.nii.gz", "--out", "out"]) == 1
    assert f"'{runs_of_logs[1]}' is the folder of a run" in capsys.readouterr().err

    with pytest.raises(SystemExit, match="2"):
        main.main(["segment", "scan.nii.gz", "--run", "a", "--out", "out", "--typo"])
    assert "--run takes" not in capsys.readouterr().err
