"""Tests the counting and matching of lesions against the PI-CAI challenge's own evaluation.

MetricsReloaded would be another oracle, but it is not on PyPI.
"""

import os
import pathlib
import tracemalloc

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from picai_eval import eval as picai
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


def _by_picai(truth: _Mask, prediction: _Mask) -> lesions.Detection:
    """Counts by the challenge's evaluation, within the box around both, as it copies every mask."""
    box = (slice(None),) * 3
    for found in ndimage.find_objects((truth | prediction).astype(np.uint8)):
        box = found
    # for each lesion whether it is true, its confidence, and the overlap of its match
    listed, *_ = picai.evaluate_case(
        prediction[box].astype(np.float32),
        truth[box].astype(np.int32),
        allow_unmatched_candidates_with_minimal_overlap=False,
    )
    matched = sum(bool(is_true) and overlap > 0 for is_true, _, overlap in listed)
    true = sum(bool(is_true) for is_true, *_ in listed)
    return lesions.Detection(true, len(listed) - true + matched, matched)


def _random_pair(seed: int) -> tuple[_Mask, _Mask]:
    """Random blobs, and others that split, merge, move, miss and invent some of them."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(6, 20, size=3)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(0.5, 1.8))
    truth = field > np.quantile(field, rng.uniform(0.75, 0.97))
    prediction = np.roll(truth, rng.integers(-1, 2, size=3), (0, 1, 2))
    prediction &= rng.random(shape) > rng.choice([0.0, 0.1, 0.3])
    prediction |= rng.random(shape) > rng.choice([0.98, 0.995, 1.0])
    match seed % 5:
        case 0:
            prediction = ndimage.binary_dilation(prediction)
        case 1:
            prediction[rng.integers(shape[0])] = False
        case 2:
            truth[:, rng.integers(shape[1])] = False
    return truth, np.asarray(prediction, dtype=np.bool_)


@pytest.mark.parametrize("seed", range(200))
def test_random_cases_equal_those_of_picai(seed: int) -> None:
    truth, prediction = _random_pair(seed)
    assert lesions.detect(truth, prediction) == _by_picai(truth, prediction)


def test_the_random_cases_are_hard() -> None:
    """Many have lesions that could be matched with several, and some are found in part."""
    found = [lesions.detect(*_random_pair(seed)) for seed in range(200)]
    assert sum(each.true for each in found) > 1000
    assert sum(0 < each.matched < each.true for each in found) > 100
    assert sum(each.false_positives > 0 for each in found) > 100


def _real_cases() -> list[pathlib.Path]:
    root = os.environ.get("EVA_CORALBAY_REAL_DATA")
    folder = pathlib.Path(root or "/nowhere") / "openkbp_oar" / "labelsTr"
    return sorted(folder.glob("*.nii.gz"))[:12]


@pytest.mark.skipif(not _real_cases(), reason="EVA_CORALBAY_REAL_DATA names no labeled scans")
def test_the_organs_of_twelve_patients_equal_those_of_picai() -> None:
    """All organs of a patient as lesions, of which some are missed, split, thinned or invented."""
    numbers = []
    for index, path in enumerate(_real_cases()):
        rng = np.random.default_rng(index)
        labels = np.asarray(nib.load(path).dataobj)
        truth = labels > 0
        prediction = np.roll(truth & (labels != 1 + index % 5), (index % 2, 1, -1), (0, 1, 2))
        prediction[:, :, labels.shape[2] // 2 :: 25] = False
        if index % 2:
            prediction = ndimage.binary_erosion(prediction)
        for corner in rng.integers(0, np.array(labels.shape) - 4, size=(3, 3)):
            prediction[tuple(slice(start, start + 4) for start in corner)] = True
        found = lesions.detect(truth, prediction)
        assert found == _by_picai(truth, prediction), path.name
        numbers.append(found)
    assert sum(each.matched for each in numbers) > 12
    assert sum(each.false_positives for each in numbers) > 12


def test_as_many_as_possible_are_matched() -> None:
    """The best pair has a higher intersection over union than the two others have together."""
    truth, prediction = np.zeros((2, 1, 1, 140), dtype=bool)
    truth[..., 0:20], truth[..., 21:101] = True, True
    prediction[..., 0:81], prediction[..., 82:102] = True, True
    assert lesions.detect(truth, prediction).matched == 2
    assert _by_picai(truth, prediction).matched == 2


@pytest.mark.parametrize("is_chain", [False, True])
def test_thousands_of_specks_take_little_memory(is_chain: bool) -> None:
    """A table of all true and all predicted ones would take 500 MB and more."""
    truth, prediction = np.zeros((2, 40, 40, 240), dtype=bool)
    if is_chain:  # each may be matched with the one before or the one behind it
        for start in range(4):
            truth[::2, ::2, start::6] = True
            prediction[::2, ::2, start + 3 :: 6] = True
        n_true = n_predicted = n_matched = 20 * 20 * 40
    else:
        truth[::2, ::2, :40:2] = prediction[::2, ::2, :40:2] = True
        prediction[0, 0, 0] = False
        n_true, n_predicted, n_matched = 8000, 7999, 7999

    tracemalloc.start()
    found = lesions.detect(truth, prediction)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found == lesions.Detection(n_true, n_predicted, n_matched)
    assert peak < 64 * 2**20
