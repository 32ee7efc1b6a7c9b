"""Tests of what the rows of a case table add up to, against other implementations."""

import math

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional import classification

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.results import case_table, curve_metrics, scores
from eva_coralbay.tasks import catalog

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


def test_metrics_are_told_from_those_by_class() -> None:
    """Also where the name of one begins with that of another."""
    names = ["dice", "dice_resampled", "dice_resampled_at_1", "dice_resampled_at_10", "dice_curve"]
    metrics = {f"{name}{of}": name for name in names for of in ("", "_at", "_liver")}
    assert set(scores.list_overall(metrics)) == set(names)
    for name in names:
        assert scores.by_class(metrics, name) == {"at": name, "liver": name}
    assert curve_metrics.find(metrics) == {1: names[2], 10: names[3]}


def test_a_case_has_all_classes_in_their_order() -> None:
    rows = _predictions([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], [2, 0])
    for wrong in (rows[:-1], [*rows[:3], *rows[:2:-1]], [*rows[:5], rows[0]]):
        with pytest.raises(ValueError, match="Case 'case_1' does not have the classes"):
            scores.summarize(wrong)


def _nodules(
    truths: list[int], patients: list[str], rights: list[bool]
) -> list[case_table.PredictionRow]:
    """Returns the rows of nodules, each of which is classified right or wrong."""
    return [
        case_table.PredictionRow(
            f"n{index}",
            name,
            "probability",
            float(label == (truth if right else 1 - truth)),
            int(label == truth),
            patient,
        )
        for index, (truth, patient, right) in enumerate(zip(truths, patients, rights, strict=True))
        for label, name in enumerate(("benign", "malignant"))
    ]


def test_nodules_are_scored_one_by_one_and_resampled_by_patient() -> None:
    """A patient can have benign and malignant ones: what is scored never depends on the truth."""
    truths, patients = [0, 0, 1, 0, 1], ["a", "a", "a", "b", "c"]
    rows = _nodules(truths, patients, [True, False, True, True, False])
    found = scores.summarize(rows, "case")
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)

    contributions = scores.by_case(rows, "balanced_accuracy", unit="case")
    assert list(contributions) == ["a", "b", "c"]
    values = np.array(list(contributions.values()), dtype=np.float64)
    assert values.mean() == pytest.approx(found["balanced_accuracy"])


def test_what_is_scored_does_not_follow_from_the_truth() -> None:
    """It is a fact of the task, whether or not a patient has nodules of both classes."""
    patients, rights = ["a", "a", "a", "b", "c"], [True, False, True, True, False]
    uniform = _nodules([0, 0, 0, 1, 1], patients, rights)
    assert scores.summarize(uniform, "case")["balanced_accuracy"] == pytest.approx(7 / 12)
    assert scores.summarize(uniform, "patient")["balanced_accuracy"] == pytest.approx(3 / 4)
    assert catalog.scoring_unit("luna25") == "case"
    assert catalog.scoring_unit("cc_ccii") == catalog.scoring_unit("my_task") == "patient"

    mixed = _nodules([0, 0, 1, 0, 1], patients, rights)
    with pytest.raises(EvaCoralbayError, match="Patient 'a' has cases of several true classes"):
        scores.summarize(mixed, "patient")


def test_contributions_have_the_variance_of_the_resampled_balanced_accuracy() -> None:
    """That of the bootstrap over patients, which computes the balanced accuracy anew each time."""
    generator = np.random.default_rng(0)
    patients = [f"p{index:03d}" for index in generator.integers(0, 150, 400)]
    truths = (generator.random(400) < 0.2).astype(int).tolist()
    rights = (generator.random(400) < np.where(np.array(truths) == 1, 0.6, 0.9)).tolist()
    rows = _nodules(truths, patients, rights)
    values = np.array(
        list(scores.by_case(rows, "balanced_accuracy", unit="case").values()),
        dtype=np.float64,
    )
    names, numbers = np.unique(patients, return_inverse=True)
    right, true = np.array(rights, dtype=float), np.array(truths)
    resampled = []
    for _ in range(4000):
        weights = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names))
        weight = weights[numbers]
        recalls = [np.average(right[true == k], weights=weight[true == k]) for k in (0, 1)]
        resampled.append(np.mean(recalls))
    assert values.std() / math.sqrt(len(values)) == pytest.approx(np.std(resampled), rel=0.05)


def test_full_confidence_is_in_the_last_bin() -> None:
    """Not in one of its own: 0.95 and 1.0 are compared with one accuracy."""
    probabilities = [[1.0, 0.0, 0.0], [0.95, 0.05, 0.0]]
    found = scores.summarize(_predictions(probabilities, [0, 1]))
    assert found["calibration_error"] == pytest.approx(0.975 - 0.5)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [(0.5, 0.5 + 1e-10, True), (0.5, 0.6, False), (None, math.nan, True), (None, 0.0, False)],
)
def test_values_are_the_same_within_a_tolerance(
    first: float | None, second: float | None, same: bool
) -> None:
    assert scores.is_close(first, second, 1e-9) is same
    assert scores.is_close(second, first, 1e-9) is same
