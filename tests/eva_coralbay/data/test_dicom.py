"""Tests how DICOM series are found and read; `test_intake` has what is set aside."""

import os
import pathlib
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from eva.vision.data import tv_tensors as eva_tv_tensors
from pydicom import uid

from eva_coralbay.data import dicom
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import DatasetError
from tests.eva_coralbay.pretraining import scans


def _read(folder: pathlib.Path) -> eva_tv_tensors.Volume:
    """Reads the one series of a folder."""
    ((_, paths),) = dicom.find_series(str(folder), sorted(os.listdir(folder))).items()
    return dicom.read_series(paths, case="case")


def _expected(
    array: npt.NDArray[Any], directions: Sequence[Sequence[float]] = scans.AXIAL
) -> eva_tv_tensors.Volume:
    return grid_lib.reorient(array, scans.affine(directions))


def _assert_equal(volume: eva_tv_tensors.Volume, expected: eva_tv_tensors.Volume) -> None:
    np.testing.assert_array_equal(volume.numpy(), expected.numpy())
    affine, expected_affine = np.asarray(volume.affine), np.asarray(expected.affine)
    np.testing.assert_allclose(affine, expected_affine, rtol=0, atol=1e-4)


@pytest.mark.parametrize("directions", [scans.AXIAL, scans.SAGITTAL, scans.OBLIQUE])
def test_reads_hounsfield_and_geometry(
    tmp_path: pathlib.Path, directions: Sequence[Sequence[float]]
) -> None:
    array = scans.hounsfield()
    folder = scans.write_series(tmp_path, array, directions=directions)
    _assert_equal(_read(folder), _expected(array, directions))


def test_the_order_of_the_files_does_not_matter(tmp_path: pathlib.Path) -> None:
    array = scans.hounsfield()
    folder = scans.write_series(tmp_path, array)
    names = sorted(os.listdir(folder))
    shuffled = random.Random(0).sample(names, len(names))
    for name, other in zip(names, shuffled, strict=True):
        os.rename(folder / name, folder / f"{other}.dcm")
    _assert_equal(_read(folder), _expected(array))


@pytest.mark.parametrize(
    "syntax",
    [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless],
    ids=lambda syntax: syntax.name,
)
def test_reads_other_transfer_syntaxes(tmp_path: pathlib.Path, syntax: uid.UID) -> None:
    def change(_: int, header: pydicom.Dataset) -> None:
        if syntax.is_compressed:
            header.compress(syntax)
            return
        header.file_meta.TransferSyntaxUID = syntax
        if not syntax.is_little_endian:
            header.PixelData = np.frombuffer(header.PixelData, "<u2").astype(">u2").tobytes()
            header["PixelData"].VR = "OW"

    array = scans.hounsfield()
    _assert_equal(_read(scans.write_series(tmp_path, array, change=change)), _expected(array))


def test_reads_signed_pixels_of_twelve_bits_with_a_slope_for_each_slice(
    tmp_path: pathlib.Path,
) -> None:
    array = scans.hounsfield() // 2 * 2

    def change(index: int, header: pydicom.Dataset) -> None:
        slope = 1 + index % 2
        header.PixelRepresentation = 1
        header.BitsStored, header.HighBit = 12, 11
        header.RescaleSlope, header.RescaleIntercept = slope, -100 * slope
        header.PixelData = (array[index] // slope + 100).astype(np.int16).tobytes()

    _assert_equal(_read(scans.write_series(tmp_path, array, change=change)), _expected(array))


def test_finds_the_series_of_a_folder(tmp_path: pathlib.Path) -> None:
    array = scans.hounsfield()
    scans.write_series(tmp_path, array, name="a{}", series="1.2.3")
    scans.write_series(tmp_path, array[:3], name="b{}.DCM", series="1.2.4")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "broken.dcm").write_bytes(b"not DICOM")
    (tmp_path / "broken2.DCM").write_bytes(b"")
    found = dicom.find_series(str(tmp_path), sorted(os.listdir(tmp_path)))
    names = {series: [os.path.basename(path) for path in paths] for series, paths in found.items()}
    assert names == {
        "1.2.3": sorted(f"a{index}" for index in range(len(array))),
        "1.2.4": [f"b{index}.DCM" for index in range(3)],
        "": ["broken.dcm", "broken2.DCM"],
    }


def test_positions_not_a_tag_say_whether_the_gantry_is_tilted(tmp_path: pathlib.Path) -> None:
    def change(_: int, header: pydicom.Dataset) -> None:
        header.GantryDetectorTilt = "12.0"

    array = scans.hounsfield()
    _assert_equal(_read(scans.write_series(tmp_path, array, change=change)), _expected(array))


@pytest.mark.parametrize("slices", [1, 9])
def test_names_the_case_and_what_is_wrong(tmp_path: pathlib.Path, slices: int) -> None:
    folder = scans.write_series(tmp_path, scans.hounsfield()[:slices])
    with pytest.raises(DatasetError, match=f"'case', DICOM series of {slices} files: too few sl"):
        _read(folder)
