"""Which voxels are drawn, what their sums are, and which maps count."""

import hashlib

import pytest
import torch

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation.probe import classifier, sums
from tests.eva_coralbay.evaluation.probe import toy


def test_the_same_voxels_of_a_case_are_drawn_everywhere() -> None:
    _, labels = toy.scan(0)

    drawn = sums.draw_voxels(labels, "case_1", n_classes=3, per_class=20, background=50)
    other = sums.draw_voxels(labels, "case_2", n_classes=3, per_class=20, background=50)

    assert torch.bincount(drawn.labels).tolist() == [50, 20, 20]
    assert drawn.totals.tolist() == torch.bincount(labels.flatten()).tolist()
    assert not torch.equal(drawn.voxels, other.voxels)
    assert (labels[tuple(drawn.voxels.T)] == drawn.labels).all()
    digest = hashlib.sha256(drawn.voxels.numpy().tobytes()).hexdigest()
    assert digest[:16] == "b1f695f9f26b276a"


def test_all_voxels_of_a_small_class_are_drawn() -> None:
    labels = torch.zeros(6, 6, 6, dtype=torch.uint8)
    labels[1, 2, 3:5] = 2

    drawn = sums.draw_voxels(labels, "case", n_classes=4, per_class=20, background=10)

    assert torch.bincount(drawn.labels, minlength=4).tolist() == [10, 0, 2, 0]


def test_an_unknown_label_is_an_error_that_names_the_case() -> None:
    labels = torch.full((2, 2, 2), 3)

    with pytest.raises(EvaCoralbayError, match="Case 'x' has the label 3"):
        sums.draw_voxels(labels, "x", n_classes=3)


def test_sums_are_those_of_voxels_weighted_by_class() -> None:
    case = toy.samples(0)
    kept = torch.ones(len(case.labels), dtype=torch.bool)
    kept[:30] = False
    case = sums.Samples(case.features[kept], case.labels[kept], case.totals, case.channels)

    total = sums.Sums.of(case)

    features = case.features.double()
    for label in range(3):
        mean = features[case.labels == label].mean(dim=0)
        torch.testing.assert_close(total.firsts[:, label], mean)
    products = sum(
        features[case.labels == label].T @ features[case.labels == label] / count
        for label, count in enumerate(torch.bincount(case.labels).tolist())
    )
    torch.testing.assert_close(total.seconds, products)
    assert total.weights.tolist() == [1, 1, 1]


def test_the_sums_of_some_maps_are_a_part_of_the_sums_of_all() -> None:
    case = toy.samples(0)

    part = sums.Sums.of(case).select(case.channels, [1])

    expected = sums.Sums.of(case.select([1]))
    torch.testing.assert_close(part.seconds, expected.seconds)
    torch.testing.assert_close(part.firsts, expected.firsts)
    weights, _ = classifier.solve(part, [classifier.STRENGTHS[0]])
    assert weights.shape == (1, 3, 4)


@pytest.mark.parametrize(
    ("maps", "chosen"),
    [("all", (0, 1, 2, 3)), ("swin", (2, 3)), ("last", (3,)), ([0, 2], (0, 2))],
)
def test_maps_are_chosen_by_name_or_number(maps: sums.Maps, chosen: tuple[int, ...]) -> None:
    assert sums.resolve_maps(maps, 4) == chosen


@pytest.mark.parametrize(("maps", "n_maps"), [("swin", 2), ([4], 4), ([], 4)])
def test_maps_that_an_encoder_lacks_are_an_error(maps: sums.Maps, n_maps: int) -> None:
    with pytest.raises(EvaCoralbayError, match=f"has {n_maps} feature maps"):
        sums.resolve_maps(maps, n_maps)
