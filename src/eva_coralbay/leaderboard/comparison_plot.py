"""The plot of two models: every case, as an SVG file with real text."""

import html
import textwrap

import numpy as np
import numpy.typing as npt

from eva_coralbay.leaderboard import comparison, statistics, svg

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
.tick { fill: var(--soft); font-size: 12px; text-anchor: middle; }
.grid { stroke: var(--line); }
.zero { stroke: var(--soft); }
.pair { stroke: var(--soft); stroke-opacity: .35; }
.case { fill: var(--soft); fill-opacity: .55; }
.interval { stroke: var(--mark); stroke-width: 3; stroke-linecap: round; }
.mean { fill: var(--mark); stroke: var(--mark); stroke-width: 2; }
.open { fill: var(--page); }
"""

_Array = npt.NDArray[np.float64]


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
        svg.draw_text(_PADDING, 30, title, "title"),
        *(
            svg.draw_text(_PADDING, 52 + _LINE * index, line, "soft")
            for index, line in enumerate(verdict)
        ),
        _draw_values(pair, top),
        _draw_differences(pair, middle),
        svg.draw_text(
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
    axis = svg.Axis.over(
        [*first, *second, *(end for mean in means for end in (mean.low, mean.high))], _LEFT, _RIGHT
    )
    rows = [top + 0.5 * _PAIR_ROW, top + 1.5 * _PAIR_ROW]
    parts = [svg.draw_ticks(axis, top, top + 2 * _PAIR_ROW)]
    for case, *pair_values in zip(pair.total.values[0].cases, first, second, strict=True):
        ends = [axis.at(value) for value in pair_values]
        parts.append(svg.draw_line("pair", ends[0], rows[0], ends[1], rows[1]))
        parts += [
            svg.draw_circle("case", x, y, 2.5, f"{case}: {value:.3f}")
            for x, y, value in zip(ends, rows, pair_values, strict=True)
        ]
    for letter, name, mean, y, shift in zip(
        "AB", (pair.model_a, pair.model_b), means, rows, (-14, 14), strict=True
    ):
        parts += [
            svg.draw_text(_PADDING, y + 4, f"{letter}: {svg.shorten(name, _MAX_NAME)}"),
            svg.draw_mean(axis, mean, y + shift),
            svg.draw_text(_RIGHT + 16, y + 4, comparison.format_estimate(mean)),
        ]
    return "".join(parts)


def _draw_differences(pair: comparison.Pair, top: float) -> str:
    """Draws the differences of all cases by class."""
    differences = [_subtract(row) for row in pair.rows]
    intervals = [row.comparison.difference for row in pair.rows]
    ends = [end for interval in intervals for end in (interval.low, interval.high)]
    axis = svg.Axis.over([0.0, *np.concatenate(differences), *ends], _LEFT, _RIGHT)
    bottom = top + _ROW * len(pair.rows)
    zero = axis.at(0)
    parts = [
        svg.draw_ticks(axis, top, bottom, sign="+"),
        svg.draw_line("zero", zero, top, zero, bottom),
        svg.draw_text(_PADDING, top - 10, "difference A - B"),
        svg.draw_text(zero - 8, top - 10, "B better ←", "soft end"),
        svg.draw_text(zero + 8, top - 10, "→ A better", "soft"),
    ]
    for index, (row, values) in enumerate(zip(pair.rows, differences, strict=True)):
        y = top + _ROW * (index + 0.5)
        offsets = svg.jitter(row.name, len(values), _JITTER)
        parts.append(
            svg.draw_text(
                _PADDING, y + 4, f"{svg.shorten(row.name, _MAX_NAME)} ({row.comparison.n_cases})"
            )
        )
        parts += [
            svg.draw_circle("case", axis.at(value), y + offset, 2.5, f"{case}: {value:+.3f}")
            for case, value, offset in zip(row.values[0].cases, values, offsets, strict=True)
        ]
        difference = row.comparison.difference
        parts += [
            svg.draw_mean(
                axis, difference, y, kind="mean open" if row.comparison.reason else "mean"
            ),
            svg.draw_text(_RIGHT + 16, y + 4, comparison.format_estimate(difference, sign="+")),
        ]
    return "".join(parts)


def _subtract(row: comparison.Row) -> _Array:
    return row.values[0].by_case - row.values[1].by_case
