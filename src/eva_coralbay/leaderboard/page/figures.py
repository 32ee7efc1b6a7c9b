"""The figures: SVG with real text, colored by the style sheet."""

import dataclasses
import html
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from eva_coralbay.leaderboard import statistics, svg
from eva_coralbay.leaderboard.page import board, label_curves

_WIDTH = 480
_MARGIN = 14
_ROW = 44
_STRIP = 20
_AXIS = 28
_SIDE = 40
"""Where a plot begins that has numbers on its left."""

_LABELS = 165
"""The width beside a plot for the names of the models."""

_LABEL_HEIGHT = 14
_MAX_SIDE_LABEL = 26
"""The most characters of a name beside a plot."""

_SCATTER_HEIGHT = 240
_COLORS = 8
"""The colors of lines, which recur."""

MAX_DOTS = 2000
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
    limit = max(1, MAX_DOTS // len(shown))
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


def size_plot(track: board.Track) -> str:
    """Draws the score of each model by its number of parameters.

    Args:
        track: The track.

    Returns:
        The SVG, empty if fewer than two models have a score and parameters.
    """
    points = {
        row.label: (row.parameters / 1e6, score)
        for row, score in _overall_scores(track)
        if row.parameters
    }
    return _trade_off_plot(points, "parameters of the encoder, in millions")


def cost_plot(track: board.Track) -> str:
    """Draws the score of each model by the hours that its runs took.

    Args:
        track: The track.

    Returns:
        The SVG, empty if fewer than two models have a score and a time.
    """
    points = {row.label: (row.hours, score) for row, score in _overall_scores(track) if row.hours}
    return _trade_off_plot(points, "hours of all runs")


def curve_plot(curves: Sequence[label_curves.Curve], task: str, unit: str) -> str:
    """Draws the score by the number of labeled training cases, a line a model.

    Args:
        curves: The curves.
        task: The name of the task.
        unit: What is counted.

    Returns:
        The SVG, empty if there is no curve.
    """
    if not curves:
        return ""
    sizes = sorted({size for curve in curves for size in curve.points})
    means = [mean for curve in curves for mean in curve.points.values()]
    ends = [end for mean in means for end in (mean.low, mean.high)]
    right, bottom = _WIDTH - _LABELS, _SCATTER_HEIGHT
    x_axis = svg.Axis.over_ratios(sizes, _SIDE, right)
    x_axis = dataclasses.replace(x_axis, ticks=sizes)
    y_axis = svg.Axis.over(ends, bottom, _MARGIN)
    parts = [svg.draw_ticks(x_axis, _MARGIN, bottom), svg.draw_side_ticks(y_axis, _SIDE, right)]
    for index, curve in enumerate(curves):
        kind = f"series s{index % _COLORS}"
        places = [(x_axis.at(size), mean) for size, mean in sorted(curve.points.items())]
        upper = [f"{x:.1f} {y_axis.at(mean.high):.1f}" for x, mean in places]
        lower = [f"{x:.1f} {y_axis.at(mean.low):.1f}" for x, mean in reversed(places)]
        line = [f"{x:.1f} {y_axis.at(mean.value):.1f}" for x, mean in places]
        parts.append(f'<path class="band s{index % _COLORS}" d="M{"L".join([*upper, *lower])}Z"/>')
        parts.append(f'<path class="{kind}" d="M{"L".join(line)}"/>')
    last = {curve.label: max(curve.points.items(), key=lambda point: point[0]) for curve in curves}
    ends_at = {label: (x_axis.at(n), y_axis.at(mean.value)) for label, (n, mean) in last.items()}
    parts += _side_labels(ends_at, right)
    parts.append(svg.draw_text((_SIDE + right) / 2, bottom + 36, unit, "tick"))
    return _svg(f"Score on {task} by the number of {unit}", bottom + 44, parts)


def _overall_scores(track: board.Track) -> list[tuple[board.Row, statistics.Estimate]]:
    """Returns the mean of each model over the tasks that are ranked by, or on the only task."""
    found = []
    for row in track.rows:
        cell = row.cells.get(track.columns[0].slug) if len(track.columns) == 1 else None
        if row.place is not None:
            found.append((row, row.place.mean))
        elif cell is not None and cell.score is not None:
            found.append((row, cell.score.mean))
    return found


def _trade_off_plot(points: Mapping[str, tuple[float, statistics.Estimate]], what: str) -> str:
    """Draws scores with their intervals over a logarithmic axis."""
    if len({x for x, _ in points.values()}) < 2:
        return ""
    right, bottom = _WIDTH - _LABELS, _SCATTER_HEIGHT
    x_axis = svg.Axis.over_ratios([x for x, _ in points.values()], _SIDE, right)
    ends = [end for _, score in points.values() for end in (score.low, score.high)]
    y_axis = svg.Axis.over(ends, bottom, _MARGIN)
    parts = [svg.draw_ticks(x_axis, _MARGIN, bottom), svg.draw_side_ticks(y_axis, _SIDE, right)]
    parts += _side_labels(
        {label: (x_axis.at(x), y_axis.at(score.value)) for label, (x, score) in points.items()},
        right,
    )
    for label, (x, score) in points.items():
        at = x_axis.at(x)
        parts += [
            svg.draw_line("interval", at, y_axis.at(score.low), at, y_axis.at(score.high)),
            svg.draw_circle("mean", at, y_axis.at(score.value), 5, f"{label}: {score.value:.3f}"),
        ]
    parts.append(svg.draw_text((_SIDE + right) / 2, bottom + 36, what, "tick"))
    return _svg(f"Score by {what}", bottom + 44, parts)


def _side_labels(places: Mapping[str, tuple[float, float]], right: float) -> list[str]:
    """Draws the names of marks beside the plot, each joined to its mark; none covers another."""
    parts = []
    lowest = 0.0
    for index, (label, (x, y)) in sorted(enumerate(places.items()), key=lambda item: item[1][1][1]):
        lowest = max(y, lowest + _LABEL_HEIGHT)
        # the end of a name tells models apart, its organization does not
        name = label if len(label) <= _MAX_SIDE_LABEL else label.rpartition("/")[2]
        parts += [
            svg.draw_line("leader", x, y, right + 6, lowest),
            svg.draw_text(
                right + 9,
                lowest + 4,
                svg.shorten(name, _MAX_SIDE_LABEL),
                f"side t{index % _COLORS}",
            ),
        ]
    return parts


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
