"""One case as a picture and in numbers: people look before they trust."""

import dataclasses
import io
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from matplotlib import axes, figure
from nibabel import nifti1, orientations

from eva_coralbay import _atomic_files, _messages, _slice_drawing
from eva_coralbay.data import datasets, nifti, task_datasets
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data.label_values import IGNORE_LABEL
from eva_coralbay.errors import DatasetError, EvaCoralbayError
from eva_coralbay.tasks import facts

_PERCENTILES = (0.5, 5, 25, 50, 75, 95, 99.5)
"""The percentiles of the intensities that are printed."""

_PLANES = (("axial", "APRL"), ("coronal", "SIRL"), ("sagittal", "SIAP"))
"""The plane across each axis, with the directions at its top, bottom, left and right."""

_WIDTH = 12.0
"""The width of the picture in inches."""

_MAX_PLANE_HEIGHT = 10.0
"""The largest height of a plane in inches."""


@dataclasses.dataclass(frozen=True)
class InspectedCase:
    """A case as its data set reads it, turned to the axes (D, H, W) of `grid.ORIENTATION`."""

    case: str
    """Case id."""

    path: str
    """The file of the image."""

    image: npt.NDArray[np.float32]
    """The intensities, of shape [D, H, W]."""

    labels: npt.NDArray[np.integer] | None
    """The label map, of the same shape, where voxels are labeled."""

    classes: list[str]
    """The name of each label value, or of each class of whole volumes."""

    label: int | None
    """The class of the whole volume, where volumes are classified."""

    spacing: tuple[float, float, float] | None
    """The spacing along (D, H, W) in mm, None if unknown; then the directions are, too."""

    stored_axes: str
    """The directions of the axes in the file, such as "LPS"."""


class LabelStatistics(NamedTuple):
    """What there is of a label."""

    value: int
    """Its value."""

    name: str
    """Its name."""

    voxels: int
    """The number of its voxels."""

    milliliters: float
    """Its volume."""

    mean: float | None
    """The mean intensity of its voxels."""


def read(task: str, root: str, case: str) -> InspectedCase:
    """Reads a case; the others need not exist.

    Args:
        task: The id of the task, or "nnunet" or "msd" for own scans in that layout.
        root: The folder of the data set.
        case: The id of the case.

    Raises:
        DatasetError: If there is no such case, or it cannot be read.
    """
    dataset = task_datasets.build(task, root)
    dataset.configure()
    if not dataset.case_ids:
        raise DatasetError(f"'{root}' has no cases.")
    if case not in dataset.case_ids:
        raise DatasetError(
            f"'{task}' has no case '{case}'. It has {len(dataset.case_ids)}: "
            f"{_messages.list_names(dataset.case_ids)}."
        )
    index = dataset.case_ids.index(case)
    try:
        path = os.path.join(root, dataset.filename(index))
    except KeyError as error:
        raise DatasetError(f"Case '{case}' of '{task}' is not in '{root}'.") from error
    volume, target = dataset.load_data(index), dataset.load_target(index)
    image, spacing = _turn(volume)
    is_segmented = isinstance(dataset, datasets.SegmentationDataset)
    return InspectedCase(
        case=case,
        path=path,
        image=image,
        labels=target.as_subclass(torch.Tensor)[0].numpy() if is_segmented else None,
        classes=dataset.classes,
        label=None if is_segmented else int(target),
        spacing=spacing,
        stored_axes=_stored_axes(path),
    )


def write_picture(
    inspected: InspectedCase, path: str, *, window: tuple[float, float] | None = None
) -> None:
    """Draws a case as a PNG.

    Args:
        inspected: The case.
        path: The file to write.
        window: The intensities that are drawn black and white.
    """
    content = io.BytesIO()
    draw(inspected, window=window).savefig(content, format="png", dpi=120)
    _atomic_files.write_atomically(path, content.getvalue())


def draw(inspected: InspectedCase, *, window: tuple[float, float] | None = None) -> figure.Figure:
    """Draws the axial, the coronal and the sagittal plane through the middle of the labels.

    All three have the same scale, with the patient's right at the left of the picture, as
    radiologists look at a scan; the letters at the edges name the directions (R, L, A, P, S, I).
    If the spacing is unknown, voxels are drawn as cubes and without letters.

    Args:
        inspected: The case.
        window: The intensities that are drawn black and white; those of the protocol if None,
            or all where they are not HU.

    Returns:
        The figure.
    """
    window = window or _default_window(inspected)
    if window[0] >= window[1]:
        raise EvaCoralbayError(f"The window must be (lowest, highest), got {tuple(window)}.")
    depth, height, width = np.array(inspected.image.shape) * _spacing(inspected)
    center = _center(inspected)
    names = _names_in_planes(inspected, center)
    columns = _slice_drawing.names_per_row(list(names.values()), _WIDTH)
    legend_height = 0.25 * math.ceil(len(names) / columns) + 0.2
    inches_per_mm = min(_WIDTH / (width + width + height), _MAX_PLANE_HEIGHT / max(depth, height))
    planes_height = inches_per_mm * max(depth, height) + 0.8
    canvas = figure.Figure(
        figsize=(_WIDTH, planes_height + legend_height), facecolor="black", layout="constrained"
    )
    blocks: Any = canvas.subfigures(2, 1, height_ratios=(planes_height, legend_height))
    blocks[0].set_facecolor("black")
    blocks[0].suptitle(
        _title(inspected, window), color=_slice_drawing.INK, fontsize=11, fontweight="bold"
    )
    panels = blocks[0].subplots(1, 3, width_ratios=(width, width, height))
    for axis, panel in enumerate(panels):
        _draw_plane(panel, inspected, axis=axis, index=center[axis], window=window)
    _slice_drawing.draw_legend(blocks[1], names, columns=columns)
    return canvas


def label_statistics(inspected: InspectedCase) -> list[LabelStatistics]:
    """Computes what there is of each label, the background first.

    Args:
        inspected: The case; without a label map there is nothing.
    """
    if inspected.labels is None:
        return []
    counts = np.zeros(len(inspected.classes), np.int64)
    sums = np.zeros(len(inspected.classes))
    for labels, image in zip(inspected.labels, inspected.image, strict=True):
        is_known = labels != IGNORE_LABEL
        counts += np.bincount(labels[is_known], minlength=len(counts))
        sums += np.bincount(labels[is_known], image[is_known], minlength=len(counts))
    milliliters = math.prod(_spacing(inspected)) / 1000
    return [
        LabelStatistics(
            value, name, int(count), count * milliliters, total / count if count else None
        )
        for value, (name, count, total) in enumerate(
            zip(inspected.classes, counts, sums, strict=True)
        )
    ]


def describe_image(inspected: InspectedCase) -> dict[str, str]:
    """Describes the image of a case: its file, its grid and its intensities.

    Args:
        inspected: The case.

    Returns:
        The facts as text, by name.
    """
    image = inspected.image
    facts = {
        "file": inspected.path,
        "axes in the file": inspected.stored_axes,
        "shape (D, H, W)": " x ".join(str(length) for length in image.shape),
        "spacing (D, H, W)": _join_mm(inspected.spacing),
    }
    if inspected.label is not None:
        facts["class"] = inspected.classes[inspected.label]
    facts["lowest, highest"] = f"{image.min():.0f}, {image.max():.0f}"
    facts["mean"] = f"{image.mean(dtype=np.float64):.1f}"
    for percentile, value in zip(_PERCENTILES, np.percentile(image, _PERCENTILES), strict=True):
        facts[f"percentile {percentile:g}"] = f"{value:.0f}"
    return facts


def _turn(
    volume: eva_tv_tensors.Volume,
) -> tuple[npt.NDArray[np.float32], tuple[float, float, float] | None]:
    """Returns the array of a volume with its axes in the usual directions, and its spacing."""
    array = volume.as_subclass(torch.Tensor)[0].numpy()
    if volume.affine is None:
        return array, None
    affine = np.asarray(volume.affine, dtype=np.float64)
    transform = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(grid_lib.ORIENTATION)
    )
    turned = affine @ orientations.inv_ornt_aff(transform, array.shape)
    return orientations.apply_orientation(array, transform), grid_lib.spacing(turned)


def _draw_plane(
    panel: axes.Axes,
    inspected: InspectedCase,
    *,
    axis: int,
    index: int,
    window: tuple[float, float],
) -> None:
    """Draws the plane across an axis."""
    lowest, highest = window
    down, across = (step for other, step in enumerate(_spacing(inspected)) if other != axis)
    name, letters = _PLANES[axis]
    overlay = None
    if inspected.labels is not None:
        shown = inspected.labels.take(index, axis).clip(min=0)  # nothing where it is ignored
        overlay = _slice_drawing.color_table(len(inspected.classes))[shown]
    _slice_drawing.draw(
        panel,
        ((np.take(inspected.image, index, axis) - lowest) / (highest - lowest)).clip(0, 1),
        overlay,
        letters if inspected.spacing else "",
        aspect=down / across,
    )
    length = inspected.image.shape[axis]
    panel.set_title(f"{name}, slice {index + 1} of {length}", color=_slice_drawing.INK, fontsize=9)


def _spacing(inspected: InspectedCase) -> tuple[float, float, float]:
    return inspected.spacing or (1.0, 1.0, 1.0)


def _stored_axes(path: str) -> str:
    if not nifti.is_nifti(path):
        return "-"
    return "".join(orientations.aff2axcodes(nifti1.load(path).affine))


def _center(inspected: InspectedCase) -> tuple[int, ...]:
    """Returns the labeled voxel that is next to the middle of all, or the middle of the image."""
    labeled = np.argwhere(inspected.labels > 0) if inspected.labels is not None else ()
    if len(labeled) == 0:
        return tuple(length // 2 for length in inspected.image.shape)
    offsets = (labeled - labeled.mean(axis=0)) * _spacing(inspected)
    return tuple(labeled[np.square(offsets).sum(axis=1).argmin()].tolist())


def _names_in_planes(inspected: InspectedCase, center: Sequence[int]) -> dict[int, str]:
    """Returns the names of the labels that can be seen in the three planes."""
    if inspected.labels is None:
        return {}
    planes = (inspected.labels.take(index, axis) for axis, index in enumerate(center))
    seen = sorted(set().union(*(np.unique(plane).tolist() for plane in planes)) - {0, IGNORE_LABEL})
    return {value: inspected.classes[value] for value in seen}


def _default_window(inspected: InspectedCase) -> tuple[float, float]:
    """Returns the window; without a spacing the intensities are not HU but gray values."""
    return facts.SOFT_TISSUE_HU if inspected.spacing else (0.0, float(inspected.image.max()) or 1.0)


def _title(inspected: InspectedCase, window: tuple[float, float]) -> str:
    lowest, highest = window
    parts = [inspected.case]
    if inspected.label is not None:
        parts.append(inspected.classes[inspected.label])
    if inspected.spacing:
        parts += [f"{lowest:.0f} to {highest:.0f} HU", "the patient's right is at the left"]
    else:
        parts += [f"{lowest:.0f} to {highest:.0f}", "spacing and directions unknown"]
    return ", ".join(parts)


def _join_mm(spacing: tuple[float, float, float] | None) -> str:
    return "unknown" if spacing is None else " x ".join(f"{step:.4g}" for step in spacing) + " mm"
