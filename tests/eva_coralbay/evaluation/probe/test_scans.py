"""Both passes of the dense probe on small scans."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from eva_coralbay.evaluation.probe import classifier, scans, sums, windows
from tests.eva_coralbay.evaluation.probe import toy

SLIDING = scans.Sliding((16, 16, 16), 0.25)


def _sample(seed: int, case: str = "case") -> sums.Samples:
    image, labels = toy.scan(seed)
    draw = sums.draw_voxels(labels, case, n_classes=3, per_class=60, background=120)
    return scans.sample_case(toy.encoder(), image, draw, sliding=SLIDING)


def _fit(cases: list[sums.Samples], maps: tuple[int, ...] = (0, 1, 2)) -> classifier.Classifier:
    chosen = [case.select(maps) for case in cases]
    return classifier.fit(chosen, [sums.Sums.of(case) for case in chosen], maps=maps)


@torch.no_grad()
def _dense_features(image: torch.Tensor) -> torch.Tensor:
    """The features of all voxels [E, D, H, W], by interpolating the maps of each window."""
    features = torch.zeros(9, *image.shape[1:])
    for window in windows.place(image.shape[1:], SLIDING.size, SLIDING.overlap):
        box = [slice(start, start + 16) for start in window.start]
        maps = toy.encoder()(image[(slice(None), *box)][None])
        dense = torch.cat(
            [functional.interpolate(one, SLIDING.size, mode="trilinear")[0] for one in maps]
        )
        features[(slice(None), *window.core)] = dense[(slice(None), *window.core_within)]
    return features


def test_the_samples_are_the_features_of_the_drawn_voxels() -> None:
    image, labels = toy.scan(3)
    draw = sums.draw_voxels(labels, "case", n_classes=3)

    case = scans.sample_case(toy.encoder(), image, draw, sliding=SLIDING)

    expected = _dense_features(image)[(slice(None), *draw.voxels.T)].T
    torch.testing.assert_close(case.features, expected, atol=1e-5, rtol=0)
    assert case.channels == toy.CHANNELS


@pytest.mark.parametrize("maps", [(0, 1, 2), (1, 2), (2,)])
def test_the_labels_are_those_of_the_classifier_on_all_features(maps: tuple[int, ...]) -> None:
    image, _ = toy.scan(9)
    fitted = _fit([_sample(seed) for seed in range(3)], maps)

    labels = scans.label_scan(toy.encoder(), image, [fitted], sliding=SLIDING)[0]

    blocks = _dense_features(image).split(toy.CHANNELS)
    features = torch.cat([blocks[index] for index in maps]).flatten(1).T.double()
    logits = features @ fitted.weights.T + fitted.bias
    assert (labels.flatten() == logits.argmax(dim=1)).float().mean() > 0.9999


def test_the_probe_finds_what_the_features_show() -> None:
    fitted = _fit([_sample(seed) for seed in range(4)])
    image, truth = toy.scan(9)

    labels = scans.label_scan(toy.encoder(), image, [fitted], sliding=SLIDING)[0]

    for label in (1, 2):
        found, held = labels == label, truth == label
        dice = 2 * (found & held).sum() / (found.sum() + held.sum())
        assert dice > 0.5


def test_classifiers_are_applied_together_as_each_alone() -> None:
    image, _ = toy.scan(9)
    fitted = [_fit([_sample(seed)]) for seed in range(3)]

    together = scans.label_scan(toy.encoder(), image, fitted, sliding=SLIDING)

    alone = torch.cat(
        [scans.label_scan(toy.encoder(), image, [one], sliding=SLIDING) for one in fitted]
    )
    assert (together == alone).float().mean() > 0.9999
    assert not torch.equal(together[0], together[1])


def test_a_repetition_gives_equal_bits() -> None:
    first, second = _sample(1), _sample(1)

    assert torch.equal(first.features, second.features)
    assert torch.equal(sums.Sums.of(first).seconds, sums.Sums.of(second).seconds)
    assert torch.equal(_fit([first]).weights, _fit([second]).weights)


def test_a_scan_smaller_than_a_window_is_filled_up() -> None:
    image, labels = toy.scan(2, shape=(10, 12, 14))
    draw = sums.draw_voxels(labels, "case", n_classes=3)

    case = scans.sample_case(toy.encoder(), image, draw, sliding=SLIDING)
    result = scans.label_scan(toy.encoder(), image, [_fit([case])], sliding=SLIDING)

    assert result.shape == (1, 10, 12, 14)


def test_the_core_needs_torch_and_numpy_only() -> None:
    heavy = ["eva", "lightning", "monai", "sklearn", "torchvision"]
    code = (
        "import sys, eva_coralbay.evaluation.probe.scans\n"
        "import eva_coralbay.evaluation.probe.subsets\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )

    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert output.stdout.strip() == "[]"
