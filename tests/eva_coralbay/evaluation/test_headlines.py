"""Tests what a session says when it is over."""

import pathlib

from eva_coralbay.evaluation import headlines, sessions


def test_says_what_ranks_first_and_leaves_classes_and_curves_to_the_files(
    tmp_path: pathlib.Path,
) -> None:
    of_probe = {"hd95": 25.0, "dice": 0.5, "dice_liver": 0.75, "dice_resampled_at_1": 0.25}
    scores = [{f"val/{name}": value for name, value in of_probe.items()}]
    sessions.Progress(tmp_path / "run_0").keep("val", scores)
    assert list(headlines.describe(tmp_path)) == ["val: dice 0.500, hd95 25.000"]


def test_says_the_deviation_of_several_runs(tmp_path: pathlib.Path) -> None:
    for run, accuracy in enumerate((0.25, 0.75)):
        progress = sessions.Progress(tmp_path / f"run_{run}")
        progress.keep("val", [{"val/loss": 1.0}])
        scores = [{"test/auroc": 0.75, "test/loss": 1.0, "test/balanced_accuracy": accuracy}]
        progress.keep("test", scores)
    assert list(headlines.describe(tmp_path)) == [
        "test: balanced_accuracy 0.500 ± 0.354, auroc 0.750 ± 0.000"
    ]
