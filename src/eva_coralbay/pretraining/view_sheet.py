"""The views of a scan as a picture: what the network sees of it."""

import io
import math
import pathlib

import numpy as np
import torch
from matplotlib import figure, patches
from torch.utils import data as torch_data

from eva_coralbay import _atomic_files, _messages, _slice_drawing
from eva_coralbay.errors import DatasetError
from eva_coralbay.pretraining import manifest, samples
from eva_coralbay.pretraining import views as views_lib

_PLANES = ("axial", "coronal", "sagittal")
"""The plane across each axis (D, H, W)."""

_LETTERS = ("APRL", "SIRL", "SIAP")
"""The directions at the top, bottom, left and right of each plane."""

_COLORS = ("#ff9f1c", "#4e9bff")
"""Colors of the boxes of global and of local views."""

_WINDOW = (-1000.0, 1000.0)
"""The HU that the region is drawn in."""

_PER_ROW = 5
"""How many views are side by side at most."""

_REGION_HEIGHT, _VIEW_HEIGHT = 5.4, 6.6
"""The heights of the region and of a row of views, in inches."""


def write_view_sheet(
    store: str,
    case: str,
    path: str,
    *,
    seed: int = 0,
    views: views_lib.Views | None = None,
) -> None:
    """Draws the views of a sample of a scan.

    Args:
        store: The store.
        case: The id of the scan.
        path: The PNG to write.
        seed: What the sample follows from.
        views: The views; those of the full recipe if None.

    Raises:
        DatasetError: If there is no such scan in the store.
    """
    content = manifest.Manifest.read(store)
    if case not in {known.case for known in content.prepared}:
        known = _messages.list_names(each.case for each in content.prepared)
        raise DatasetError(f"There is no scan '{case}' in '{store}'. There are {known}.")
    views = views or views_lib.Views()
    only = content.model_copy(
        update={"cases": tuple(known for known in content.cases if known.case == case)}
    )
    sample = samples.Regions(only, views, seed=seed).read(0)
    picture = _draw(sample, views, title=f"{case}, seed {seed}")
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=100, facecolor="black")
    _atomic_files.write_atomically(pathlib.Path(path), buffer.getvalue())


def _draw(sample: dict, views: views_lib.Views, *, title: str) -> figure.Figure:
    """Draws the region with the boxes of the views, and below it each view in three planes."""
    number = views_lib.NUM_GLOBALS + views.num_locals
    columns = min(number, _PER_ROW)
    rows = math.ceil(number / columns)
    heights = (_REGION_HEIGHT, _VIEW_HEIGHT * rows)
    picture = figure.Figure(figsize=(16, sum(heights)), layout="constrained")
    picture.suptitle(title, color=_slice_drawing.INK)
    top, bottom = np.ravel(picture.subfigures(2, 1, squeeze=False, height_ratios=heights))
    for block in (top, bottom):
        block.set_facecolor("black")
    _draw_region(top, sample, views)
    torch.manual_seed(0)
    blocks = np.ravel(bottom.subfigures(rows, columns, squeeze=False))
    for kind, size, color in zip(
        ("globals", "locals"), (views.global_size, views.local_size), _COLORS, strict=True
    ):
        drawn = sample[kind]
        batch = torch_data.default_collate([drawn])
        hounsfield = sample["hu"][None]
        rendered = views_lib.render(hounsfield, batch, size=size)[0, :, 0]
        windows = find_windows(hounsfield, batch, rendered)
        for index, view in enumerate(rendered):
            block = blocks[index + (0 if kind == "globals" else views_lib.NUM_GLOBALS)]
            block.set_facecolor("black")
            words = describe_view(drawn, index, views, windows[index])
            block.suptitle(f"{kind[:-1]} {index + 1}\n{words}", color=color, fontsize=8)
            _draw_planes(block, view.numpy())
    return picture


def _draw_region(block: figure.SubFigure, sample: dict, views: views_lib.Views) -> None:
    """Draws the middle slices of the region with the boxes of all views."""
    region = views_lib.apply_window(sample["hu"][0].float(), *_WINDOW).numpy()
    panels = block.subplots(1, 3)
    for axis, (panel, letters) in enumerate(zip(panels, _LETTERS, strict=True)):
        _slice_drawing.draw(panel, region.take(region.shape[axis] // 2, axis=axis), None, letters)
        panel.set_title(f"region, {_PLANES[axis]}", color=_slice_drawing.INK, fontsize=9)
        vertical, horizontal = (other for other in range(3) if other != axis)
        for kind, color in zip(("globals", "locals"), _COLORS, strict=True):
            for low, edge in find_boxes(sample[kind], views.region_size):
                panel.add_patch(
                    patches.Rectangle(
                        (low[horizontal] - 0.5, low[vertical] - 0.5),
                        edge,
                        edge,
                        fill=False,
                        edgecolor=color,
                        linewidth=1.2,
                    )
                )


def _draw_planes(block: figure.SubFigure, view: np.ndarray) -> None:
    """Draws the middle slices of a view, whose axes need not be those of the patient."""
    for axis, panel in enumerate(np.ravel(block.subplots(3, 1))):
        _slice_drawing.draw(panel, view.take(view.shape[axis] // 2, axis=axis), None, "")
        if axis > 0:
            # D upwards, as in the region
            panel.invert_yaxis()


def find_boxes(drawn: views_lib.Drawn, region_size: int) -> list[tuple[np.ndarray, float]]:
    """Returns where the views of a sample lie in its region.

    Args:
        drawn: What makes the views.
        region_size: The edge of the region in voxels.

    Returns:
        The first corner (D, H, W) and the edge of each view, in voxels of the region.
    """
    edges = region_size * drawn.theta[:, :, :3].abs().sum(dim=2)[:, 0].numpy()
    centers = region_size * (drawn.theta[:, :, 3].flip(1).numpy() + 1.0) / 2.0
    return [(center - edge / 2.0, float(edge)) for center, edge in zip(centers, edges, strict=True)]


def find_windows(
    hounsfield: torch.Tensor, batch: views_lib.Drawn, rendered: torch.Tensor
) -> torch.Tensor:
    """Returns the window (lower, upper) that each view was rendered in, the first or a later one.

    Args:
        hounsfield: The region, of shape [1, 1, R, R, R].
        batch: What makes the views, batched.
        rendered: The views, of shape [V, G, G, G].
    """
    taken = batch.windows[0, :, -1].clone()
    for index in reversed(range(batch.windows.shape[2])):
        only = batch._replace(windows=batch.windows[:, :, index : index + 1])
        alone = views_lib.render(hounsfield, only, size=rendered.shape[-1])[0, :, 0]
        is_taken = (alone == rendered).flatten(1).all(dim=1)
        taken[is_taken] = batch.windows[0, is_taken, index]
    return taken


def describe_view(
    drawn: views_lib.Drawn, index: int, views: views_lib.Views, window: torch.Tensor
) -> str:
    """Returns in words what makes a view: its window, its size, and how it is augmented.

    Args:
        drawn: What makes the views of a sample.
        index: Which of them it is.
        views: The sizes of the views.
        window: The HU window (lower, upper) that it was rendered in.
    """
    lower, upper = window.tolist()
    _, edge = find_boxes(drawn, views.region_size)[index]
    axes = drawn.theta[index, :, :3]
    # two flips are half a turn
    turned = bool((axes.diagonal() == 0).any() or (axes.diagonal() < 0).sum() > 1)
    mirrored = bool(torch.linalg.det(axes) < 0)
    words = [
        f"HU [{lower:.0f}, {upper:.0f}], {edge:.0f} voxels",
        " ".join(word for word, holds in (("turned", turned), ("mirrored", mirrored)) if holds),
        f"gamma {drawn.gamma[index]:.2f}" if drawn.gamma[index] != 1.0 else "",
        _describe_smoothing(float(drawn.smoothing[index])),
        f"noise {drawn.noise[index]:.3f}" if drawn.noise[index] > 0 else "",
    ]
    rest = ", ".join(word for word in words[1:] if word)
    return f"{words[0]}\n{rest or 'plain'}"


def _describe_smoothing(part: float) -> str:
    if part == 0.0:
        return ""
    return f"blurred {part:.2f}" if part > 0 else f"sharpened {-part:.2f}"
