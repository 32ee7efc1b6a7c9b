"""The figures: SVG with real text, colored by the style sheet."""

import html
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from eva_coralbay.leaderboard import statistics
from eva_coralbay.leaderboard.page import board

_WIDTH = 480
_MARGIN = 14
_ROW = 44
_STRIP = 20
_AXIS = 28
_MAX_DOTS = 2000
"""The most cases that a figure draws, over all models."""

_TICKS = 5

_Array = npt.NDArray[np.float64]


def strip_plot(models: Mapping[str, board.Cell], metric: str) -> str:
    """Draws the value of every case, with the mean and its interval, a row a model.

    Args:
        models: The cells of a task by the label of the model; those without values by case are
            left out.
        metric: Name of the metric.

    Returns:
        The SVG, empty if there is nothing to draw.
    """
    shown = {
        label: (cell.cases.by_case, cell.score.mean)
        for label, cell in models.items()
        if cell.cases and cell.score
    }
    if not shown:
        return ""
    ends = [end for _, mean in shown.values() for end in (mean.low, mean.high)]
    low, high = _limits([*np.concatenate([values for values, _ in shown.values()]), *ends])
    limit = max(1, _MAX_DOTS // len(shown))
    height = _ROW * len(shown) + _AXIS
    parts = [_axis(low, high, height)]
    for index, (label, (values, mean)) in enumerate(shown.items()):
        top = index * _ROW
        middle = top + 18 + _STRIP / 2
        dots = _thin(values, limit)
        points = "".join(
            f"M{_x(value, low, high):.1f} {middle + offset:.1f}h0"
            for value, offset in zip(dots, _jitter(label, len(dots)), strict=True)
        )
        parts += [
            f'<text x="{_MARGIN}" y="{top + 12}">{html.escape(_shorten(label))}</text>',
            f'<path class="dots" d="{points}"/>',
            _interval_mark(mean, low, high, middle),
        ]
    counts = sorted({len(values) for values, _ in shown.values()})
    n_cases = "/".join(map(str, counts))
    description = f"{metric} of each of {n_cases} cases, with the mean and its 95 % interval"
    return _svg(description, height, parts)


def rank_plot(rows: Sequence[board.Row]) -> str:
    """Draws the rank interval of every ranked model.

    Args:
        rows: The rows of a track.

    Returns:
        The SVG, empty if no model is ranked.
    """
    ranked = [(row.label, row.place) for row in rows if row.place]
    if not ranked:
        return ""
    row_height = 40
    height = row_height * len(ranked) + _AXIS
    parts = []
    for rank in range(1, len(ranked) + 1):
        x = _x(rank, 1, len(ranked))
        parts += [
            f'<path class="grid" d="M{x:.1f} 0V{height - _AXIS}"/>',
            f'<text class="tick" x="{x:.1f}" y="{height - 10}">{rank}</text>',
        ]
    for index, (label, place) in enumerate(ranked):
        y = index * row_height + 27
        first, last = (_x(rank, 1, len(ranked)) for rank in place.rank_interval)
        parts += [
            f'<text x="{_MARGIN}" y="{y - 14}">{html.escape(_shorten(label))}</text>',
            f'<path class="interval" d="M{first:.1f} {y}H{last:.1f}"/>',
            f'<circle class="mean" cx="{_x(place.rank, 1, len(ranked)):.1f}" cy="{y}" r="5"/>',
        ]
    return _svg("Rank of each model, with the ranks that cannot be ruled out", height, parts)


def _svg(title: str, height: int, parts: list[str]) -> str:
    escaped = html.escape(title)
    return (
        f'<svg class="figure" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escaped}">'
        f"<title>{escaped}</title>{''.join(parts)}</svg>"
    )


def _axis(low: float, high: float, height: int) -> str:
    parts = []
    for value in np.linspace(low, high, _TICKS):
        x = _x(value, low, high)
        parts += [
            f'<path class="grid" d="M{x:.1f} 0V{height - _AXIS}"/>',
            f'<text class="tick" x="{x:.1f}" y="{height - 10}">{value:.2f}</text>',
        ]
    return "".join(parts)


def _interval_mark(mean: statistics.Estimate, low: float, high: float, y: float) -> str:
    first, last = (_x(end, low, high) for end in (mean.low, mean.high))
    return (
        f'<path class="interval" d="M{first:.1f} {y:.1f}H{last:.1f}"/>'
        f'<circle class="mean" cx="{_x(mean.value, low, high):.1f}" cy="{y:.1f}" r="5"/>'
    )


def _limits(values: Sequence[float]) -> list[float]:
    """Returns the ends of the axis, multiples of 0.1 around the values."""
    low = float(np.floor(min(values) * 10) / 10)
    high = float(np.ceil(max(values) * 10) / 10)
    return [low, high if high > low else low + 0.1]


def _x(value: float, low: float, high: float) -> float:
    span = _WIDTH - 2 * _MARGIN
    return _MARGIN + (span * (value - low) / (high - low) if high > low else span / 2)


def _thin(values: _Array, limit: int) -> _Array:
    """Returns values that stand for all, by their quantiles."""
    ordered = np.sort(values)
    return ordered[np.linspace(0, len(ordered) - 1, min(limit, len(ordered))).astype(int)]


def _jitter(label: str, n: int) -> _Array:
    """Returns vertical offsets, the same at every call."""
    generator = np.random.default_rng(zlib.crc32(label.encode()))
    return generator.uniform(-_STRIP / 2 + 3, _STRIP / 2 - 3, n)


def _shorten(label: str) -> str:
    return label if len(label) <= 60 else f"{label[:59]}…"
