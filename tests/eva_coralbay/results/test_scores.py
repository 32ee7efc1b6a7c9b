"""Tests of what the rows of a case table add up to, against other implementations."""

import math

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional import classification

from eva_coralbay.results import case_table, scores

_CLASSES = ["a", "b", "c"]


def _predictions(
    probabilities: list[list[float]], truths: list[int]
) -> list[case_table.PredictionRow]:
    return [
        case_table.PredictionRow(
            f"case_{index}", name, "probability", value, int(label == truth), f"p{index}"
        )
        for index, (values, truth) in enumerate(zip(probabilities, truths, strict=True))
        for label, (name, value) in enumerate(zip(_CLASSES, values, strict=True))
    ]


@hypothesis.given(seed=st.integers(0, 2**32 - 1), n_cases=st.integers(1, 60))
@hypothesis.settings(deadline=None, max_examples=50)
def test_classifications_are_scored_as_elsewhere(seed: int, n_cases: int) -> None:
    """Balanced accuracy is sklearn's, the calibration error torchmetrics'."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(3), size=n_cases)
    truths = generator.integers(0, 3, size=n_cases)
    found = scores.summarize(_predictions(probabilities.tolist(), truths.tolist()))

    predicted = probabilities.argmax(axis=1)
    expected = sklearn_metrics.recall_score(
        truths, predicted, average="macro", labels=np.unique(truths)
    )
    assert found["balanced_accuracy"] == pytest.approx(expected, abs=1e-12)
    error = classification.multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(truths), num_classes=3, n_bins=15
    )
    assert found["calibration_error"] == pytest.approx(float(error), abs=1e-6)


def test_values_that_are_not_defined_are_nan() -> None:
    assert all(map(math.isnan, scores.summarize_classification([], _CLASSES).values()))
    assert math.isnan(scores.summarize_segmentation([], ["liver"])["dice_liver"])
    found = scores.summarize(_predictions([[0.2, 0.3, 0.5]], [2]))
    assert math.isnan(found["auroc"]) and found["balanced_accuracy"] == 1


def test_a_segmentation_can_have_several_metrics() -> None:
    """Each is averaged by itself: over the classes of a case, then over the cases."""
    values = {"dice": ((0.5, 1.0), (0.25, None)), "hd95": ((3.0, 1.0), (None, None))}
    rows = [
        case_table.CaseRow(case, name, metric, value, 1, 1)
        for metric, cases in values.items()
        for case, of_case in zip("xy", cases, strict=True)
        for name, value in zip(("liver", "spleen"), of_case, strict=True)
    ]
    assert scores.summarize(rows) == {
        "dice": 0.5,
        "dice_liver": 0.375,
        "dice_spleen": 1.0,
        "hd95": 2.0,
        "hd95_liver": 3.0,
        "hd95_spleen": 1.0,
    }
    assert scores.by_case(rows, "dice") == {"x": 0.75, "y": 0.25}
    assert scores.by_case(rows, "hd95", "liver") == {"x": 3.0, "y": None}


def test_a_case_has_all_classes_in_their_order() -> None:
    rows = _predictions([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], [2, 0])
    for wrong in (rows[:-1], [*rows[:3], *rows[:2:-1]], [*rows[:5], rows[0]]):
        with pytest.raises(ValueError, match="Case 'case_1' does not have the classes"):
            scores.summarize(wrong)


def test_a_patient_with_two_true_classes_is_two_units() -> None:
    rows = [
        case_table.PredictionRow(case, name, "probability", value, int(name == truth), "p0")
        for case, truth in (("x", "a"), ("y", "b"))
        for name, value in zip(_CLASSES, (0.5, 0.3, 0.2), strict=True)
    ]
    assert scores.by_case(rows, "balanced_accuracy") == {"p0 (a)": 1.0, "p0 (b)": 0.0}


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [(0.5, 0.5 + 1e-10, True), (0.5, 0.6, False), (None, math.nan, True), (None, 0.0, False)],
)
def test_values_are_the_same_within_a_tolerance(
    first: float | None, second: float | None, same: bool
) -> None:
    assert scores.is_close(first, second, 1e-9) is same
    assert scores.is_close(second, first, 1e-9) is same
