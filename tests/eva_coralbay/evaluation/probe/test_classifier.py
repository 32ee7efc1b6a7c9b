"""The closed form against scikit-learn, and leaving a case out against refitting."""

import math

import numpy as np
import pytest
import torch
from sklearn import discriminant_analysis, preprocessing

from eva_coralbay.evaluation.probe import classifier, sums
from tests.eva_coralbay.evaluation.probe import toy


def _total(parts: list[sums.Sums]) -> sums.Sums:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


@pytest.mark.parametrize("shrinkage", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("prior", [0.0, 1.0, 2.5])
def test_the_closed_form_is_that_of_scikit_learn(shrinkage: float, prior: float) -> None:
    cases = [toy.samples(seed) for seed in range(5)]
    features = torch.cat([case.features for case in cases]).double().numpy()
    labels = torch.cat([case.labels for case in cases]).numpy()
    # scikit-learn shrinks towards the identity where the variances within the classes are 1
    residuals = features - np.stack([features[labels == k].mean(axis=0) for k in range(3)])[labels]
    scaler = preprocessing.StandardScaler().fit(residuals)
    reference = discriminant_analysis.LinearDiscriminantAnalysis(
        solver="lsqr", shrinkage=shrinkage, priors=[1 / 3] * 3
    ).fit(features / scaler.scale_, labels)
    log_frequencies = np.log(np.array([5000, 300, 200]) / 5500)
    expected = reference.decision_function(features / scaler.scale_) + prior * log_frequencies

    weights, bias = classifier.solve(
        _total([sums.Sums.of(case) for case in cases]), [classifier.Strength(shrinkage, prior)]
    )
    logits = torch.from_numpy(features) @ weights[0].T + bias[0]

    # the logits of a voxel are defined up to what is the same for all classes
    np.testing.assert_allclose(
        logits - logits[:, :1], expected - expected[:, :1], rtol=1e-6, atol=1e-6
    )


def test_leaving_out_a_case_by_subtraction_is_refitting_without_it() -> None:
    cases = [toy.samples(seed) for seed in range(4)]
    parts = [sums.Sums.of(case) for case in cases]
    total = _total(parts)

    for left_out, part in enumerate(parts):
        refitted = classifier.solve(
            _total([one for index, one in enumerate(parts) if index != left_out]),
            classifier.STRENGTHS,
        )
        subtracted = classifier.solve(total - part, classifier.STRENGTHS)
        for ours, theirs in zip(subtracted, refitted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_strength_is_the_best_of_all_left_out_cases_by_brute_force() -> None:
    cases = [toy.samples(seed, per_class=12) for seed in range(4)]
    parts = [sums.Sums.of(case) for case in cases]
    means = []
    for strength in classifier.STRENGTHS:
        scores = []
        for left_out, case in enumerate(cases):
            others = [one for index, one in enumerate(parts) if index != left_out]
            weights, bias = classifier.solve(_total(others), [strength])
            predicted = (case.features.double() @ weights[0].T + bias[0]).argmax(dim=1)
            scores.append(_dice(case, predicted))
        means.append(np.mean(scores))

    chosen = classifier.choose_strength(cases, parts)

    assert means[classifier.STRENGTHS.index(chosen)] == pytest.approx(max(means), abs=1e-9)
    assert max(means) > min(means)


def _dice(case: sums.Samples, predicted: torch.Tensor) -> float:
    """The mean Dice of the foreground if each voxel is repeated as often as it stands for."""
    repeats = (case.totals.double() / torch.bincount(case.labels))[case.labels]
    values = []
    for label in (1, 2):
        truth, found = case.labels == label, predicted == label
        both = repeats[truth & found].sum()
        values.append(2 * both / (repeats[truth].sum() + repeats[found].sum()))
    return float(np.mean(values))


def test_one_case_has_the_default_strength() -> None:
    case = toy.samples(0)

    fitted = classifier.fit([case], [sums.Sums.of(case)], maps=(0, 1))

    assert fitted.strength == classifier.DEFAULT_STRENGTH


def test_a_class_that_no_training_case_holds_is_never_predicted() -> None:
    case = toy.samples(0)
    kept = case.labels != 2
    case = sums.Samples(
        case.features[kept], case.labels[kept], torch.tensor([5000, 300, 0]), case.channels
    )

    fitted = classifier.fit([case], [sums.Sums.of(case)], maps=(0, 1))

    assert float(fitted.bias[2]) == -math.inf
    assert torch.isfinite(fitted.weights).all()
    logits = case.features.double() @ fitted.weights.T + fitted.bias
    assert set(logits.argmax(dim=1).tolist()) == {0, 1}


def test_a_constant_feature_does_no_harm() -> None:
    case = toy.samples(0)
    constant = sums.Samples(
        torch.cat([case.features, torch.full((len(case.labels), 1), 7.0)], dim=1),
        case.labels,
        case.totals,
        (2, 5),
    )

    weights, bias = classifier.solve(sums.Sums.of(constant), [classifier.Strength(0.1, 0.0)])

    logits = constant.features.double() @ weights[0].T + bias[0]
    expected = classifier.solve(sums.Sums.of(case), [classifier.Strength(0.1, 0.0)])
    reference = case.features.double() @ expected[0][0].T + expected[1][0]
    torch.testing.assert_close(logits, reference, rtol=1e-5, atol=1e-5)
