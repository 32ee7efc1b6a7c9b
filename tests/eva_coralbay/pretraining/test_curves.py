"""Tests that the curves are read over all starts of a training."""

import pathlib

import pandas as pd

from eva_coralbay.pretraining import curves


def _write(path: pathlib.Path, steps: range, loss: float) -> None:
    rows = [{"step": step, "train/loss": loss} for step in steps]
    rows += [{"step": step, "monitor/teacher_entropy": 3.0} for step in steps]
    pd.DataFrame(rows).to_csv(path, index=False)


def test_the_last_value_of_a_repeated_step_counts(tmp_path: pathlib.Path) -> None:
    _write(tmp_path / "metrics.0.csv", range(6), 3.0)
    _write(tmp_path / "metrics.1.csv", range(4, 8), 2.0)
    _write(tmp_path / "metrics.csv", range(7, 10), 1.0)
    metrics = curves.read_metrics(str(tmp_path))
    assert metrics["train/loss"].tolist() == [3.0] * 4 + [2.0] * 3 + [1.0] * 3
    assert metrics["monitor/teacher_entropy"].notna().all()


def test_draws_a_picture(tmp_path: pathlib.Path) -> None:
    _write(tmp_path / "metrics.csv", range(20), 2.0)
    curves.draw_curves(str(tmp_path))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_draws_nothing_of_nothing(tmp_path: pathlib.Path) -> None:
    curves.draw_curves(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
