"""Tests the counting and matching of lesions against a search over all assignments."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from eva_coralbay.evaluation import lesions

_Mask = npt.NDArray[np.bool_]


def _boxes(*corners: tuple[int, int, int], size: int = 3) -> _Mask:
    mask = np.zeros((24, 24, 24), dtype=bool)
    for depth, height, width in corners:
        mask[depth : depth + size, height : height + size, width : width + size] = True
    return mask


def test_found_missed_and_invented() -> None:
    truth = _boxes((0, 0, 0), (0, 10, 0), (10, 0, 0))
    prediction = _boxes((0, 0, 0), (0, 11, 0), (18, 18, 18), (0, 0, 18))
    found = lesions.detect(truth, prediction)
    assert found == lesions.Detection(true=3, predicted=4, matched=2)
    assert found.sensitivity == pytest.approx(2 / 3)
    assert found.false_positives == 2
    assert found.f1 == pytest.approx(4 / 7)


def test_without_lesions() -> None:
    nothing, one = _boxes(), _boxes((1, 1, 1))
    assert lesions.detect(nothing, nothing) == lesions.Detection(0, 0, 0)
    assert lesions.detect(nothing, nothing).f1 is None
    invented = lesions.detect(nothing, one)
    assert (invented.sensitivity, invented.false_positives, invented.f1) == (None, 1, 0.0)
    missed = lesions.detect(one, nothing)
    assert (missed.sensitivity, missed.false_positives, missed.f1) == (0.0, 0, 0.0)


def test_a_lesion_is_matched_once() -> None:
    """One prediction over two lesions finds one; of two predictions of a lesion one is false."""
    truth = _boxes((0, 0, 0), (0, 4, 0))
    bridge = np.zeros_like(truth)
    bridge[0:3, 0:7, 0:3] = True
    assert lesions.detect(truth, bridge) == lesions.Detection(2, 1, 1)
    assert lesions.detect(bridge, truth) == lesions.Detection(1, 2, 1)


@pytest.mark.parametrize(("common", "matched"), [(1, 0), (2, 1)])
def test_touching_is_not_finding(common: int, matched: int) -> None:
    """Rods of 10 voxels that share 1 have an IoU of 1/19, those that share 2 one of 1/9."""
    truth, prediction = np.zeros((2, 3, 3, 24), dtype=bool)
    truth[1, 1, :10] = True
    prediction[1, 1, 10 - common : 20 - common] = True
    assert lesions.detect(truth, prediction).matched == matched


def test_corners_connect() -> None:
    diagonal = np.zeros((3, 3, 3), dtype=bool)
    diagonal[0, 0, 0] = diagonal[1, 1, 1] = diagonal[2, 2, 2] = True
    assert lesions.detect(diagonal, diagonal) == lesions.Detection(1, 1, 1)


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=60)
def test_the_assignment_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(rng.standard_normal((9, 9, 9)), 1) > 0.35
    prediction = np.roll(truth, rng.integers(-1, 2, size=3), (0, 1, 2)) & (
        rng.random(truth.shape) > 0.2
    )
    labeled: list[Any] = [ndimage.label(mask, np.ones((3, 3, 3))) for mask in (truth, prediction)]
    (true, n_true), (predicted, n_predicted) = labeled
    found = lesions.detect(truth, prediction)
    assert (found.true, found.predicted) == (n_true, n_predicted)
    if n_true > 6 or n_predicted > 6:
        return
    iou = np.zeros((n_true, n_predicted))
    for i, j in np.ndindex(iou.shape):
        a, b = true == i + 1, predicted == j + 1
        iou[i, j] = (a & b).sum() / (a | b).sum()
    iou[iou < 0.1] = 0
    size = max(iou.shape, default=0)
    square = np.zeros((size, size))
    square[:n_true, :n_predicted] = iou
    sums = {
        round(sum(square[range(size), order]), 9): int((square[range(size), order] > 0).sum())
        for order in map(list, itertools.permutations(range(size)))
    }
    assert found.matched == (sums[max(sums)] if sums else 0)
