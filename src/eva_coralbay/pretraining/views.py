"""The views of multi-crop: what is drawn for each, and how all are rendered at once.

All views of a sample lie in one region of a scan. What makes a view is drawn on the CPU, by a
random generator of its own for each sample, as a few numbers; the views are rendered from them
and the region on the accelerator, all of one size together.
"""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from eva_coralbay.models import encoder

_WIDE_WINDOW = (-1000.0, 1000.0)
"""The window that shows all tissues (lower, upper), in HU."""

_PRESETS = ((-600.0, 1500.0), (40.0, 400.0), (60.0, 200.0), (400.0, 1800.0), (50.0, 350.0))
"""Windows (level, width) in HU for lung, soft tissue, liver, bone and mediastinum."""

_PRESET_JITTER = 0.1
"""How far a level moves, as a part of the width, and the width, as a part of itself."""

_WIDTHS = (350.0, 4000.0)
"""The range of the widths in HU that are drawn without preset, log-uniformly."""

_LEVELS = (-600.0, 400.0)
"""The range of the levels in HU that are drawn without preset."""

_MIN_GLOBAL_WIDTH = 350.0
"""The least width in HU for global views: in narrower ones much of a scan is black or white."""

_REDRAWS = 2
"""How often another window is drawn for a view that is flat, before the wide one is taken."""

_MIN_STD = 0.02
"""The standard deviation in [0, 1] below which a view is flat."""

_FLAT_STEP = 4
"""Every how many voxels along each axis a view is looked at to see whether it is flat."""

_P_WIDE, _P_PRESET = 0.2, 0.4
"""How probable the wide window and a preset are; otherwise level and width are drawn."""

_P_FLIP, _P_TURN, _P_INTENSITY = 0.5, 0.3, 0.3
"""How probable are a flip of each axis, a rotation, and each change of the intensities."""

_GAMMAS = (0.5, 2.0)
"""The range of the exponent of the intensities, log-uniform."""

_SMOOTHINGS = (-0.6, 0.9)
"""From sharpened (negative) to blurred (positive): the part of the smoothed view in the result."""

_NOISES = (0.0, 0.05)
"""The range of the standard deviation of the noise in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class Views:
    """How many views a sample has, and how large they are."""

    global_size: int = 96
    """The edge of a global view in voxels."""

    local_size: int = 48
    """The edge of a local view in voxels."""

    num_locals: int = 8
    """The number of local views; global ones are two."""

    global_edge: tuple[int, int] = (96, 144)
    """The range of the edge of what a global view shows, in voxels of the prepared scan."""

    local_edge: tuple[int, int] = (40, 72)
    """The range of the edge of what a local view shows, in voxels of the prepared scan."""

    region_size: int = 144
    """The edge of the region that all views of a sample lie in, in voxels."""

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
            ValueError: If the encoder cannot take a view, or the region cannot hold it.
        """
        for name in ("global", "local"):
            size, (least, most) = getattr(self, f"{name}_size"), getattr(self, f"{name}_edge")
            if size < encoder.MIN_SIZE:
                raise ValueError(
                    f"`{name}_size` must be at least {encoder.MIN_SIZE} voxels; got {size}."
                )
            if not 0 < least <= most <= self.region_size:
                raise ValueError(
                    f"`{name}_edge` must be (least, most) voxels, not more than `region_size` "
                    f"({self.region_size}); got ({least}, {most})."
                )
        if self.num_locals < 0:
            raise ValueError(f"`num_locals` must not be negative; got {self.num_locals}.")


NUM_GLOBALS = 2
"""The number of global views of a sample."""


class Drawn(NamedTuple):
    """What makes the V views of one size of a sample; batched with one axis more in front."""

    theta: torch.Tensor
    """Where a view lies: [V, 3, 4], from its (x, y, z, 1) to (x, y, z) of the region, both in
    [-1, 1] as in `torch.nn.functional.grid_sample`, with x along W and z along D."""

    windows: torch.Tensor
    """HU windows (lower, upper), [V, N, 2]: the first in which the view is not flat is taken."""

    gamma: torch.Tensor
    """Exponent of the intensities, [V]; 1 for none."""

    smoothing: torch.Tensor
    """Part of the smoothed view in the result, [V]; negative sharpens, 0 for none."""

    noise: torch.Tensor
    """Standard deviation of the noise, [V]; 0 for none."""

    noise_seed: torch.Tensor
    """What the noise follows from, [V]: it is the same in any batch and on any rank."""


def draw(
    views: Views, extent: npt.NDArray[np.integer], generator: np.random.Generator
) -> tuple[Drawn, Drawn]:
    """Draws the views of a sample.

    Args:
        views: How many, and how large.
        extent: Where in the region the scan lies, as start and stop for each of (D, H, W), of
            shape [3, 2]; the rest of the region is padding.
        generator: The source of all randomness.

    Returns:
        The global and the local views.
    """
    return (
        _draw_views(NUM_GLOBALS, views.global_edge, _MIN_GLOBAL_WIDTH, views, extent, generator),
        _draw_views(views.num_locals, views.local_edge, 0.0, views, extent, generator),
    )


@torch.no_grad()
def render(regions: torch.Tensor, drawn: Drawn, *, size: int) -> torch.Tensor:
    """Renders views.

    Crop, resizing, flips and rotation of all views are one interpolation.

    Args:
        regions: The HU, of shape [B, 1, R, R, R].
        drawn: What makes the views, batched.
        size: The edge of a view, G.

    Returns:
        The views in [0, 1], float32, of shape [B, V, 1, G, G, G].
    """
    batch_size, num_views = drawn.theta.shape[:2]
    grid = functional.affine_grid(
        drawn.theta.flatten(0, 1), [batch_size * num_views, 1, size, size, size], False
    )
    hounsfield = functional.grid_sample(
        regions.float(),
        # the views of a sample, one behind the other along D, as one
        grid.view(batch_size, num_views * size, size, size, 3),
        padding_mode="border",
        align_corners=False,
    ).view(batch_size, num_views, size, size, size)
    tensor = apply_window(hounsfield, *_pick_window(hounsfield, drawn.windows))
    tensor = tensor.pow(_spread(drawn.gamma))
    tensor = tensor.lerp(_smooth(tensor), _spread(drawn.smoothing))
    _add_noise(tensor, drawn)
    return tensor.clamp_(0.0, 1.0)[:, :, None]


def apply_window(
    hounsfield: torch.Tensor, lower: torch.Tensor | float, upper: torch.Tensor | float
) -> torch.Tensor:
    """Maps an HU window to [0, 1].

    Args:
        hounsfield: The HU, of any shape.
        lower: What becomes 0, in HU; of a shape that broadcasts.
        upper: What becomes 1, in HU.
    """
    return ((hounsfield - lower) / (upper - lower)).clamp_(0.0, 1.0)


def _draw_views(
    number: int,
    edges: tuple[int, int],
    min_width: float,
    views: Views,
    extent: npt.NDArray[np.integer],
    generator: np.random.Generator,
) -> Drawn:
    """Draws views of one size."""
    theta = [_draw_theta(edges, views.region_size, extent, generator) for _ in range(number)]
    windows = [_draw_windows(min_width, generator) for _ in range(number)]
    intensities = [_draw_intensities(generator) for _ in range(number)]
    gamma, smoothing, noise = np.array(intensities, dtype=np.float32).reshape(number, 3).T
    return Drawn(
        torch.from_numpy(np.array(theta, dtype=np.float32).reshape(number, 3, 4)),
        torch.from_numpy(np.array(windows, dtype=np.float32).reshape(number, _REDRAWS + 2, 2)),
        torch.from_numpy(gamma.copy()),
        torch.from_numpy(smoothing.copy()),
        torch.from_numpy(noise.copy()),
        torch.from_numpy(generator.integers(2**63, size=number)),
    )


def _draw_theta(
    edges: tuple[int, int],
    region_size: int,
    extent: npt.NDArray[np.integer],
    generator: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Draws where a view lies: a cube, whose axes may be flipped and exchanged."""
    edge = generator.uniform(*edges)
    # inside the scan, or all around it where it is smaller
    bounds = np.sort([extent[:, 0], extent[:, 1] - edge], axis=0).clip(0.0, region_size - edge)
    center = generator.uniform(*bounds) + edge / 2.0
    signs = np.where(generator.random(3) < _P_FLIP, -1.0, 1.0)
    axes = _rotate_quarter(generator) if generator.random() < _P_TURN else np.eye(3)
    theta = np.empty((3, 4))
    theta[:, :3] = axes * signs * (edge / region_size)
    theta[:, 3] = (2.0 * center / region_size - 1.0)[::-1]
    return theta


def _rotate_quarter(generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draws a rotation by 90, 180 or 270 degrees in one of the three planes."""
    first, second = list(itertools.combinations(range(3), 2))[generator.integers(3)]
    quarter = np.eye(3)
    quarter[[first, second]] = quarter[[second, first]]
    quarter[first] *= -1.0
    return np.linalg.matrix_power(quarter, int(generator.integers(1, 4)))


def _draw_windows(min_width: float, generator: np.random.Generator) -> list[tuple[float, float]]:
    """Draws a window and those to take instead if the view is flat in it; the last is wide."""
    drawn = [_draw_window(min_width, generator) for _ in range(1 + _REDRAWS)]
    return [*drawn, _WIDE_WINDOW]


def _draw_window(min_width: float, generator: np.random.Generator) -> tuple[float, float]:
    kind = generator.random()
    if kind < _P_WIDE:
        return _WIDE_WINDOW
    if kind < _P_WIDE + _P_PRESET:
        level, width = _PRESETS[generator.integers(len(_PRESETS))]
        level += width * generator.uniform(-_PRESET_JITTER, _PRESET_JITTER)
        width *= 1.0 + generator.uniform(-_PRESET_JITTER, _PRESET_JITTER)
    else:
        level = generator.uniform(*_LEVELS)
        width = np.exp(generator.uniform(*np.log(_WIDTHS)))
    width = max(width, min_width)
    return level - width / 2.0, level + width / 2.0


def _draw_intensities(generator: np.random.Generator) -> tuple[float, float, float]:
    """Draws gamma, smoothing and noise."""
    applied = generator.random(3) < _P_INTENSITY
    gamma = np.exp(generator.uniform(*np.log(_GAMMAS)))
    smoothing, noise = generator.uniform(*_SMOOTHINGS), generator.uniform(*_NOISES)
    return (
        gamma if applied[0] else 1.0,
        smoothing if applied[1] else 0.0,
        noise if applied[2] else 0.0,
    )


def _pick_window(
    hounsfield: torch.Tensor, windows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Picks for each view the first window in which it is not flat, else the last one.

    Args:
        hounsfield: The HU, of shape [B, V, G, G, G].
        windows: Of shape [B, V, N, 2].

    Returns:
        Lower and upper ends, each of shape [B, V, 1, 1, 1].
    """
    step = _FLAT_STEP
    sparse = hounsfield[..., ::step, ::step, ::step].flatten(2)[:, :, None]
    candidates = windows[..., None]
    stds = apply_window(sparse, candidates[:, :, :, 0], candidates[:, :, :, 1]).std(dim=-1)
    shown = stds >= _MIN_STD
    shown[..., -1] = True
    first = shown.float().argmax(dim=-1)
    picked = windows.gather(2, first[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
    return _spread(picked[..., 0]), _spread(picked[..., 1])


def _smooth(tensor: torch.Tensor) -> torch.Tensor:
    """Averages each voxel of [B, V, G, G, G] with its neighbors, by (1, 2, 1) / 4 an axis."""
    for dim in (2, 3, 4):
        size = tensor.shape[dim]
        lower = torch.cat([tensor.narrow(dim, 0, 1), tensor.narrow(dim, 0, size - 1)], dim=dim)
        upper = torch.cat([tensor.narrow(dim, 1, size - 1), tensor.narrow(dim, size - 1, 1)], dim)
        tensor = lower.add_(upper).mul_(0.25).add_(tensor, alpha=0.5)
    return tensor


def _add_noise(tensor: torch.Tensor, drawn: Drawn) -> None:
    """Adds noise to those of the views [B, V, G, G, G] that have some."""
    stds, seeds = drawn.noise.flatten().tolist(), drawn.noise_seed.flatten().tolist()
    for view, std, seed in zip(tensor.flatten(0, 1), stds, seeds, strict=True):
        if std > 0.0:
            generator = torch.Generator(tensor.device).manual_seed(seed)
            view.add_(torch.empty_like(view).normal_(generator=generator), alpha=std)


def _spread(values: torch.Tensor) -> torch.Tensor:
    """Gives [B, V] three more axes."""
    return values[..., None, None, None]
