"""Label maps as files on the grids of the scans that they are of."""

import gzip
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from eva.vision.data import tv_tensors as eva_tv_tensors
from nibabel import nifti1, orientations

from eva_coralbay import _atomic_files
from eva_coralbay.data import dicom, nifti, nifti_image, scan_search
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.evaluation import native_grid

_COMMENT = "comment"
"""The kind of the extension of a NIfTI header that has plain text."""

_COMPRESSION = 3
"""A level at which label maps are small and written fast."""


def write(
    path: pathlib.Path,
    labels: npt.NDArray[Any],
    found: scan_search.Found,
    volume: eva_tv_tensors.Volume,
    *,
    description: Mapping[str, Any],
) -> None:
    """Writes a label map on the grid of its scan: shape, order of axes, affine and units.

    Of a NIfTI file the header says the same of the place of the voxels. Of a DICOM series the axes
    are (column, row, slice), the slices in the direction across them, as ITK reads the series.

    Args:
        path: The file, `.nii.gz`.
        labels: The labels, of shape [D, H, W] ("SPL").
        found: The scan.
        volume: The scan as it was read.
        description: What is written as JSON into an extension of the header.
    """
    image = _like(labels, found, volume)
    image.header.set_slope_inter(1, 0)
    _write(path, image, description)


def write_probabilities(
    path: pathlib.Path,
    probabilities: npt.NDArray[np.uint8],
    found: scan_search.Found,
    volume: eva_tv_tensors.Volume,
    *,
    description: Mapping[str, Any],
) -> None:
    """Writes probabilities on the grid of their scan, the classes along a fourth axis.

    Args:
        path: The file, `.nii.gz`.
        probabilities: The probabilities, of shape [classes, D, H, W] ("SPL"), 255 for 1. The file
            states the slope of 1/255.
        found: The scan.
        volume: The scan as it was read.
        description: What is written as JSON into an extension of the header.
    """
    image = _like(np.moveaxis(probabilities, 0, -1), found, volume)
    image.header.set_slope_inter(1.0 / native_grid.PROBABILITY_STEPS, 0.0)
    _write(path, image, description)


def read_description(path: pathlib.Path) -> dict[str, Any]:
    """Returns the description in a file that `write` has written; empty for any other file."""
    try:
        header: Any = nib.load(path).header
        content = json.loads(header.extensions[0].get_content())
    except Exception:  # the header of any other file may hold anything
        return {}
    return content if isinstance(content, dict) else {}


def _like(array: npt.NDArray[Any], found: scan_search.Found, volume: eva_tv_tensors.Volume) -> Any:
    if found.kind == "nifti":
        return nifti.like_file(array, found.paths[0], case=found.case)
    _, stacked = dicom.order_slices(found.paths, case=found.case)
    codes = "".join(orientations.aff2axcodes(stacked))
    return nifti_image.as_nifti(array, grid_lib.Grid.of(volume).affine, orientation=codes)


def _write(path: pathlib.Path, image: Any, description: Mapping[str, Any]) -> None:
    text = json.dumps(description).encode()
    image.header.extensions.append(nifti1.Nifti1Extension(_COMMENT, text))
    with (
        _atomic_files.open_atomically(path) as file,
        gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0) as compressed,
    ):
        content = io.BytesIO()
        image.to_stream(content)
        compressed.write(content.getbuffer())


def labels_json(classes: Sequence[str], settings: Mapping[str, Any]) -> bytes:
    """Returns the content of the file that names the labels, as nnU-Net's `dataset.json` has them.

    Args:
        classes: The names of the label values, the background first.
        settings: What the label maps are made with.
    """
    labels = {name: value for value, name in enumerate(classes)}
    return json.dumps({"labels": labels, **settings}, indent=2).encode()
