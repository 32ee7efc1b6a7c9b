"""The parts of every SVG plot: axes, marks and text, which a style sheet colors by their class."""

import dataclasses
import html
import math
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from eva_coralbay.leaderboard import statistics

_STEPS = (1, 2, 5, 10)
"""What ticks may be apart, times a power of ten."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis that maps values to coordinates."""

    ticks: Sequence[float]
    """The values that are marked, in ascending order."""

    low: float
    """The value at `start`."""

    high: float
    """The value at `end`."""

    start: float
    """The coordinate where the axis begins."""

    end: float
    """The coordinate where the axis ends."""

    is_log: bool = False
    """Whether equal distances are equal ratios."""

    @classmethod
    def over(
        cls, values: Iterable[float], start: float, end: float, *, max_ticks: int = 7
    ) -> "Axis":
        """Returns an axis from a tick to a tick that holds some values.

        Args:
            values: The values, at least one.
            start: The coordinate where the axis begins.
            end: The coordinate where it ends.
            max_ticks: The most ticks.
        """
        values = list(values)
        low, high = min(values), max(values)
        if low == high:
            margin = abs(low) / 2 or 0.5
            low, high = low - margin, high + margin
        step = _choose_step((high - low) / (max_ticks - 2))
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        ticks = [index * step for index in range(first, last + 1)]
        return cls(ticks, ticks[0], ticks[-1], start, end)

    @classmethod
    def over_ratios(cls, values: Iterable[float], start: float, end: float) -> "Axis":
        """Returns a logarithmic axis that holds some positive values.

        Args:
            values: The values, at least one.
            start: The coordinate where the axis begins.
            end: The coordinate where it ends.
        """
        values = list(values)
        low, high = min(values) / 1.3, max(values) * 1.3
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [factor * 10.0**power for power in powers for factor in _STEPS[:-1]]
        shown = [tick for tick in ticks if low <= tick <= high]
        return cls(shown, low, high, start, end, is_log=True)

    def at(self, value: float) -> float:
        """Returns the coordinate of a value."""
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def label(self, tick: float, *, sign: str = "") -> str:
        """Writes a tick with as many digits as tell it from the next.

        Args:
            tick: The tick.
            sign: `+` to have the sign of positive numbers too.
        """
        if self.is_log:
            return f"{tick:,.10g}"
        step = self.ticks[1] - self.ticks[0]
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return "0" if abs(tick) < step / 2 else f"{tick:{sign}.{digits}f}"


def _choose_step(width: float) -> float:
    """Returns the smallest distance of ticks that is at least a width."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(power * step for step in _STEPS if power * step >= width * (1 - 1e-9))


def draw_ticks(axis: Axis, top: float, bottom: float, *, sign: str = "") -> str:
    """Draws the ticks of a horizontal axis: lines over the plot and numbers below it.

    Args:
        axis: The axis.
        top: Where the plot begins.
        bottom: Where it ends.
        sign: `+` to have the sign of positive numbers too.
    """
    return "".join(
        draw_line("grid", axis.at(tick), top, axis.at(tick), bottom)
        + draw_text(axis.at(tick), bottom + 18, axis.label(tick, sign=sign), "tick")
        for tick in axis.ticks
    )


def draw_side_ticks(axis: Axis, left: float, right: float) -> str:
    """Draws the ticks of a vertical axis: lines over the plot and numbers to its left.

    Args:
        axis: The axis.
        left: Where the plot begins.
        right: Where it ends.
    """
    return "".join(
        draw_line("grid", left, axis.at(tick), right, axis.at(tick))
        + draw_text(left - 6, axis.at(tick) + 4, axis.label(tick), "tick end")
        for tick in axis.ticks
    )


def draw_mean(axis: Axis, mean: statistics.Estimate, y: float, *, kind: str = "mean") -> str:
    """Draws a value with its interval on a horizontal axis.

    Args:
        axis: The axis.
        mean: The value.
        y: Where it is drawn.
        kind: The class of its circle.
    """
    return draw_line("interval", axis.at(mean.low), y, axis.at(mean.high), y) + draw_circle(
        kind, axis.at(mean.value), y, 4.5
    )


def draw_line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """Draws a line.

    Args:
        kind: Its class.
        x1: Where it begins.
        y1: Where it begins.
        x2: Where it ends.
        y2: Where it ends.
    """
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def draw_circle(kind: str, x: float, y: float, radius: float, title: str = "") -> str:
    """Draws a circle.

    Args:
        kind: Its class.
        x: Its center.
        y: Its center.
        radius: Its radius.
        title: What is shown where it is pointed at.
    """
    inner = f"<title>{html.escape(title)}</title>" if title else ""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{inner}</circle>'


def draw_text(x: float, y: float, text: str, kind: str = "") -> str:
    """Draws a line of text.

    Args:
        x: Where it begins.
        y: Its base line.
        text: The text.
        kind: Its class.
    """
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'


def shorten(text: str, limit: int) -> str:
    """Cuts a text that is too long.

    Args:
        text: The text.
        limit: The most characters.
    """
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def jitter(name: str, n: int, width: float) -> list[float]:
    """Returns offsets that keep dots apart, the same at every call.

    Args:
        name: What the dots are of.
        n: Their number.
        width: The largest offset.
    """
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    return generator.uniform(-width, width, n).tolist()
