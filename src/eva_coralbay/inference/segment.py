"""The segmentation of a scan by what a run has trained: `eva_coralbay.segment`.

The steps are those of the scoring of the run: the scan is resampled to the spacing of its task and
cropped to the body, windows of the run's size slide over it, and the logits are interpolated
linearly to the scan's own grid, where each voxel gets the label with the highest one. The scoring
differs in two things that other scans do not have: its crop holds all labeled voxels, and prepared
scans are rounded to whole HU.
"""

import os
import pathlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import preparation, scans
from eva_coralbay.evaluation import native_grid
from eva_coralbay.inference import sources
from eva_coralbay.inference import trained as trained_lib


class Segmentation(NamedTuple):
    """A scan's segmentation on its own grid, with the axes (D, H, W) to "SPL"."""

    labels: npt.NDArray[np.integer]
    """The label of each voxel, of shape [D, H, W]."""

    probabilities: npt.NDArray[np.uint8] | None
    """The probabilities of shape [classes, D, H, W], 255 for 1; None unless they are wanted."""


def segment(
    scan: scans.Scan | str | os.PathLike[str],
    run: trained_lib.Trained | str | os.PathLike[str],
) -> npt.NDArray[np.integer]:
    """Segments a scan by what a run has trained.

    Args:
        scan: What `read_scan` returns, or a NIfTI file or a folder with one DICOM series, which is
            refused if it is not a CT scan in HU.
        run: The folder of a run, or what :func:`eva_coralbay.inference.trained.load` returns of it.

    Returns:
        The label of each voxel on the grid of the scan, of shape [D, H, W] as `read_scan` orders
        the axes.

    Raises:
        EvaCoralbayError: If the scan or the run cannot be used.
    """
    found = run if isinstance(run, trained_lib.Trained) else trained_lib.load(pathlib.Path(run))
    volume = sources.to_volume(scan)
    if not isinstance(scan, scans.Scan):
        spacing = found.transform.preparation.spacing
        sources.check_quality(volume, spacing=spacing, place=f"Scan '{os.fspath(scan)}'")
    return segment_volume(volume, found).labels


@torch.inference_mode()
def segment_volume(
    volume: eva_tv_tensors.Volume, trained: trained_lib.Trained, *, probabilities: bool = False
) -> Segmentation:
    """Segments a volume.

    Args:
        volume: The scan in HU, of shape [1, D, H, W] ("SPL"), with its affine.
        trained: What a run has trained.
        probabilities: Whether the probabilities are wanted.
    """
    prepared = preparation.prepare(volume, None, trained.transform.preparation)
    image = trained.transform.image_of(prepared)[None].to(trained.device)
    logits = trained.module.compute_logits(image)[0]
    native = grid_lib.Grid.of(volume)
    labels = native_grid.restore_labels(logits, prepared.grid, native).numpy()
    if not probabilities:
        return Segmentation(labels, None)
    restored = native_grid.restore_probabilities(logits, prepared.grid, native)
    return Segmentation(labels, restored.numpy())
