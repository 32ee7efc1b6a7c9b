"""Dice with few training cases."""

import pytest
import torch

from eva_coralbay.evaluation import metrics
from eva_coralbay.evaluation.probe import curve_metric
from eva_coralbay.results import scores

LABELED = [(1, 0), (1, 1), (4, 0)]
CLASSES = ["background", "liver", "spleen"]


def _labels(seed: int, *, high: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, (3, 4, 5, 6), generator=generator, dtype=torch.uint8)


def test_the_dice_of_several_predictions_is_that_of_each() -> None:
    labels, truth = _labels(0), _labels(1)[0]

    found = curve_metric.dice(labels, truth, n_classes=3)

    for prediction, values in zip(labels, found, strict=True):
        scorer = metrics.CaseSegmentation(CLASSES)
        scorer.update(prediction[None], truth[None])
        assert values.tolist() == [row.value for row in scorer.rows if row.metric == "dice"]


def test_the_metric_adds_means_over_draws_and_the_area() -> None:
    labels, truth = _labels(0), _labels(1)[:1]
    values = curve_metric.dice(labels, truth[0], n_classes=3)
    metric = curve_metric.CurveSegmentation(CLASSES)

    metric.update(labels[-1:], truth, {"case": ["a"]}, curve=values[None], labeled_cases=LABELED)

    means = metric.means
    assert means["dice"] == pytest.approx(float(values[2].mean()))
    assert means["dice_at_1"] == pytest.approx(float(values[:2].mean()))
    assert means["dice_at_1_liver"] == pytest.approx(float(values[:2, 0].mean()))
    assert means["dice_curve"] == pytest.approx((means["dice_at_1"] + means["dice"]) / 2)
    assert means == pytest.approx(scores.summarize(metric.rows))
    assert [(point.labeled_cases, point.draw) for point in metric.curve.points] == LABELED
    metric.reset()
    assert metric.curve.points == []


def test_a_class_that_is_absent_everywhere_is_excluded() -> None:
    labels, truth = _labels(0, high=2), _labels(1, high=2)[:1]
    metric = curve_metric.CurveSegmentation(CLASSES)
    values = curve_metric.dice(labels, truth[0], n_classes=3)

    metric.update(labels[-1:], truth, {"case": ["a"]}, curve=values[None], labeled_cases=LABELED)

    assert all(row.value is None for row in metric.rows if row.class_name == "spleen")
    assert metric.means["dice_curve"] == pytest.approx(metric.means["dice_curve_liver"])
