"""Tests on tensors that only claim to be on a GPU: a device mismatch is found without a card.

Backward passes are left out: torch's autograd asks for a driver even for fake tensors.
"""

import numpy as np
import pytest
import torch
from torch._subclasses import fake_tensor

from eva_coralbay.models.encoder import CoralBayEncoder
from eva_coralbay.pretraining import loss, views


def _has_fake_cuda() -> bool:
    """Whether this version of torch computes with fake CUDA tensors where there is no driver."""
    with fake_tensor.FakeTensorMode():
        try:
            torch.empty(2, 3, device="cuda").T.contiguous()
        except (RuntimeError, AssertionError):
            return False
    return True


pytestmark = pytest.mark.skipif(
    not _has_fake_cuda(), reason="this torch asks for a CUDA driver even for fake tensors"
)

_BATCH = 3
"""A batch size of these tests alone, as layouts are kept by batch size and device."""


@pytest.mark.parametrize("is_bfloat16", [False, True])
def test_the_encoder_stays_on_its_device(is_bfloat16: bool) -> None:
    encoder = CoralBayEncoder(feature_size=12, out_indices=6)
    with fake_tensor.FakeTensorMode(allow_non_fake_inputs=True):
        weights = _claim(encoder)
        volume = torch.empty(_BATCH, 1, 40, 40, 40, device="cuda")
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=is_bfloat16):
            maps = torch.func.functional_call(encoder, weights, (volume,))
    assert {each.device.type for each in maps} == {"cuda"}
    assert [each.shape[1] for each in maps] == encoder.feature_channels


def test_a_mismatch_is_found() -> None:
    """The other tests of this file can fail."""
    encoder = CoralBayEncoder(feature_size=12)
    with fake_tensor.FakeTensorMode(allow_non_fake_inputs=True):
        weights = _claim(encoder)
        volume = torch.empty(_BATCH, 1, 40, 40, 40)
        with pytest.raises(RuntimeError, match="device"):
            torch.func.functional_call(encoder, weights, (volume,))


@pytest.mark.parametrize("balance", ["sinkhorn", "centering"])
def test_targets_and_loss_stay_on_their_device(balance: str) -> None:
    targets = loss.SinkhornKnopp(16) if balance == "sinkhorn" else loss.Centering(16)
    with fake_tensor.FakeTensorMode(allow_non_fake_inputs=True):
        state = _claim(targets)
        logits = torch.empty(2, _BATCH, 16, device="cuda")
        probs = torch.func.functional_call(
            targets, state, (logits,), {"temperature": 0.04}, strict=False
        )
        student = torch.empty(4, _BATCH, 16, device="cuda")
        value = loss.distillation_loss(probs, student, temperature=0.1)
        koleo = loss.koleo_loss(torch.empty(_BATCH, 8, device="cuda"))
    assert {probs.device.type, value.device.type, koleo.device.type} == {"cuda"}


def test_views_without_noise_stay_on_their_device() -> None:
    sizes = views.Views(
        global_size=34,
        local_size=33,
        num_locals=1,
        global_edge=(30, 44),
        local_edge=(16, 24),
        region_size=44,
    )
    drawn, _ = views.draw(sizes, np.array([[0, 44]] * 3), np.random.default_rng(0))
    with fake_tensor.FakeTensorMode(allow_non_fake_inputs=True):
        parts = (torch.empty((_BATCH, *part.shape), device="cuda") for part in drawn)
        regions = torch.empty((_BATCH, 1, 44, 44, 44), dtype=torch.int16, device="cuda")
        try:
            rendered = views.render(regions, views.Drawn(*parts), size=34)
        except fake_tensor.DataDependentOutputException:
            pytest.skip("the noise of a view is drawn by a value of its sample")
    assert rendered.device.type == "cuda"


def _claim(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Returns a state of a module whose tensors claim to be on a GPU."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {
        name: torch.empty(value.shape, dtype=value.dtype, device="cuda")
        for name, value in tensors.items()
    }
