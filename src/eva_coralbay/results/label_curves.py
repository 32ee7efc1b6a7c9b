"""Label-efficiency curves: how good a prediction is with few labeled training cases.

A run of the protocol `probe` or `probe-native` leaves them beside its record:

    curve_<part>.csv    one row per scored case, number of training cases and draw of these
    curve_<part>.png    the mean over the cases, with its interval over cases and draws
"""

import csv
import io
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from eva_coralbay import _atomic_files
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.results import bounded_reading

MAX_BYTES: Final = 20_000_000
"""The most bytes of a table."""

_MAX_LABELED_CASES = 1_000_000_000
"""The largest number of cases along a curve."""

_MAX_SIZES = 100
"""The most points along a curve: each has an interval, which takes a while."""

_MAX_SPARSENESS = 4
"""How many times as many pairs of case and draw a table may have as rows: it becomes an array."""

_RESAMPLES = 2000
"""How many bootstrap samples an interval is from."""

_LEVEL = 0.95
"""The share of the bootstrap samples that an interval holds."""


Metric = Literal["dice", "balanced_accuracy"]
"""What a curve is of: Dice of a segmentation, balanced accuracy of a classification."""

_METRICS: tuple[Metric, ...] = ("dice", "balanced_accuracy")

UNITS: Mapping[str, str] = {
    "dice": "labeled training cases",
    "balanced_accuracy": "labeled training cases of each class",
}
"""What is counted along a curve, by its metric."""

_SCORES: Mapping[str, str] = {"dice": "mean Dice", "balanced_accuracy": "balanced accuracy"}
"""The names of the metrics."""


class Point(NamedTuple):
    """A case that was predicted by the classifier of some training cases."""

    case: str
    """The id of the case, of a classification that of the patient."""

    labeled_cases: int
    """The number of training cases, of a classification that of each class."""

    draw: int
    """Which of the draws of this number of cases it is."""

    score: float
    """The mean Dice over the classes that truth or prediction has; of a classification the part of
    the patient in the balanced accuracy, which is the mean over the patients."""


class Curve(NamedTuple):
    """The label-efficiency curve of an encoder."""

    metric: Metric
    """What the scores are."""

    points: Sequence[Point]
    """The scores by case, number of training cases and draw."""


class Interval(NamedTuple):
    """A mean with its interval of 95 %."""

    mean: float
    low: float
    high: float


def write(path: str | os.PathLike[str], curve: Curve) -> None:
    """Writes a curve as a table; the file is there as a whole or not at all.

    The columns are `case`, `labeled_cases`, `draw`, and the name of the metric.

    Args:
        path: The path of the CSV file.
        curve: The curve.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*Point._fields[:3], curve.metric))
    writer.writerows((*point[:3], repr(point.score)) for point in curve.points)
    _atomic_files.write_atomically(path, text.getvalue().encode())


def read(path: str | os.PathLike[str]) -> Curve:
    """Reads the table of a curve.

    Args:
        path: The path of the CSV file.

    Raises:
        EvaCoralbayError: If it is no such table, naming the line.
    """
    text = bounded_reading.read_text(path, max_bytes=MAX_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    points = []
    try:
        header = next(reader, [])
        metric: Metric | None = next(
            (name for name in _METRICS if header == [*Point._fields[:3], name]), None
        )
        for case, labeled_cases, draw, value in reader if metric is not None else ():
            points.append(Point(case, int(labeled_cases), int(draw), float(value)))
    except (ValueError, csv.Error) as error:
        raise EvaCoralbayError(f"{path}, line {reader.line_num}: {error}.") from error
    if metric is None:
        raise EvaCoralbayError(
            f"{path} is not a curve: its columns are not {list(Point._fields[:3])} and one of "
            f"{list(_METRICS)}."
        )
    problem = _find_problem(points)
    if problem is not None:
        raise EvaCoralbayError(f"{path} is not a curve: {problem}.")
    return Curve(metric, points)


def _find_problem(points: Sequence[Point]) -> str | None:
    """Returns why points cannot be drawn, None if they can."""
    if not points:
        return "it has no row"
    if any(not 0 < point.labeled_cases <= _MAX_LABELED_CASES for point in points):
        return f"a number of cases is not from 1 to {_MAX_LABELED_CASES:,}"
    if len({point.labeled_cases for point in points}) > _MAX_SIZES:
        return f"it has more than {_MAX_SIZES} numbers of cases"
    if any(math.isinf(point.score) for point in points):
        return "a score is infinite"
    n_cells = len({point.case for point in points}) * len({point.draw for point in points})
    if n_cells > _MAX_SPARSENESS * len(points):
        return "its draws are not of the same cases"
    return None


def summarize(points: Sequence[Point]) -> dict[int, Interval]:
    """Computes the mean over cases and draws by the number of training cases.

    Args:
        points: The points of one encoder.

    Returns:
        The mean by number of training cases, in ascending order. Its interval is a bootstrap over
        the cases and the draws.
    """
    found = {}
    for size in sorted({point.labeled_cases for point in points}):
        table = _tabulate([point for point in points if point.labeled_cases == size])
        generator = np.random.default_rng(size)
        n_draws, n_cases = table.shape
        rows = generator.integers(n_draws, size=(_RESAMPLES, n_draws))
        columns = generator.integers(n_cases, size=(_RESAMPLES, n_cases))
        means = [np.nanmean(table[np.ix_(*drawn)]) for drawn in zip(rows, columns, strict=True)]
        low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        found[size] = Interval(float(np.nanmean(table)), float(low), float(high))
    return found


def area(means: Mapping[int, float]) -> float:
    """Returns the area under a curve over the logarithm of the number of cases, by its width.

    Args:
        means: The value by number of cases, in ascending order; NaN is left out.

    Returns:
        The area, which is the mean of the values if they are equally far apart; NaN without any.
    """
    known = [(math.log(size), value) for size, value in means.items() if not math.isnan(value)]
    if len(known) < 2:
        return known[0][1] if known else math.nan
    total = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(known))
    return total / (known[-1][0] - known[0][0])


def cases_per_class(n_cases: int, n_classes: int) -> int:
    """Returns where the point with all training cases of a classification lies on its curve.

    Args:
        n_cases: The number of training cases.
        n_classes: The number of classes of the task.

    Returns:
        The mean number of cases of a class, rounded down; at least 1.
    """
    return max(1, n_cases // n_classes)


def draw(path: str | os.PathLike[str], curves: Mapping[str, Curve]) -> None:
    """Draws curves with their intervals as a PNG file, those of each metric in a panel.

    Args:
        path: The path of the file.
        curves: The curves by the name of the encoder; a single curve may have an empty one.
    """
    from matplotlib import figure  # takes a second

    metrics = [name for name in UNITS if name in {curve.metric for curve in curves.values()}]
    drawn = figure.Figure(
        figsize=(6.0 * len(metrics), 4.0), layout="constrained", facecolor="white"
    )
    panels: Any = drawn.subplots(1, len(metrics), squeeze=False)
    for axes, metric in zip(panels[0], metrics, strict=True):
        shown = {name: curve.points for name, curve in curves.items() if curve.metric == metric}
        _draw_panel(axes, shown)
        axes.set_xlabel(UNITS[metric])
        axes.set_ylabel(_SCORES[metric])
    content = io.BytesIO()
    drawn.savefig(content, dpi=120)
    _atomic_files.write_atomically(path, content.getvalue())


def _draw_panel(axes: Any, curves: Mapping[str, Sequence[Point]]) -> None:
    """Draws the curves of a metric."""
    from matplotlib import ticker  # takes a second

    sizes: set[int] = set()
    for name, points in curves.items():
        summary = summarize(points)
        means, lows, highs = zip(*summary.values(), strict=True)
        (line,) = axes.plot(list(summary), means, marker="o", label=name)
        axes.fill_between(list(summary), lows, highs, alpha=0.2, color=line.get_color())
        sizes |= set(summary)
    axes.set_xscale("log")
    axes.set_xticks(sorted(sizes), [str(size) for size in sorted(sizes)])
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_ylim(0.0, 1.0)
    axes.grid(alpha=0.3)
    if any(curves):
        axes.legend(frameon=False)


def _tabulate(points: Sequence[Point]) -> npt.NDArray[np.float64]:
    """Returns the scores by draw and case."""
    cases = {case: index for index, case in enumerate(sorted({point.case for point in points}))}
    draws = {draw: index for index, draw in enumerate(sorted({point.draw for point in points}))}
    table = np.full((len(draws), len(cases)), np.nan)
    for point in points:
        table[draws[point.draw], cases[point.case]] = point.score
    return table
