"""The scores of a probe of a classification, against scikit-learn by draw."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from eva_coralbay.evaluation.probe import curve_classification
from eva_coralbay.results import curve_metrics, label_curves, scores

CLASSES = ["a", "b", "c"]

LABELED = [*((size, draw) for size in (1, 4) for draw in range(3)), (16, 0)]


def _metric(
    *, per_patient: int, mixed: bool = False
) -> tuple[curve_classification.CurveClassification, torch.Tensor, torch.Tensor, list[str]]:
    """Returns a metric that has seen two batches, with its curves, truths and patients."""
    generator = torch.Generator().manual_seed(0)
    patients = [f"p{index // per_patient:02d}" for index in range(24)]
    truths = torch.tensor([int(patient[1:]) % 3 for patient in patients])
    if mixed:
        truths[0] = 2
    logits = 2.0 * torch.randn(24, 2, len(LABELED), 3, generator=generator, dtype=torch.float64)
    curves = (logits + 2.0 * torch.eye(3)[truths][:, None, None]).softmax(dim=-1)
    metric = curve_classification.CurveClassification(CLASSES)
    for batch in (slice(0, 9), slice(9, 24)):
        metric.update(
            curves[batch, 0, -1],
            truths[batch],
            {"case": [f"c{i}" for i in range(24)][batch], "patient": patients[batch]},
            curve=curves[batch],
            labeled_cases=LABELED,
        )
    return metric, curves, truths, patients


def _accuracy(probabilities: torch.Tensor, truths: torch.Tensor, patients: list[str]) -> float:
    """Returns the balanced accuracy of the mean probabilities of the patients."""
    named = np.array(patients)
    means = {name: probabilities.numpy()[named == name].mean(axis=0) for name in patients}
    known = dict(zip(patients, truths.tolist(), strict=True))
    predicted = [int(mean.argmax()) for mean in means.values()]
    return float(sklearn_metrics.balanced_accuracy_score(list(known.values()), predicted))


@pytest.mark.parametrize("per_patient", [1, 2])
def test_values_are_means_over_the_draws(per_patient: int) -> None:
    metric, curves, truths, patients = _metric(per_patient=per_patient)

    means = metric.means

    for classifier, prefix in enumerate(("", "knn_")):
        by_size: dict[int, list[float]] = {}
        for index, (size, _) in enumerate(LABELED):
            value = _accuracy(curves[:, classifier, index], truths, patients)
            by_size.setdefault(size, []).append(value)
        expected = {size: float(np.mean(values)) for size, values in by_size.items()}
        name = f"{prefix}balanced_accuracy"
        assert means[f"{name}_at_1"] == pytest.approx(expected[1])
        assert means[f"{name}_at_4"] == pytest.approx(expected[4])
        assert means[name] == pytest.approx(expected[16])
        assert means[f"{name}_curve"] == pytest.approx(label_curves.area(expected))
    assert 0.0 < means["knn_auroc"] < 1.0
    assert not any(name.endswith("_at_16") for name in means)


@pytest.mark.parametrize("per_patient", [1, 2])
def test_all_follows_from_the_table(per_patient: int) -> None:
    metric, *_ = _metric(per_patient=per_patient)
    rows = metric.rows

    assert metric.means == scores.summarize(rows)
    sums: dict[tuple[str, str], float] = {}
    for row in rows:
        assert row.value is not None and 0.0 <= row.value <= 1.0
        sums[row.case, row.metric] = sums.get((row.case, row.metric), 0.0) + row.value
    assert np.allclose(list(sums.values()), 1.0)
    for name, value in metric.means.items():
        by_patient = scores.by_case(rows, name)
        if "balanced_accuracy" in name:
            assert np.mean([one or 0.0 for one in by_patient.values()]) == pytest.approx(value)
        else:
            assert by_patient == {}


def test_every_case_counts_by_itself_where_the_task_says_so() -> None:
    metric, curves, truths, _ = _metric(per_patient=2, mixed=True)
    metric.unit = "case"

    alone = [f"c{index}" for index in range(24)]
    expected = np.mean([_accuracy(curves[:, 0, index], truths, alone) for index in range(3)])
    assert metric.means["balanced_accuracy_at_1"] == pytest.approx(expected)


def test_the_mean_of_a_point_is_its_balanced_accuracy() -> None:
    metric, *_ = _metric(per_patient=2)

    curve = metric.curve

    assert curve.metric == "balanced_accuracy"
    assert len(curve.points) == len(LABELED) * 12
    summary = label_curves.summarize(curve.points)
    assert summary[1].mean == pytest.approx(metric.means["balanced_accuracy_at_1"])
    assert summary[16].mean == pytest.approx(metric.means["balanced_accuracy"])
    metric.reset()
    assert metric.rows == [] and list(metric.curve.points) == []


def test_the_area_of_the_nearest_neighbors_is_no_point_of_the_curve() -> None:
    metric, *_ = _metric(per_patient=1)

    names = list(metric.means)

    assert curve_metrics.find(names) == {
        1: "balanced_accuracy_at_1",
        4: "balanced_accuracy_at_4",
    }
    assert curve_metrics.has_point("knn_balanced_accuracy_at_4")
    assert not curve_metrics.has_point("knn_balanced_accuracy_curve")
    assert scores.by_class(metric.means, "balanced_accuracy") == {}
    assert set(scores.list_overall(names)) == set(names)


@pytest.mark.parametrize("metric", ["prediction", "prediction_at_0", "chance", "knn_"])
def test_rows_of_nothing_that_is_predicted_are_rejected(metric: str) -> None:
    """A row of `prediction` must not pass for the headline metric."""
    rows = [row for row in _metric(per_patient=1)[0].rows if row.metric == "probability"]
    with pytest.raises(ValueError, match="a classification has no metric"):
        scores.summarize([*rows, *(dataclasses.replace(row, metric=metric) for row in rows)])
