"""The plot of two models: every case, as an SVG file with real text."""

import dataclasses
import html
import math
import textwrap
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import ticker

from eva_coralbay.leaderboard import comparison, statistics

_WIDTH = 860
_PADDING = 20
_LEFT, _RIGHT = 215, 630
"""Where the axes begin and end."""

_LINE = 18
_MAX_LINE = 125
"""The most characters of a line of text."""

_PAIR_ROW = 56
_AXIS = 28
_GAP = 52
_ROW = 30
_LEGEND_HEIGHT = 30

_JITTER = 8
_MAX_NAME = 20
"""The most characters of a name beside an axis."""

_STYLE = """
svg { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif;
  --page: #ffffff; --text: #1b1f24; --soft: #57606a; --line: #d0d7de; --mark: #0b5cad; }
@media (prefers-color-scheme: dark) { svg {
  --page: #0d1117; --text: #e6edf3; --soft: #a3adb8; --line: #363d47; --mark: #79b8ff; } }
.page { fill: var(--page); }
text { fill: var(--text); }
.title { font-size: 16px; font-weight: 600; }
.soft { fill: var(--soft); font-size: 12px; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.grid { stroke: var(--line); }
.zero { stroke: var(--soft); }
.pair { stroke: var(--soft); stroke-opacity: .35; }
.case { fill: var(--soft); fill-opacity: .55; }
.interval { stroke: var(--mark); stroke-width: 3; stroke-linecap: round; }
.mean { fill: var(--mark); stroke: var(--mark); stroke-width: 2; }
.open { fill: var(--page); }
"""

_Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class _Axis:
    """A horizontal axis, from its first to its last tick."""

    ticks: Sequence[float]

    @classmethod
    def over(cls, values: Iterable[float]) -> "_Axis":
        """Returns an axis that holds some values."""
        values = list(values)
        locator = ticker.MaxNLocator(6, steps=[1, 2, 5, 10])
        return cls([float(tick) for tick in locator.tick_values(min(values), max(values))])

    def x(self, value: float) -> float:
        """Returns where a value is."""
        low, high = self.ticks[0], self.ticks[-1]
        return _LEFT + (_RIGHT - _LEFT) * (value - low) / (high - low)

    def draw(self, top: float, bottom: float, *, sign: str = "") -> str:
        """Draws the ticks with their lines and numbers."""
        return "".join(
            _line("grid", self.x(tick), top, self.x(tick), bottom)
            + _text(self.x(tick), bottom + 18, self._label(tick, sign), "soft middle")
            for tick in self.ticks
        )

    def _label(self, tick: float, sign: str) -> str:
        """Writes a tick with as many digits as tell it from the next."""
        step = self.ticks[1] - self.ticks[0]
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return "0" if abs(tick) < step / 2 else f"{tick:{sign}.{digits}f}"


def draw(pair: comparison.Pair) -> str:
    """Draws every case: its two values, joined by a line, and the differences by class.

    Args:
        pair: The comparison.

    Returns:
        An SVG file with real text, for light and dark surroundings.
    """
    title = f"{pair.metric} by case on {pair.task} ({pair.protocol})"
    verdict = textwrap.wrap(pair.verdict, _MAX_LINE)
    top = 40 + _LINE * (len(verdict) + 1)
    middle = top + 2 * _PAIR_ROW + _AXIS + _GAP
    bottom = middle + _ROW * len(pair.rows)
    height = bottom + _AXIS + _LEGEND_HEIGHT
    parts = [
        _text(_PADDING, 30, title, "title"),
        *(_text(_PADDING, 52 + _LINE * index, line, "soft") for index, line in enumerate(verdict)),
        _draw_values(pair, top),
        _draw_differences(pair, middle),
        _text(
            _PADDING,
            height - 14,
            "Dot: a case. Circle and line: mean and its 95 % interval; filled where the models are "
            "separable.",
            "soft",
        ),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f'<rect class="page" width="{_WIDTH}" height="{height}"/>{"".join(parts)}</svg>\n'
    )


def _draw_values(pair: comparison.Pair, top: float) -> str:
    """Draws the values of both models, a row each, with a line for every case."""
    means = [statistics.mean(values).mean for values in pair.total.values]
    first, second = (values.by_case for values in pair.total.values)
    axis = _Axis.over([*first, *second, *(end for mean in means for end in (mean.low, mean.high))])
    rows = [top + 0.5 * _PAIR_ROW, top + 1.5 * _PAIR_ROW]
    parts = [axis.draw(top, top + 2 * _PAIR_ROW)]
    for case, *pair_values in zip(pair.total.values[0].cases, first, second, strict=True):
        ends = [axis.x(value) for value in pair_values]
        parts.append(_line("pair", ends[0], rows[0], ends[1], rows[1]))
        parts += [
            _dot(x, y, f"{case}: {value:.3f}")
            for x, y, value in zip(ends, rows, pair_values, strict=True)
        ]
    for letter, name, mean, y, shift in zip(
        "AB", (pair.model_a, pair.model_b), means, rows, (-14, 14), strict=True
    ):
        parts += [
            _text(_PADDING, y + 4, f"{letter}: {_shorten(name)}"),
            _draw_mean(axis, mean, y + shift, is_filled=True),
            _text(_RIGHT + 16, y + 4, comparison.format_estimate(mean)),
        ]
    return "".join(parts)


def _draw_differences(pair: comparison.Pair, top: float) -> str:
    """Draws the differences of all cases by class."""
    differences = [_subtract(row) for row in pair.rows]
    intervals = [row.comparison.difference for row in pair.rows]
    ends = [end for interval in intervals for end in (interval.low, interval.high)]
    axis = _Axis.over([0.0, *np.concatenate(differences), *ends])
    bottom = top + _ROW * len(pair.rows)
    zero = axis.x(0)
    parts = [
        axis.draw(top, bottom, sign="+"),
        _line("zero", zero, top, zero, bottom),
        _text(_PADDING, top - 10, "difference A - B"),
        _text(zero - 8, top - 10, "B better ←", "soft end"),
        _text(zero + 8, top - 10, "→ A better", "soft"),
    ]
    for index, (row, values) in enumerate(zip(pair.rows, differences, strict=True)):
        y = top + _ROW * (index + 0.5)
        offsets = _jitter(row.name, len(values))
        parts.append(_text(_PADDING, y + 4, f"{_shorten(row.name)} ({row.comparison.n_cases})"))
        parts += [
            _dot(axis.x(value), y + offset, f"{case}: {value:+.3f}")
            for case, value, offset in zip(row.values[0].cases, values, offsets, strict=True)
        ]
        difference = row.comparison.difference
        parts += [
            _draw_mean(axis, difference, y, is_filled=row.comparison.reason is None),
            _text(_RIGHT + 16, y + 4, comparison.format_estimate(difference, sign="+")),
        ]
    return "".join(parts)


def _draw_mean(axis: _Axis, mean: statistics.Estimate, y: float, *, is_filled: bool) -> str:
    kind = "mean" if is_filled else "mean open"
    return (
        _line("interval", axis.x(mean.low), y, axis.x(mean.high), y)
        + f'<circle class="{kind}" cx="{axis.x(mean.value):.1f}" cy="{y:.1f}" r="4.5"/>'
    )


def _dot(x: float, y: float, title: str) -> str:
    return (
        f'<circle class="case" cx="{x:.1f}" cy="{y:.1f}" r="2.5">'
        f"<title>{html.escape(title)}</title></circle>"
    )


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'


def _subtract(row: comparison.Row) -> _Array:
    return row.values[0].by_case - row.values[1].by_case


def _jitter(name: str, n: int) -> list[float]:
    """Returns vertical offsets, the same at every call."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    return generator.uniform(-_JITTER, _JITTER, n).tolist()


def _shorten(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"
