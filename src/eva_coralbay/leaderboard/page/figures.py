"""The figures: SVG with real text, colored by the style sheet."""

import html
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from eva_coralbay.leaderboard import statistics, svg
from eva_coralbay.leaderboard.page import board

_WIDTH = 480
_MARGIN = 14
_ROW = 44
_STRIP = 20
_AXIS = 28
_MAX_DOTS = 2000
"""The most cases that a figure draws, over all models."""

_MAX_LABEL = 60
"""The most characters of the name of a model."""

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
    dots = np.concatenate([values for values, _ in shown.values()])
    axis = svg.Axis.over([*dots, *ends], _MARGIN, _WIDTH - _MARGIN)
    limit = max(1, _MAX_DOTS // len(shown))
    height = _ROW * len(shown) + _AXIS
    parts = [svg.draw_ticks(axis, 0, height - _AXIS)]
    for index, (label, (values, mean)) in enumerate(shown.items()):
        top = index * _ROW
        middle = top + 18 + _STRIP / 2
        dots = _thin(values, limit)
        points = "".join(
            f"M{axis.at(value):.1f} {middle + offset:.1f}h0"
            for value, offset in zip(
                dots, svg.jitter(label, len(dots), _STRIP / 2 - 3), strict=True
            )
        )
        parts += [
            svg.draw_text(_MARGIN, top + 12, svg.shorten(label, _MAX_LABEL)),
            f'<path class="dots" d="{points}"/>',
            svg.draw_mean(axis, mean, middle),
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
    ranks = range(1, max(2, len(ranked)) + 1)
    axis = svg.Axis(ranks, ranks[0], ranks[-1], _MARGIN, _WIDTH - _MARGIN)
    parts = [svg.draw_ticks(axis, 0, height - _AXIS)]
    for index, (label, place) in enumerate(ranked):
        y = index * row_height + 27
        first, last = place.rank_interval
        mean = statistics.Estimate(place.rank, first, last)
        parts += [
            svg.draw_text(_MARGIN, y - 14, svg.shorten(label, _MAX_LABEL)),
            svg.draw_mean(axis, mean, y),
        ]
    return _svg("Rank of each model, with the ranks that cannot be ruled out", height, parts)


def _svg(title: str, height: int, parts: list[str]) -> str:
    escaped = html.escape(title)
    return (
        f'<svg class="figure" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escaped}">'
        f"<title>{escaped}</title>{''.join(parts)}</svg>"
    )


def _thin(values: _Array, limit: int) -> _Array:
    """Returns values that stand for all, by their quantiles."""
    ordered = np.sort(values)
    return ordered[np.linspace(0, len(ordered) - 1, min(limit, len(ordered))).astype(int)]
