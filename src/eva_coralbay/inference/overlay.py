"""A picture of a scan with its labels in color, as a check at a glance."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import figure

from eva_coralbay import _slice_drawing
from eva_coralbay.evaluation import figures

_WINDOW = (-160.0, 240.0)
"""The HU that are black and white: those of soft tissue."""

_PANEL_INCHES = 4.0
"""The width of a panel."""


def draw(
    case: str,
    hounsfield: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    spacing: Sequence[float],
    classes: Sequence[str],
) -> bytes:
    """Draws the axial and the coronal slice that show most of the classes, plain and with labels.

    The patient's right is at the left, as radiologists look at a scan.

    Args:
        case: The id of the scan, for the title.
        hounsfield: The HU, of shape [D, H, W] ("SPL").
        labels: The labels, of the same shape.
        spacing: The distance of voxels along (D, H, W) in mm.
        classes: The names of the label values, the background first.

    Returns:
        The picture as PNG.
    """
    low, high = _WINDOW
    names = {value: name for value, name in enumerate(classes) if value > 0}
    columns = _slice_drawing.names_per_row(list(names.values()), 2 * _PANEL_INCHES)
    legend = 0.22 * math.ceil(len(names) / columns) + 0.3
    lengths = [count * step for count, step in zip(labels.shape, spacing, strict=True)]
    heights = [_PANEL_INCHES * length / lengths[2] for length in (lengths[1], lengths[0])]
    canvas = figure.Figure(
        figsize=(2 * _PANEL_INCHES, sum(heights) + legend + 0.5),
        facecolor="black",
        layout="constrained",
    )
    blocks: Any = canvas.subfigures(2, 1, height_ratios=[sum(heights) + 0.5, legend])
    blocks[0].set_facecolor("black")
    blocks[0].suptitle(case, color=_slice_drawing.INK, fontsize=11)
    panels = blocks[0].subplots(2, 2, squeeze=False, height_ratios=heights)
    table = _slice_drawing.color_table(len(classes))
    planes = (
        (figures.fullest_slice(labels, axis=0), "APRL", spacing[1] / spacing[2]),
        ((slice(None), figures.fullest_slice(labels, axis=1)), "SIRL", spacing[0] / spacing[2]),
    )
    for row, (plane, letters, aspect) in zip(panels, planes, strict=True):
        image = ((hounsfield[plane] - low) / (high - low)).clip(0.0, 1.0)
        for panel, overlay in zip(row, (None, table[labels[plane]]), strict=True):
            _slice_drawing.draw(panel, image, overlay, letters, aspect=aspect)
    _slice_drawing.draw_legend(blocks[1], names, columns=columns)
    content = io.BytesIO()
    canvas.savefig(content, dpi=100)
    return content.getvalue()
