"""Tests that views show what was drawn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_coralbay.pretraining import views as views_lib
from eva_coralbay.pretraining.views import Drawn, Views

_VIEWS = Views(
    global_size=40, local_size=34, num_locals=3, global_edge=(40, 60), local_edge=(20, 30),
    region_size=64,
)  # fmt: skip

_WHOLE = np.array([[0, 64]] * 3)


def _plain(theta: torch.Tensor, window: tuple[float, float] = (0.0, 1.0)) -> Drawn:
    """Returns a view with nothing but a place and a window."""
    windows = torch.tensor(window).expand(1, 1, 1, 2)
    one = torch.ones(1, 1)
    return Drawn(theta[None, None].float(), windows, one, 0.0 * one, 0.0 * one, one.long())


def _random(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_the_whole_region_is_itself() -> None:
    region = _random((1, 1, 16, 16, 16))
    view = views_lib.render(region, _plain(torch.eye(3, 4)), size=16)
    torch.testing.assert_close(view[:, 0], region, rtol=0, atol=1e-5)


def test_flips_and_turns_are_those_of_torch() -> None:
    region = _random((1, 1, 16, 16, 16))
    flipped, turned = torch.eye(3, 4), torch.eye(3, 4)
    flipped[2, 2] = -1.0
    turned[:2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    view = views_lib.render(region, _plain(flipped), size=16)
    torch.testing.assert_close(view[0, 0], region[0].flip(1), rtol=0, atol=1e-5)
    view = views_lib.render(region, _plain(turned), size=16)
    torch.testing.assert_close(view[0, 0], region[0].rot90(1, (2, 3)), rtol=0, atol=1e-5)


def test_a_crop_is_cut_and_resized() -> None:
    ramp = torch.arange(16.0).view(1, 1, 16, 1, 1).expand(1, 1, 16, 16, 16)
    theta = 0.5 * torch.eye(3, 4)
    theta[2, 3] = 0.25
    view = views_lib.render(ramp, _plain(theta, (0.0, 16.0)), size=16)
    # D from voxel 6 to 14 in 16 steps: the first one's middle is a quarter voxel behind the edge
    expected = (5.75 + 0.5 * torch.arange(16.0)) / 16.0
    torch.testing.assert_close(view[0, 0, 0, :, 3, 3], expected)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), low=st.integers(0, 30), length=st.integers(20, 34))
def test_views_lie_in_the_scan(seed: int, low: int, length: int) -> None:
    extent = np.array([[low, low + length], [0, 64], [0, 64]])
    drawn = views_lib.draw(_VIEWS, extent, np.random.default_rng(seed))
    for views, (least, most) in zip(drawn, ((40, 60), (20, 30)), strict=True):
        edges = 64.0 * views.theta[:, :, :3].abs().sum(dim=2)[:, 0]
        assert ((edges >= least - 1e-3) & (edges <= most + 1e-3)).all()
        # x, y, z to D, H, W
        centers = 32.0 * (views.theta[:, :, 3].flip(1) + 1.0)
        lower, upper = centers - edges[:, None] / 2, centers + edges[:, None] / 2
        assert (lower >= -1e-3).all() and (upper <= 64.0 + 1e-3).all()
        for edge, start, stop in zip(edges, lower[:, 0], upper[:, 0], strict=True):
            inside = start >= low - 1e-3 and stop <= low + length + 1e-3
            around = start <= low + 1e-3 and stop >= low + length - 1e-3
            assert inside if edge <= length else (around or stop >= 64 - 1e-3 or start <= 1e-3)


def test_a_view_is_a_rotation_of_the_region() -> None:
    generator = np.random.default_rng(0)
    signs = set()
    for _ in range(100):
        theta = views_lib.draw(_VIEWS, _WHOLE, generator)[0].theta[:, :, :3].double()
        scales = theta.abs().sum(dim=2, keepdim=True)
        axes = theta / scales
        torch.testing.assert_close(axes @ axes.mT, torch.eye(3).double().expand(2, 3, 3))
        signs |= {round(float(value)) for value in torch.linalg.det(axes)}
    assert signs == {-1, 1}


def test_windows_are_drawn_as_the_recipe_says() -> None:
    generator = np.random.default_rng(0)
    drawn = [views_lib.draw(_VIEWS, _WHOLE, generator) for _ in range(500)]
    windows = torch.stack([views.windows[:, 0] for views, _ in drawn]).flatten(0, 1)
    widths = windows[:, 1] - windows[:, 0]
    assert widths.min() >= 350.0 - 1e-3 and widths.max() <= 4000.0 + 1e-3
    wide = (windows == torch.tensor([-1000.0, 1000.0])).all(dim=1).float().mean()
    assert 0.16 < wide < 0.24
    local_widths = torch.stack([views.windows[:, 0] for _, views in drawn]).diff(dim=-1)
    assert local_widths.min() < 250.0


def test_a_flat_view_gets_another_window() -> None:
    region = 100.0 * _random((1, 1, 16, 16, 16))
    windows = torch.tensor([[-5000.0, -3000.0], [0.0, 100.0], [0.0, 50.0]]).view(1, 1, 3, 2)
    drawn = _plain(torch.eye(3, 4))._replace(windows=windows)
    view = views_lib.render(region, drawn, size=16)
    torch.testing.assert_close(view[:, 0], region / 100.0, rtol=0, atol=1e-5)


def test_intensities() -> None:
    region = _random((1, 1, 16, 16, 16))
    plain = _plain(torch.eye(3, 4))
    view = views_lib.render(region, plain, size=16)
    gamma = views_lib.render(region, plain._replace(gamma=torch.full((1, 1), 2.0)), size=16)
    torch.testing.assert_close(gamma, view**2, rtol=0, atol=1e-5)
    blurred = views_lib.render(region, plain._replace(smoothing=torch.full((1, 1), 0.9)), size=16)
    sharpened = views_lib.render(
        region, plain._replace(smoothing=torch.full((1, 1), -0.5)), size=16
    )
    assert blurred.std() < 0.8 * view.std() and sharpened.std() > 1.1 * view.std()
    assert blurred.mean().item() == pytest.approx(view.mean().item(), abs=0.01)
    noisy = views_lib.render(region, plain._replace(noise=torch.full((1, 1), 0.05)), size=16)
    assert 0.03 < (noisy - view).std() < 0.06
    assert sharpened.min() >= 0.0 and sharpened.max() <= 1.0


def test_a_batch_is_its_samples() -> None:
    generator = np.random.default_rng(0)
    samples = [views_lib.draw(_VIEWS, _WHOLE, generator)[1] for _ in range(3)]
    assert any(sample.noise.any() for sample in samples)
    regions = (1500.0 * _random((3, 1, 64, 64, 64)) - 1000.0).to(torch.int16)
    batch = Drawn(*(torch.stack(parts) for parts in zip(*samples, strict=True)))
    together = views_lib.render(regions, batch, size=34)
    assert together.shape == (3, 3, 1, 34, 34, 34) and together.dtype == torch.float32
    for index, sample in enumerate(samples):
        alone = Drawn(*(part[None] for part in sample))
        found = views_lib.render(regions[index : index + 1], alone, size=34)
        torch.testing.assert_close(found[0], together[index], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"global_size": 32},
        {"local_edge": (0, 40)},
        {"global_edge": (96, 200)},
        {"max_global_overlap": 0.0},
    ],
)
def test_refuses_sizes_that_cannot_be(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Views(**wrong)


def _overlaps(views: Views) -> np.ndarray:
    generator = np.random.default_rng(0)
    extent = np.array([[0, views.region_size]] * 3)
    thetas = [views_lib.draw(views, extent, generator)[0].theta.numpy() for _ in range(200)]
    return np.array([views_lib.overlap(*theta) for theta in thetas])


def test_the_overlap_of_the_global_views_is_the_stated_one_and_can_be_bounded() -> None:
    assert _overlaps(Views()).mean() == pytest.approx(0.91, abs=0.02)
    apart = _overlaps(Views(max_global_overlap=0.5, region_size=192))
    assert (apart <= 0.5).mean() > 0.9 and apart.mean() < 0.45
    # where views cannot lie so far apart, the one farthest apart of some is taken
    assert _overlaps(Views(max_global_overlap=0.01)).mean() < 0.75


def test_overlap_is_counted_in_voxels() -> None:
    first, second = np.zeros((2, 3, 4))
    first[:, :3] = np.eye(3) * 20 / 64
    second[:, :3] = -np.eye(3)[[1, 0, 2]] * 40 / 64
    second[:, 3] = [2.0 * 16 / 64, 0.0, 0.0]
    # the smaller one ends at voxel 10 of the middle, the larger one begins at -4
    assert views_lib.overlap(first, second) == pytest.approx(14 / 20)


def test_the_strength_of_the_augmentation() -> None:
    generator = np.random.default_rng(0)
    plain = views_lib.draw(_VIEWS, _WHOLE, generator, strength=0.0)
    for views in plain:
        scales = views.theta[:, 0, 0]
        torch.testing.assert_close(views.theta[:, :, :3], scales[:, None, None] * torch.eye(3))
        assert (views.windows == torch.tensor([-1000.0, 1000.0])).all()
        assert (views.gamma == 1.0).all() and not (views.smoothing.any() or views.noise.any())
    halves = [views_lib.draw(_VIEWS, _WHOLE, generator, strength=0.5)[1] for _ in range(300)]
    windows = torch.cat([views.windows[:, 0] for views in halves])
    wide = (windows == torch.tensor([-1000.0, 1000.0])).all(dim=1).float().mean()
    assert float(wide) == pytest.approx(0.5 + 0.5 * 0.2, abs=0.05)
    changed = torch.cat([views.gamma for views in halves]) != 1.0
    assert float(changed.float().mean()) == pytest.approx(0.15, abs=0.04)
