"""Tests that the head is DINO's."""

import pytest
import torch
from lightly.models.modules import heads as lightly_heads

from eva_coralbay.pretraining.heads import Head

_PERCEPTRON = (0, 2, 4)
"""The linear layers of the perceptron."""


@pytest.fixture(name="pair")
def _pair() -> tuple[Head, torch.nn.Module]:
    """Returns our head and lightly's with the same weights."""
    head = Head(24, 50, hidden_dims=(32, 16), bottleneck_dim=8)
    reference = lightly_heads.DINOProjectionHead(24, 32, 8, 50, batch_norm=False)
    reference.layers[2] = torch.nn.Linear(32, 16)
    reference.layers[4] = torch.nn.Linear(16, 8)
    with torch.no_grad():
        for index in _PERCEPTRON:
            reference.layers[index].load_state_dict(head.perceptron[index].state_dict())
        reference.last_layer.get_parameter("weight_v").copy_(head.prototypes)
    return head, reference


def test_equals_lightly(pair: tuple[Head, torch.nn.Module]) -> None:
    head, reference = pair
    embeddings = torch.randn(7, 24)
    logits, expected = head(embeddings), reference(embeddings)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
    (logits**2).mean().backward()
    (expected**2).mean().backward()
    assert head.prototypes.grad is not None
    torch.testing.assert_close(
        head.prototypes.grad, reference.last_layer.weight_v.grad, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        head.perceptron[0].weight.grad, reference.layers[0].weight.grad, rtol=1e-5, atol=1e-6
    )


def test_logits_are_cosines() -> None:
    logits = Head(24, 50, hidden_dims=(32, 16), bottleneck_dim=8)(torch.randn(7, 24) * 1e3)
    assert logits.shape == (7, 50)
    assert logits.abs().max() <= 1.0 + 1e-6


def test_computes_in_float32_inside_autocast() -> None:
    head = Head(24, 50, hidden_dims=(32, 16), bottleneck_dim=8)
    embeddings = torch.randn(7, 24).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(embeddings)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, head(embeddings.float()), rtol=0, atol=0)


def test_standardized_logits_vary_over_nearly_parallel_embeddings() -> None:
    head = Head(24, 50, hidden_dims=(32, 16), bottleneck_dim=8)
    embeddings = 1.0 + 1e-3 * torch.randn(64, 24)
    assert head(embeddings).std(dim=0).mean() < 0.05
    head.standardize(embeddings, parts=[8, 16])
    outputs = head.perceptron(embeddings)
    torch.testing.assert_close(outputs.mean(dim=0), torch.zeros(8), rtol=0, atol=1e-3)
    torch.testing.assert_close(outputs.std(dim=0), torch.ones(8), rtol=0, atol=1e-3)
    assert head(embeddings).std(dim=0).mean() > 0.2


def test_standardized_parts_have_the_same_say() -> None:
    head = Head(24, 50, hidden_dims=(64, 16), bottleneck_dim=8)
    embeddings = torch.cat([torch.randn(256, 4), 1e-2 * torch.randn(256, 20)], dim=1)
    head.standardize(embeddings, parts=[4, 20])
    first = head.perceptron[0]
    assert isinstance(first, torch.nn.Linear)
    said = [
        (part @ weight.T).var()
        for part, weight in zip(
            embeddings.split([4, 20], dim=1), first.weight.split([4, 20], dim=1), strict=True
        )
    ]
    assert 0.5 < said[0] / said[1] < 2.0
