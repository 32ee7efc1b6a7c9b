"""Malformed DICOM series, in which one slice was changed."""

import pathlib
from typing import Any

import numpy as np

from eva_coralbay.data import dicom
from eva_coralbay.errors import DatasetError
from tests.eva_coralbay.pretraining import scans
from tests.fuzz import mutations
from tests.fuzz.campaign import Kind

_SLICES = 12

_CHANGES: dict[str, Any] = {
    "RescaleIntercept": (0, 24, -2048, 1e9, None),
    "RescaleSlope": (0, 2, -1, 1e-9, None),
    "PixelSpacing": ([0, 0], [1, 1], [-1, 1], [1e9, 1], [5], None),
    "SliceThickness": (0, 1, -5, 1e9, None),
    "ImagePositionPatient": ([0, 0, 0], [1, 2], [1e9, 0, 0], [0.1, 0, 0], None),
    "ImageOrientationPatient": ([1, 0, 0, 0, 1, 0], [1, 0, 0, 1, 0, 0], [0] * 6, [1, 0], None),
    "Rows": (0, 1, 4, 65535, None),
    "Columns": (0, 1, 4, 65535, None),
    "BitsAllocated": (8, 1, 16, 32, 0),
    "BitsStored": (8, 12, 16, 0, None),
    "PixelRepresentation": (0, 1, 7),
    "SamplesPerPixel": (1, 3, 0, None),
    "PhotometricInterpretation": ("MONOCHROME1", "MONOCHROME2", "RGB", "", None),
    "Modality": ("MR", "PT", "CT", "", None),
    "InstanceNumber": (0, 1, -1, 999, None),
    "SOPInstanceUID": ("1.2.3",),
    "NumberOfFrames": (0, 1, 2, 100000),
    "PixelPaddingValue": (0, 63536, 65535),
    "PatientName": ("Doe^Jane", "\u00e4\u00f6^x", ""),
}


def _write(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    series = folder / "series"
    scans.write_series(series, _array(), change=_choose_change(random))
    if random.random() < 0.5:
        path = mutations.choose(random, sorted(series.iterdir()))
        content = path.read_bytes()
        end = content.rfind(b"\xe0\x7f\x10\x00")  # the tag of the pixels
        path.write_bytes(mutations.damage(random, content, within=end if end > 0 else None))
    return series


def _choose_change(random: np.random.Generator) -> Any:
    chosen = int(random.integers(_SLICES))
    changes = {}
    for _ in range(int(random.integers(3))):
        name = mutations.choose(random, list(_CHANGES))
        changes[name] = mutations.choose(random, _CHANGES[name])

    def change(index: int, header: Any) -> None:
        if index != chosen:
            return
        for name, value in changes.items():
            if value is None and name in header:
                delattr(header, name)
            elif value is not None:
                setattr(header, name, value)

    return change


def _array() -> Any:
    return scans.hounsfield()[:_SLICES]


def _read(folder: pathlib.Path) -> list[Any]:
    names = sorted(path.name for path in folder.iterdir())
    found = dicom.find_series(str(folder), names)
    if not found:
        raise DatasetError(f"'{folder}' holds no series.")
    return [dicom.read_series(paths, case=folder.name) for paths in found.values()]


def _check(folder: pathlib.Path, volumes: list[Any]) -> str | None:
    """Whether the values are those that were written, but for slices that were left out."""
    expected = np.unique(_array())
    for volume in volumes:
        values = np.unique(volume.numpy())
        if not np.isin(values, [*expected, -1024.0, *(expected.min(keepdims=True))]).all():
            strange = values[~np.isin(values, expected)][:5]
            return f"values {strange} that were not written"
        if not np.isfinite(np.asarray(volume.affine)).all():
            return "an affine that is not finite"
    return None


SERIES = Kind("series", _write, _read, _check)
