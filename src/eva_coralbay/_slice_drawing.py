"""Slices of scans as radiologists look at them, with labels in color over them."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib import axes, colors, figure, patches, patheffects

INK = "#e6e6e6"
"""Color of the text, on the black that scans are read on."""

_OPACITY = 0.6
"""Opacity of the labels over the image."""

_PALETTE = (
    "#4e9bff", "#ff9f1c", "#2ec471", "#ff4d5e", "#b980ff", "#ffe14d", "#1fd6d6", "#ff7ac3",
    "#b5793f", "#a4e34d", "#7d8cff", "#ff7043", "#00a88f", "#d4a5ff", "#c9c05a", "#8fd3ff",
)  # fmt: skip
"""Colors of the classes, told apart on black; they repeat."""


def color_table(n_classes: int) -> npt.NDArray[np.float64]:
    """Returns RGBA colors by label, of shape [n_classes, 4]; the background is transparent."""
    table = [(0.0, 0.0, 0.0, 0.0)]
    for label in range(1, n_classes):
        table.append(colors.to_rgba(_PALETTE[(label - 1) % len(_PALETTE)], _OPACITY))
    return np.array(table)


def draw(
    panel: axes.Axes,
    image: npt.NDArray[np.floating],
    overlay: npt.NDArray[np.float64] | None,
    letters: str,
    *,
    aspect: float = 1.0,
) -> None:
    """Draws a slice with the first axis down, or up if its letters are S and I.

    Args:
        panel: Where to draw.
        image: The slice, in [0, 1].
        overlay: The colors to lay over it, as RGBA.
        letters: The directions at the top, bottom, left and right; empty if unknown.
        aspect: The height of a voxel as a multiple of its width.
    """
    origin: Literal["lower", "upper"] = "lower" if letters.startswith("S") else "upper"
    panel.imshow(
        image.astype(np.float32), cmap="gray", vmin=0, vmax=1, origin=origin, aspect=aspect
    )
    if overlay is not None:
        panel.imshow(overlay, origin=origin, interpolation="nearest", aspect=aspect)
    places = ((0.5, 0.98), (0.5, 0.02), (0.02, 0.5), (0.98, 0.5))
    alignments = (("center", "top"), ("center", "bottom"), ("left", "center"), ("right", "center"))
    outline = [patheffects.withStroke(linewidth=2, foreground="black")]
    for letter, (x, y), (horizontal, vertical) in zip(letters, places, alignments, strict=False):
        panel.text(
            x,
            y,
            letter,
            transform=panel.transAxes,
            ha=horizontal,
            va=vertical,
            color=INK,
            fontsize=9,
            path_effects=outline,
        )
    panel.set_axis_off()


def draw_legend(block: figure.SubFigure, names: Mapping[int, str], *, columns: int) -> None:
    """Draws the names of labels with their colors.

    Args:
        block: Where to draw.
        names: The names by label.
        columns: How many names are side by side.
    """
    table = color_table(max(names, default=0) + 1)
    block.set_facecolor("black")
    block.legend(
        handles=[
            patches.Patch(color=tuple(table[label, :3]), label=name)
            for label, name in names.items()
        ],
        loc="center",
        ncols=columns,
        frameon=False,
        labelcolor=INK,
        fontsize=8,
        handlelength=1.0,
        handleheight=1.0,
    )


def names_per_row(names: Sequence[str], width: float) -> int:
    """Returns how many of the names fit side by side into a legend of a width in inches."""
    longest = max((len(name) for name in names), default=1)
    return max(1, min(len(names), int(width / (0.5 + 0.075 * longest))))
