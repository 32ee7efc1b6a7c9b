"""Tests `eva-coralbay embed`."""

import pathlib

import numpy as np
import pandas as pd
import pytest

from eva_coralbay.cli import main
from eva_coralbay.models import loading
from tests.eva_coralbay.pretraining import scans

_MODEL = ["--model", "radiology/coralbay_random", "--kwarg", "feature_size=12"]
_SMALL = ["--window", "33", "33", "33", "--spacing", "3", "3", "3"]


def test_embeds_with_random_weights(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # so that no name is broken into lines
    monkeypatch.setenv("COLUMNS", "300")
    for seed in range(2):
        scans.write_nifti(tmp_path / "in" / f"{seed}.nii.gz", scans.hounsfield(seed=seed))
    out = tmp_path / "features.parquet"
    command = ["embed", str(tmp_path / "in"), *_MODEL, *_SMALL, "--out", str(out)]
    assert main.main(command) == 0
    assert f"table: {out} (2 rows)" in capsys.readouterr().out
    before = pd.read_parquet(out)
    assert len(before["embedding"][0]) == 12 * 24
    assert list(before["model"]) == ["radiology/coralbay_random"] * 2
    # the random weights are the same each time
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"nothing")
    assert main.main(command) == 1
    captured = capsys.readouterr()
    assert "bad.nii.gz" in captured.err
    assert "0 scans done, 2 were done before, 1 are left out." in captured.err
    pd.testing.assert_frame_equal(pd.read_parquet(out), before)


def test_the_log_has_nothing_that_a_terminal_obeys(tmp_path: pathlib.Path, log: list[str]) -> None:
    """As it would be in the name of a file of somebody else."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a\x1b]0;owned\x07.nii.gz").write_bytes(b"nothing")
    out = str(tmp_path / "features.parquet")
    assert main.main(["embed", str(tmp_path / "in"), *_MODEL, *_SMALL, "--out", out]) == 1
    assert any("a\\x1b]0;owned\\x07.nii.gz' is left out" in line for line in log)
    assert not any("\x1b" in line for line in log)


def test_own_weights_are_recorded_under_a_name_of_their_own(tmp_path: pathlib.Path) -> None:
    encoder = loading.build_named("radiology/coralbay_random", feature_size=12)
    encoder.save_pretrained(tmp_path / "mine")
    path = scans.write_nifti(tmp_path / "a.nii.gz", scans.hounsfield())
    out = tmp_path / "features.parquet"
    weights = ["--model", "radiology/coralbay", "--checkpoint", str(tmp_path / "mine")]
    assert main.main(["embed", str(path), *weights, *_SMALL, "--out", str(out)]) == 0
    own = pd.read_parquet(out)
    assert own["model"][0].startswith("local/mine-")
    other = tmp_path / "random.parquet"
    assert main.main(["embed", str(path), *_MODEL, *_SMALL, "--out", str(other)]) == 0
    np.testing.assert_array_equal(own["embedding"][0], pd.read_parquet(other)["embedding"][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "radiology/coralbai"], "Did you mean radiology/coralbay"),
        ([*_MODEL, "--devices", "nowhere"], "'nowhere' is not a usable device"),
        ([*_MODEL[:3], "feature_size=many"], "must be a positive multiple of 12"),
        ([*_MODEL[:3], "in_channels=many"], "cannot be built with"),
        ([*_MODEL, "--roi", "a.csv"], "belong together"),
        ([*_MODEL, "--mask", "nowhere"], "'nowhere' does not exist"),
        ([*_MODEL, "--mask", ".", "--roi", "a.csv"], "not both"),
    ],
)
def test_says_what_is_wrong(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    path = scans.write_nifti(tmp_path / "a.nii.gz", scans.hounsfield())
    out = tmp_path / "features.parquet"
    assert main.main(["embed", str(path), *options, "--out", str(out)]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_refuses_a_table_without_a_name(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = scans.write_nifti(tmp_path / "a.nii.gz", scans.hounsfield())
    assert main.main(["embed", str(path), *_MODEL, "--out", str(tmp_path)]) == 1
    assert "is a folder. Name the Parquet file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main.main(["embed", str(path), *_MODEL, "--out", ""])
    assert "an empty path" in capsys.readouterr().err
