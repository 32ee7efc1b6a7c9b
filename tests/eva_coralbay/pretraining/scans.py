"""CT scans as the files of a scanner or of a converter, for the tests of the intake."""

import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
from nibabel import orientations
from pydicom import dataset, uid
from scipy import ndimage

SHAPE = (14, 24, 20)
"""The shape (slices, rows, columns) of a scan."""

SPACING = (3.0, 2.0, 2.5)
"""The distance of slices, rows and columns, in mm."""

ORIGIN = (-20.0, -30.0, 100.0)
"""The LPS+ position of the first voxel, in mm."""

AXIAL = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""The LPS+ directions in which the slices, the rows and the columns follow each other."""

SAGITTAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))

OBLIQUE = ((0.0, -0.28, 0.96), (0.0, 0.96, 0.28), (1.0, 0.0, 0.0))
"""Axial slices, tilted together with the way in which they follow each other."""

Change = Callable[[int, pydicom.Dataset], Any]
"""What is done to each slice, by its number, before it is written."""


def hounsfield(*, seed: int = 0, shape: Sequence[int] = SHAPE) -> npt.NDArray[np.int16]:
    """Returns an ellipsoid of soft tissue with some texture, in air."""
    distance = sum(axis**2 for axis in np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)])
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.0)
    tissue = 40.0 + 300.0 * texture
    return np.where(distance < 0.9, tissue, -1000.0).round().astype(np.int16)


def affine(
    directions: Sequence[Sequence[float]] = AXIAL, spacing: Sequence[float] = SPACING
) -> npt.NDArray[np.float64]:
    """Returns the matrix from (slice, row, column) to RAS+ positions in mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(directions).T * spacing
    matrix[:3, 3] = ORIGIN
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix


def write_nifti(
    path: pathlib.Path,
    array: npt.NDArray[Any],
    matrix: npt.NDArray[np.float64] | None = None,
    *,
    orientation: str = "LPS",
) -> pathlib.Path:
    """Writes (slice, row, column) as a NIfTI file of some order of axes."""
    matrix = affine() if matrix is None else matrix
    transform = orientations.ornt_transform(
        orientations.io_orientation(matrix), orientations.axcodes2ornt(orientation)
    )
    image = nib.Nifti1Image(
        orientations.apply_orientation(array, transform),
        matrix @ orientations.inv_ornt_aff(transform, array.shape[:3]),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def write_series(
    folder: pathlib.Path,
    array: npt.NDArray[np.int16],
    *,
    directions: Sequence[Sequence[float]] = AXIAL,
    spacing: Sequence[float] = SPACING,
    change: Change = lambda index, slice_: None,
    name: str = "IM{:04d}",
    series: str | None = None,
) -> pathlib.Path:
    """Writes (slice, row, column) as a DICOM series, one file a slice."""
    folder.mkdir(parents=True, exist_ok=True)
    series = series or uid.generate_uid()
    for index, pixels in enumerate(array):
        header = _header(index, pixels, directions, spacing)
        header.SeriesInstanceUID = series
        change(index, header)
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
        header.save_as(folder / name.format(index), enforce_file_format=True)
    return folder


def _header(
    index: int,
    pixels: npt.NDArray[np.int16],
    directions: Sequence[Sequence[float]],
    spacing: Sequence[float],
) -> pydicom.Dataset:
    header = dataset.Dataset()
    header.file_meta = dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    header.SOPClassUID = uid.CTImageStorage
    header.SOPInstanceUID = uid.generate_uid()
    header.Modality = "CT"
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.InstanceNumber = index + 1
    header.ImageOrientationPatient = _rounded([*directions[2], *directions[1]])
    position = np.array(ORIGIN) + index * spacing[0] * np.array(directions[0])
    header.ImagePositionPatient = _rounded(position)
    header.PixelSpacing = [spacing[1], spacing[2]]
    header.RescaleSlope = 1
    header.RescaleIntercept = -1024
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation = 0
    header.PixelData = (pixels + 1024).astype(np.uint16).tobytes()
    return header


def _rounded(values: Iterable[float]) -> list[float]:
    """Returns numbers that fit into the 16 characters that DICOM has for one."""
    return [round(float(value), 6) for value in values]
