"""Tests that loss and targets are those of other public implementations."""

import math

import lightly.loss
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import swav_loss
from torch import nn

from eva_coralbay.pretraining import loss

_K = 40


def test_equals_dino_of_lightly_over_steps() -> None:
    reference = lightly.loss.DINOLoss(_K, center_momentum=0.9, student_temp=0.1)
    centering = loss.Centering(_K, momentum=0.9)
    for temperature in (0.04, 0.05, 0.07):
        teacher, student = torch.randn(2, 5, _K), torch.randn(6, 5, _K, requires_grad=True)
        expected = reference(list(teacher), list(student), teacher_temp=temperature)
        (expected_gradient,) = torch.autograd.grad(expected, student)
        targets = centering(teacher, temperature=temperature)
        value = loss.distillation_loss(targets, student, temperature=0.1)
        (gradient,) = torch.autograd.grad(value, student)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-6)
        centering.end_step()
        torch.testing.assert_close(centering.center, reference.center[0, 0], rtol=0, atol=1e-6)


def test_no_local_views() -> None:
    reference = lightly.loss.DINOLoss(_K)
    teacher, student = torch.randn(2, 5, _K), torch.randn(2, 5, _K)
    targets = loss.Centering(_K)(teacher, temperature=0.04)
    value = loss.distillation_loss(targets, student, temperature=0.1)
    torch.testing.assert_close(value, reference(list(teacher), list(student)))


def test_is_ln_k_where_all_is_uniform() -> None:
    value = loss.distillation_loss(
        torch.full((2, 3, _K), 1.0 / _K), torch.zeros(4, 3, _K), temperature=0.1
    )
    assert value.item() == pytest.approx(math.log(_K), rel=1e-6)


def test_center_is_untouched_by_a_step_that_is_left_out() -> None:
    centering = loss.Centering(_K)
    centering(torch.randn(2, 5, _K), temperature=0.04)
    centering.end_step()
    before = centering.center.clone()
    centering(torch.full((2, 5, _K), math.nan), temperature=0.04)
    centering.end_step(is_taken=False)
    torch.testing.assert_close(centering.center, before, rtol=0, atol=0)
    centering(torch.randn(2, 5, _K), temperature=0.04)
    centering.end_step()
    assert torch.isfinite(centering.center).all()


def test_accumulated_batches_move_the_center_as_one() -> None:
    joint, apart = loss.Centering(_K), loss.Centering(_K)
    for _ in range(2):
        logits = torch.randn(2, 6, _K)
        expected = joint(logits, temperature=0.04)
        found = [apart(part, temperature=0.04) for part in logits.split(3, dim=1)]
        torch.testing.assert_close(torch.cat(found, dim=1), expected, rtol=1e-5, atol=1e-6)
        joint.end_step()
        apart.end_step()
    torch.testing.assert_close(apart.center, joint.center, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_is_float32_under_autocast(dtype: torch.dtype) -> None:
    """Near ln K the next number in bfloat16 is 1/16 away, near a cosine of 1 it is 1/256."""
    teacher = torch.randn(2, 5, _K).to(dtype)
    student = torch.randn(6, 5, _K, dtype=dtype)
    embeddings = (1.0 + 0.1 * torch.randn(12, 30)).to(dtype)

    def compute() -> list[torch.Tensor]:
        centering, balance = loss.Centering(_K), loss.SinkhornKnopp(_K)
        probs = [targets(teacher, temperature=0.04) for targets in (centering, balance)]
        values = [loss.distillation_loss(each, student, temperature=0.1) for each in probs]
        return [*probs, *values, loss.koleo_loss(embeddings)]

    expected = compute()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = compute()
    for value, reference in zip(found, expected, strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, reference, rtol=0, atol=0)


@pytest.mark.parametrize("temperature", [0.04, 0.07])
def test_sinkhorn_knopp_equals_lightly(temperature: float) -> None:
    logits = nn.functional.normalize(torch.randn(2, 16, _K), dim=-1)
    expected = swav_loss.sinkhorn(logits.flatten(0, 1), iterations=3, epsilon=temperature)
    found = loss.SinkhornKnopp(_K)(logits, temperature=temperature)
    torch.testing.assert_close(found.flatten(0, 1), expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), spread=st.floats(0.0, 10.0), temperature=st.floats(0.03, 1.0))
def test_sinkhorn_knopp_gives_distributions(seed: int, spread: float, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.ones(8) + spread * torch.randn(2, 9, 8, generator=generator)
    prototypes = torch.randn(_K, 8, generator=generator)
    logits = nn.functional.normalize(points, dim=-1) @ nn.functional.normalize(prototypes).T
    targets = loss.SinkhornKnopp(_K)(logits, temperature=temperature)
    assert torch.isfinite(targets).all()
    torch.testing.assert_close(targets.sum(dim=-1), torch.ones(2, 9), rtol=1e-4, atol=1e-4)


def test_koleo_equals_lightly() -> None:
    embeddings = torch.randn(12, 30, requires_grad=True)
    expected, value = lightly.loss.KoLeoLoss()(embeddings), loss.koleo_loss(embeddings)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)
    (expected_gradient,) = torch.autograd.grad(expected, embeddings)
    (gradient,) = torch.autograd.grad(value, embeddings)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)


def test_koleo_falls_when_points_move_apart() -> None:
    points = torch.eye(4)
    near = points + 0.9 * points.roll(1, dims=0)
    assert loss.koleo_loss(points) < loss.koleo_loss(near)


def test_entropy_is_between_0_and_ln_k() -> None:
    uniform, sure = torch.full((2, 3, _K), 1.0 / _K), torch.eye(_K)[None]
    assert loss.entropy(uniform).item() == pytest.approx(math.log(_K), rel=1e-6)
    assert loss.entropy(sure).item() == 0.0


def test_a_queue_is_balanced_together_with_the_batch() -> None:
    logits = nn.functional.normalize(torch.randn(3, 2, 8, _K), dim=-1)
    balance = loss.SinkhornKnopp(_K, queue_size=20)
    for past in logits[:2]:
        balance(past, temperature=0.05)
        balance.end_step()
    # the latest first, and the oldest 12 are gone
    joint = torch.cat([logits[2].flatten(0, 1), logits[1].flatten(0, 1), logits[0].flatten(0, 1)])
    expected = swav_loss.sinkhorn(joint[:36], iterations=3, epsilon=0.05)[:16]
    found = balance(logits[2], temperature=0.05).flatten(0, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_queue_that_is_not_full_yet_counts_what_is_in_it() -> None:
    first, second = nn.functional.normalize(torch.randn(2, 2, 8, _K), dim=-1)
    balance = loss.SinkhornKnopp(_K, queue_size=500)
    plain = loss.SinkhornKnopp(_K)(first, temperature=0.05)
    torch.testing.assert_close(balance(first, temperature=0.05), plain, rtol=1e-5, atol=1e-6)
    balance.end_step()
    joint = torch.cat([second, first], dim=1)
    expected = loss.SinkhornKnopp(_K)(joint, temperature=0.05)[:, :8]
    torch.testing.assert_close(balance(second, temperature=0.05), expected, rtol=1e-4, atol=1e-6)
    assert torch.isfinite(balance(second, temperature=0.05)).all()


def test_a_queue_leaves_out_a_step_that_is_left_out_and_lies_in_the_checkpoint() -> None:
    balance = loss.SinkhornKnopp(_K, queue_size=10)
    balance(torch.randn(2, 3, _K), temperature=0.05)
    balance.end_step(is_taken=False)
    assert not balance.queue.isfinite().any()
    balance(torch.randn(2, 3, _K), temperature=0.05)
    balance.end_step()
    assert balance.queue.isfinite().all(dim=1).sum() == 6
    assert "queue" in balance.state_dict() and not loss.SinkhornKnopp(_K).state_dict()


def test_with_a_queue_the_entropy_says_what_the_teacher_knows() -> None:
    """Over 8 samples and 512 prototypes it is about ln(512 / 8), whatever the logits are."""
    prototypes = nn.functional.normalize(torch.randn(512, 32), dim=-1)
    points = nn.functional.normalize(torch.randn(130, 2, 4, 32), dim=-1)
    small, large = loss.SinkhornKnopp(512), loss.SinkhornKnopp(512, queue_size=1024)
    for batch in points[:-1]:
        large(batch @ prototypes.T, temperature=0.02)
        large.end_step()
    logits = points[-1] @ prototypes.T
    entropies = [float(loss.entropy(each(logits, temperature=0.02))) for each in (small, large)]
    own = float(loss.entropy(torch.softmax(logits / 0.02, dim=-1)))
    assert entropies[0] > math.log(512 / 8) - 0.5
    assert abs(entropies[1] - own) < abs(entropies[0] - own) / 2
