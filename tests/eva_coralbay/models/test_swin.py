"""Tests the parts of the Swin transformer that the outputs of the encoder do not show."""

import copy
import io

import hypothesis
import pytest
import torch
from eva.vision.models.networks.backbones.radiology import SwinUNETREncoder
from hypothesis import strategies
from monai.networks.nets import swin_unetr

from eva_coralbay.models import CoralBayEncoder, attention

_CPU = torch.device("cpu")


def _volume(*size: int) -> torch.Tensor:
    return torch.rand((1, 1, *size), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("use_v2", [True, False])
def test_state_dict_is_laid_out_as_evas(use_v2: bool) -> None:
    ours = CoralBayEncoder(feature_size=24, in_channels=2, use_v2=use_v2)
    reference = SwinUNETREncoder(feature_size=24, in_channels=2, use_v2=use_v2)
    assert list(ours.state_dict()) == list(reference.state_dict())
    reference.load_state_dict(ours.state_dict(), strict=True)
    for name, tensor in ours.state_dict().items():
        if name.endswith("relative_position_index"):
            assert torch.equal(tensor, SwinUNETREncoder(feature_size=12).state_dict()[name])
            break


def test_initial_weights_are_distributed_as_evas() -> None:
    torch.manual_seed(0)
    ours, reference = CoralBayEncoder(feature_size=24), SwinUNETREncoder(feature_size=24)
    expected = dict(reference.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.numel() > 1000:
            spread = float(expected[name].std())
            assert float(parameter.std()) == pytest.approx(spread, rel=0.15), name
            assert float(parameter.mean()) == pytest.approx(
                float(expected[name].mean()), abs=0.1 * spread + 1e-6
            ), name


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    batch_size=strategies.integers(1, 2),
    size=strategies.tuples(*[strategies.integers(1, 17)] * 3),
    shifted=strategies.booleans(),
)
def test_layout_equals_pad_roll_and_partition(
    batch_size: int, size: tuple[int, int, int], shifted: bool
) -> None:
    layout = attention.window_layout(batch_size, size, shifted=shifted, device=_CPU)
    num_tokens = batch_size * size[0] * size[1] * size[2]
    assert torch.equal(layout.gather[layout.scatter], torch.arange(num_tokens))

    window, shift = swin_unetr.get_window_size(size, (7, 7, 7), (3, 3, 3))
    if not shifted:
        shift = (0, 0, 0)
    padding = [-length % edge for length, edge in zip(size, window, strict=True)]
    tokens = torch.arange(num_tokens).view(batch_size, *size, 1) - num_tokens
    tokens = torch.nn.functional.pad(
        tokens, (0, 0, 0, padding[2], 0, padding[1], 0, padding[0])
    ).roll([-step for step in shift], dims=(1, 2, 3))
    expected = swin_unetr.window_partition(tokens + num_tokens, window).squeeze(-1)
    masks = torch.zeros(len(expected), layout.length, layout.length)
    if any(shift):
        masks = swin_unetr.compute_mask(tokens.shape[1:4], window, shift, _CPU)
        masks = masks.repeat(batch_size, 1, 1)

    actual_windows = layout.gather.view(-1, layout.length)
    actual_masks = layout.masks.squeeze(1).repeat_interleave(torch.tensor(layout.counts), dim=0)
    assert len(layout.counts) <= 8
    order = {tuple(row): index for index, row in enumerate(expected.tolist())}
    index = [order[tuple(row)] for row in actual_windows.tolist()]
    assert sorted(index) == list(range(len(expected)))
    assert torch.equal(actual_masks, masks[index])


def test_attention_has_the_right_gradients() -> None:
    """Two windows with a shift mask, in double precision, against finite differences."""
    torch.manual_seed(0)
    module = attention.WindowAttention(6, num_heads=3).double()
    layout = attention.window_layout(1, (8, 1, 1), shifted=True, device=_CPU)
    assert len(layout.counts) == 2
    windows = torch.randn(2, layout.length, 6, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in module.named_parameters()]
    parameters = [p.detach().requires_grad_() for p in module.parameters()]

    def attend(windows: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        weights = dict(zip(names, values, strict=True))
        return torch.func.functional_call(module, weights, (windows, layout))

    assert torch.autograd.gradcheck(attend, (windows, *parameters), fast_mode=True)


def test_autocast_trains_with_gradients_close_to_those_of_float32() -> None:
    torch.manual_seed(0)
    module = attention.WindowAttention(24, num_heads=3)
    layout = attention.window_layout(1, (14, 14, 7), shifted=True, device=_CPU)
    windows = torch.randn(len(layout.gather) // layout.length, layout.length, 24)
    gradients = []
    for enabled in (False, True):
        module.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            output = module(windows, layout)
        output.float().square().sum().backward()
        gradients.append([parameter.grad for parameter in module.parameters()])
    for expected, actual in zip(*gradients, strict=True):
        assert float((actual - expected).norm() / expected.norm()) < 0.05


def test_copies_compute_the_same() -> None:
    encoder = CoralBayEncoder(feature_size=12).eval()
    tensor = _volume(40, 40, 40)
    with torch.no_grad():
        expected = encoder(tensor)
        file = io.BytesIO()
        torch.save(encoder, file)
        file.seek(0)
        for other in (copy.deepcopy(encoder), torch.load(file, weights_only=False)):
            assert torch.equal(other(tensor), expected)


def test_outputs_follow_the_type_of_the_weights() -> None:
    encoder = CoralBayEncoder(feature_size=12).eval()
    tensor = _volume(40, 40, 40)
    with torch.no_grad():
        single = encoder(tensor)
        double = encoder.double()(tensor.double())
        assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), single, rtol=1e-3, atol=1e-4)
        assert torch.equal(encoder.float()(tensor), single)


def test_trains_after_inference_mode() -> None:
    encoder = CoralBayEncoder(feature_size=12).eval()
    size = (35, 38, 41)  # of no other test: what it needs is made in inference mode
    with torch.inference_mode():
        encoder(_volume(*size))
    encoder.train()(_volume(*size)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_leaves_its_input_as_it_is() -> None:
    encoder, tensor = CoralBayEncoder(feature_size=12, out_indices=6), _volume(36, 36, 36)
    before = tensor.clone()
    first = encoder(tensor)
    assert torch.equal(tensor, before)
    with torch.no_grad():
        for kept, again in zip(first, encoder.eval()(tensor), strict=True):
            torch.testing.assert_close(kept, again)


def test_scores_are_not_kept_for_the_backward_pass() -> None:
    encoder = CoralBayEncoder(feature_size=12)
    shapes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(t.shape) or t, _identity):
        encoder(_volume(64, 64, 64))
    windows = 5**3
    assert not [shape for shape in shapes if shape[-2:] == (343, 343) and shape[0] >= windows]


def _identity(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
