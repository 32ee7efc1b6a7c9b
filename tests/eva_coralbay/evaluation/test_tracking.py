"""Tests what is kept of a log."""

import pathlib

from eva_coralbay.evaluation import tracking


def test_metrics_of_an_interrupted_run_are_kept(tmp_path: pathlib.Path) -> None:
    for number in range(3):
        (tmp_path / "metrics.csv").write_text(str(number))
        tracking.keep_metrics(tmp_path)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {f"metrics.{number}.csv": str(number) for number in range(3)}
