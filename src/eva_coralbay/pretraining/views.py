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

from eva_coralbay.errors import EvaCoralbayError
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

_PLACES = 20
"""How often the second global view is drawn at most so that it overlaps the first one less."""


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
    """The least and the largest edge of a global view, in voxels of the prepared scan."""

    local_edge: tuple[int, int] = (40, 72)
    """The least and the largest edge of a local view, in voxels of the prepared scan."""

    region_size: int = 144
    """The edge of the region that all views of a sample lie in, in voxels."""

    max_global_overlap: float = 1.0
    """The largest part of the smaller global view that the other one may show, from 0 to 1.

    At 1 nothing is asked of the overlap: with the edges above it is 0.91 on average. A second
    view that overlaps more is drawn again; how far apart two views can lie follows from
    `global_edge`, `region_size` and the scan, so a small value takes a larger region as well.
    Untested: no training here has shown that less overlap learns better.
    """

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
            EvaCoralbayError: If the encoder cannot take a view, or the region cannot hold it.
        """
        for name in ("global", "local"):
            size, (least, most) = getattr(self, f"{name}_size"), getattr(self, f"{name}_edge")
            if size < encoder.MIN_SIZE:
                raise EvaCoralbayError(
                    f"`{name}_size` must be at least {encoder.MIN_SIZE} voxels; got {size}."
                )
            if not 0 < least <= most <= self.region_size:
                raise EvaCoralbayError(
                    f"`{name}_edge` must be (least, most) voxels, not more than `region_size` "
                    f"({self.region_size}); got ({least}, {most})."
                )
        if not 0.0 < self.max_global_overlap <= 1.0:
            raise EvaCoralbayError(
                "`max_global_overlap` must be above 0 and at most 1; got "
                f"{self.max_global_overlap}."
            )
        if self.num_locals < 0:
            raise EvaCoralbayError(f"`num_locals` must not be negative; got {self.num_locals}.")


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
    views: Views,
    extent: npt.NDArray[np.integer],
    generator: np.random.Generator,
    *,
    strength: float = 1.0,
) -> tuple[Drawn, Drawn]:
    """Draws the views of a sample.

    Args:
        views: How many, and how large.
        extent: Where in the region the scan lies, as start and stop for each of (D, H, W), of
            shape [3, 2]; the rest of the region is padding.
        generator: The source of all randomness.
        strength: How strong the augmentation is, from 0 to 1: the chance of each flip, turn and
            change of the intensities is multiplied with it, and with the remaining chance a view
            has the wide HU window. At 0 two views differ only in where they lie.

    Returns:
        The global and the local views.
    """
    places = _Places(views.region_size, extent, generator, strength)
    first = places.draw_place(views.global_edge)
    second = places.draw_place_apart(first, views.global_edge, views.max_global_overlap)
    global_views = _draw_looks([first, second], _MIN_GLOBAL_WIDTH, generator, strength)
    local_places = [places.draw_place(views.local_edge) for _ in range(views.num_locals)]
    return global_views, _draw_looks(local_places, 0.0, generator, strength)


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


def overlap(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> float:
    """Returns the part of the smaller of two views that the other one shows, from 0 to 1.

    Args:
        first: Where the one lies, as `Drawn.theta`, of shape [3, 4].
        second: Where the other one lies.
    """
    halves = [np.abs(theta[0, :3]).max() for theta in (first, second)]
    lower = np.maximum(first[:, 3] - halves[0], second[:, 3] - halves[1])
    upper = np.minimum(first[:, 3] + halves[0], second[:, 3] + halves[1])
    shared = float(np.prod((upper - lower).clip(0.0)) / (2.0 * min(halves)) ** 3)
    return min(shared, 1.0)  # rounding


@dataclasses.dataclass(frozen=True)
class _Places:
    """Draws where views lie in the region of a scan."""

    region_size: int
    extent: npt.NDArray[np.integer]
    generator: np.random.Generator
    strength: float

    def draw_place(self, edges: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Draws where a view lies: a cube, whose axes may be flipped and exchanged."""
        generator, region_size = self.generator, self.region_size
        edge = generator.uniform(*edges)
        # inside the scan, or all around it where it is smaller
        bounds = np.sort([self.extent[:, 0], self.extent[:, 1] - edge], axis=0)
        center = generator.uniform(*bounds.clip(0.0, region_size - edge)) + edge / 2.0
        signs = np.where(generator.random(3) < _P_FLIP * self.strength, -1.0, 1.0)
        turns = generator.random() < _P_TURN * self.strength
        axes = _rotate_quarter(generator) if turns else np.eye(3)
        theta = np.empty((3, 4))
        theta[:, :3] = axes * signs * (edge / region_size)
        theta[:, 3] = (2.0 * center / region_size - 1.0)[::-1]
        return theta

    def draw_place_apart(
        self, other: npt.NDArray[np.float64], edges: tuple[int, int], most: float
    ) -> npt.NDArray[np.float64]:
        """Draws where a view lies that overlaps another one by no more than a part, if it can."""
        places: list[npt.NDArray[np.float64]] = []
        while not places or (overlap(other, places[-1]) > most and len(places) < _PLACES):
            places.append(self.draw_place(edges))
        return min(reversed(places), key=lambda place: max(overlap(other, place), most))


def _draw_looks(
    places: list[npt.NDArray[np.float64]],
    min_width: float,
    generator: np.random.Generator,
    strength: float,
) -> Drawn:
    """Draws the HU windows and intensities of views of one size, whose places are known."""
    number = len(places)
    windows = [_draw_windows(min_width, generator, strength) for _ in places]
    intensities = [_draw_intensities(generator, strength) for _ in places]
    gamma, smoothing, noise = np.array(intensities, dtype=np.float32).reshape(number, 3).T
    return Drawn(
        torch.from_numpy(np.array(places, dtype=np.float32).reshape(number, 3, 4)),
        torch.from_numpy(np.array(windows, dtype=np.float32).reshape(number, _REDRAWS + 2, 2)),
        torch.from_numpy(gamma.copy()),
        torch.from_numpy(smoothing.copy()),
        torch.from_numpy(noise.copy()),
        torch.from_numpy(generator.integers(2**63, size=number)),
    )


def _rotate_quarter(generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draws a rotation by 90, 180 or 270 degrees in one of the three planes."""
    first, second = list(itertools.combinations(range(3), 2))[generator.integers(3)]
    quarter = np.eye(3)
    quarter[[first, second]] = quarter[[second, first]]
    quarter[first] *= -1.0
    return np.linalg.matrix_power(quarter, int(generator.integers(1, 4)))


def _draw_windows(
    min_width: float, generator: np.random.Generator, strength: float
) -> list[tuple[float, float]]:
    """Draws a window and those to take instead if the view is flat in it; the last is wide."""
    if strength < 1.0 and generator.random() >= strength:
        return [_WIDE_WINDOW] * (_REDRAWS + 2)
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


def _draw_intensities(
    generator: np.random.Generator, strength: float
) -> tuple[float, float, float]:
    """Draws gamma, smoothing and noise."""
    applied = generator.random(3) < _P_INTENSITY * strength
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
