"""Label maps as DICOM SEG, in the study of the series that they are of.

highdicom writes them, which is an extra: `pip install 'eva-coralbay[dicom-seg]'`. The file has the
patient and the study of the series, as it belongs to them.
"""

import importlib
import importlib.util
import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from nibabel import orientations
from pydicom import uid
from pydicom.sr import codedict

import eva_coralbay
from eva_coralbay import _atomic_files
from eva_coralbay.data import dicom, foreign_files, scan_search
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.inference import trained as trained_lib

_SERIES_NUMBER = 900
"""The number of the series, behind those of scanners."""

_LONGEST_LABEL = 64
"""The most characters of a segment's label."""


def check_installed() -> None:
    """Checks that highdicom is installed.

    Raises:
        EvaCoralbayError: If it is not.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise EvaCoralbayError("DICOM SEG needs highdicom: pip install 'eva-coralbay[dicom-seg]'.")


def write(
    path: pathlib.Path,
    labels: npt.NDArray[np.integer],
    found: scan_search.Found,
    grid: grid_lib.Grid,
    trained: trained_lib.Trained,
) -> None:
    """Writes a label map as DICOM SEG, a segment a class.

    Args:
        path: The file.
        labels: The labels, of shape [D, H, W] ("SPL").
        found: The scan, a DICOM series.
        grid: The grid of the scan.
        trained: What has segmented it.

    Raises:
        EvaCoralbayError: If the headers of the series lack what a DICOM SEG has to state.
    """
    files, stacked = dicom.order_slices(found.paths, case=found.case)
    with foreign_files.reading(files[0], case=found.case, fix="Use the NIfTI file."):
        sources = [pydicom.dcmread(file) for file in files]
        frames = _to_slices(labels, grid, stacked)
        content = io.BytesIO()
        _build(sources, frames, trained).save_as(content)
    _atomic_files.write_atomically(path, content.getvalue())


def _to_slices(
    labels: npt.NDArray[np.integer], grid: grid_lib.Grid, stacked: npt.NDArray[np.float64]
) -> npt.NDArray[np.integer]:
    """Returns labels with the axes (slice, row, column) of the series."""
    transform = orientations.ornt_transform(
        orientations.io_orientation(grid.affine), orientations.io_orientation(stacked)
    )
    return orientations.apply_orientation(labels, transform).transpose(2, 1, 0)


def _build(
    sources: Sequence[pydicom.Dataset],
    frames: npt.NDArray[np.integer],
    trained: trained_lib.Trained,
) -> Any:
    content: Any = importlib.import_module("highdicom")
    seg: Any = importlib.import_module("highdicom.seg")
    version = eva_coralbay.__version__
    algorithm = content.AlgorithmIdentificationSequence(
        name="eva-coralbay",
        version=version,
        family=codedict.codes.DCM.ArtificialIntelligence,
        parameters={"trained_sha256": trained.sha256},
    )
    segments = [
        seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:_LONGEST_LABEL],
            # what a class is cannot be told from its name: the most general code
            segmented_property_category=codedict.codes.SCT.AnatomicalStructure,
            segmented_property_type=codedict.codes.SCT.AnatomicalStructure,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for number, name in enumerate(trained.classes)
        if number > 0
    ]
    return seg.Segmentation(
        source_images=sources,
        pixel_array=frames.astype(np.uint8 if len(trained.classes) <= 256 else np.uint16),
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=uid.generate_uid(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=uid.generate_uid(),
        instance_number=1,
        manufacturer="eva-coralbay",
        manufacturer_model_name="eva-coralbay segment",
        software_versions=version,
        device_serial_number="0",
        content_label="SEGMENTATION",
    )
