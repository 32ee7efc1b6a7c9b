"""Label-efficiency curves: how good a segmentation is with few labeled training cases.

A run of the protocol `probe` leaves them beside its record:

    curve_<part>.csv    one row per scored case, number of training cases and draw of these
    curve_<part>.png    the mean over the cases, with its interval over cases and draws
"""

import csv
import io
import itertools
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eva_coralbay import _atomic_files

_RESAMPLES = 2000
"""How many bootstrap samples an interval is from."""

_LEVEL = 0.95
"""The share of the bootstrap samples that an interval holds."""


class Point(NamedTuple):
    """A case that was segmented by the classifier of some training cases."""

    case: str
    """The id of the case."""

    labeled_cases: int
    """The number of training cases."""

    draw: int
    """Which of the draws of this number of cases it is."""

    dice: float
    """The mean over the classes that truth or prediction has."""


class Interval(NamedTuple):
    """A mean with its interval of 95 %."""

    mean: float
    low: float
    high: float


def write(path: str | os.PathLike[str], points: Sequence[Point]) -> None:
    """Writes a curve as a table; the file is there as a whole or not at all.

    Args:
        path: The path of the CSV file.
        points: The points.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Point._fields)
    writer.writerows((*point[:3], repr(point.dice)) for point in points)
    _atomic_files.write_atomically(path, text.getvalue().encode())


def read(path: str | os.PathLike[str]) -> list[Point]:
    """Reads the table of a curve.

    Args:
        path: The path of the CSV file.

    Raises:
        ValueError: If it is no such table.
    """
    with pathlib.Path(path).open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, strict=True)
        if tuple(next(reader, [])) != Point._fields:
            raise ValueError(f"{path} is no curve: its columns are not {list(Point._fields)}.")
        return [Point(row[0], int(row[1]), int(row[2]), float(row[3])) for row in reader]


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


def draw(path: str | os.PathLike[str], curves: Mapping[str, Sequence[Point]]) -> None:
    """Draws curves with their intervals as a PNG file.

    Args:
        path: The path of the file.
        curves: The points by the name of the encoder; a single curve may have an empty one.
    """
    from matplotlib import figure, ticker  # takes a second

    drawn = figure.Figure(figsize=(6.0, 4.0), layout="constrained", facecolor="white")
    axes: Any = drawn.subplots()
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
    axes.set_xlabel("labeled training cases")
    axes.set_ylabel("mean Dice")
    axes.set_ylim(0.0, 1.0)
    axes.grid(alpha=0.3)
    if any(curves):
        axes.legend(frameon=False)
    content = io.BytesIO()
    drawn.savefig(content, dpi=120)
    _atomic_files.write_atomically(path, content.getvalue())


def _tabulate(points: Sequence[Point]) -> npt.NDArray[np.float64]:
    """Returns the Dice by draw and case."""
    cases = {case: index for index, case in enumerate(sorted({point.case for point in points}))}
    draws = {draw: index for index, draw in enumerate(sorted({point.draw for point in points}))}
    table = np.full((len(draws), len(cases)), np.nan)
    for point in points:
        table[draws[point.draw], cases[point.case]] = point.dice
    return table
