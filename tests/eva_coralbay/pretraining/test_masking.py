"""Tests of the masked term."""

import pytest
import torch
from lightly import loss as lightly_loss

from eva_coralbay.models import CoralBayEncoder
from eva_coralbay.pretraining import masking
from eva_coralbay.pretraining.masking import Masking


def test_hides_what_is_drawn() -> None:
    masks = masking.draw_masks(Masking(ratio=(0.2, 0.4)), views=400, size=96)
    assert masks.shape == (400, 6, 6, 6)
    ratios = masks.flatten(1).float().mean(dim=1)
    shown = ratios == 0.0
    assert 0.4 < float(shown.float().mean()) < 0.6
    assert ratios[~shown].min() >= 0.2 and ratios[~shown].max() <= 0.4 + 1 / 216
    one = [masking.draw_masks(Masking(), views=1, size=42).any() for _ in range(20)]
    assert all(one)


@pytest.mark.parametrize("size", [33, 42, 48])
def test_a_token_covers_the_voxels_it_is_made_of(size: int) -> None:
    masks = masking.draw_masks(Masking(ratio=(0.4, 0.5)), views=3, size=size)
    views = torch.rand(3, 1, size, size, size)
    hidden = masking.hide(views, masks)
    means = views.mean(dim=(1, 2, 3, 4))
    for index in torch.cartesian_prod(*[torch.arange(size)] * 3)[:: size * 7].tolist():
        token = tuple(place // 16 for place in index)
        for view in range(3):
            expected = means[view] if masks[(view, *token)] else views[(view, 0, *index)]
            assert float(hidden[(view, 0, *index)]) == pytest.approx(float(expected), abs=1e-6)


def test_tokens_are_those_of_the_map() -> None:
    encoder = CoralBayEncoder(feature_size=12)
    with torch.no_grad():
        feature_map = encoder.forward_features(torch.rand(2, 1, 42, 42, 42))[masking.MAP]
    masks = masking.draw_masks(Masking(), views=2, size=42)
    assert feature_map.shape[2:] == masks.shape[1:]
    tokens = masking.hidden_tokens(feature_map, masks)
    assert tokens.shape == (int(masks.sum()), 8 * 12)
    view, *place = masks.nonzero()[0].tolist()
    torch.testing.assert_close(tokens[0], feature_map[(view, slice(None), *place)])


def test_equals_ibot_of_lightly() -> None:
    """Lightly weighs each token by the number of those of its view, which is 6 for both here."""
    reference = lightly_loss.IBOTPatchLoss(50, teacher_temp=0.05, student_temp=0.1)
    term = masking.MaskedTerm(Masking(num_prototypes=50))
    masks = torch.zeros(2, 3, 3, dtype=torch.bool)
    masks[:, :2] = True
    for _ in range(3):
        teacher, student = torch.randn(12, 50), torch.randn(12, 50, requires_grad=True)
        expected = reference(teacher, student, masks)
        found = term(teacher, student, teacher_temperature=0.05, student_temperature=0.1)
        term.targets.end_step()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"weight": 0.0}, {"ratio": (0.5, 0.2)}, {"ratio": (0.0, 0.2)}])
def test_refuses_what_cannot_be(wrong: dict) -> None:
    with pytest.raises(ValueError, match="`masking` takes"):
        Masking(**wrong)
