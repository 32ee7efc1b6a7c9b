"""Tests of what student and teacher are built of, and of how they are moved."""

import pytest
import torch
from torch import nn

from eva_coralbay.pretraining import networks


def _with_gradients() -> nn.Module:
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    for scale, parameter in zip((5.0, 0.01, 2.0, 0.3), network.parameters(), strict=True):
        parameter.grad = scale * torch.ones_like(parameter)
    return network


def _norms(network: nn.Module) -> list[float]:
    return [float(value.grad.norm()) for value in network.parameters() if value.grad is not None]


def test_clips_the_gradient_as_a_whole() -> None:
    network = _with_gradients()
    before = _norms(network)
    norm = networks.clip_gradient(network, 3.0, by="whole")
    assert float(norm) == pytest.approx(sum(value**2 for value in before) ** 0.5)
    assert sum(value**2 for value in _norms(network)) ** 0.5 == pytest.approx(3.0, rel=1e-4)
    assert _norms(network)[1] == pytest.approx(before[1] * 3.0 / float(norm), rel=1e-4)


def test_clips_the_gradient_of_each_parameter_as_dino_does() -> None:
    network = _with_gradients()
    before = _norms(network)
    norm = networks.clip_gradient(network, 3.0, by="parameter")
    assert float(norm) == pytest.approx(sum(value**2 for value in before) ** 0.5)
    assert _norms(network) == pytest.approx([min(value, 3.0) for value in before], rel=1e-4)


@pytest.mark.parametrize("by", ["whole", "parameter"])
def test_a_gradient_that_is_not_finite_has_no_finite_norm(by) -> None:
    network = _with_gradients()
    gradient = next(network.parameters()).grad
    assert gradient is not None
    gradient[0, 0] = torch.nan
    assert not torch.isfinite(networks.clip_gradient(network, 3.0, by=by))


@pytest.mark.parametrize(
    ("scans", "balanced", "prototypes"), [(65, None, 1024), (65, 128, 128), (11000, 4096, 4096)]
)
def test_prototypes_follow_from_the_scans_and_from_what_is_balanced(
    scans: int, balanced: int | None, prototypes: int
) -> None:
    assert networks.suitable_prototypes(scans, balanced=balanced) == prototypes
