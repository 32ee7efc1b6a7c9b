"""Tests how DICOM series are found and read; `test_set_aside` has what is set aside."""

import errno
import pathlib
import random
import shutil
import subprocess
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from eva.vision.data import tv_tensors as eva_tv_tensors
from pydicom import uid

from eva_coralbay import read_scan
from eva_coralbay.data import dicom, nifti, reorientation
from eva_coralbay.errors import DatasetError
from tests.eva_coralbay.pretraining import scans


def _read(folder: pathlib.Path) -> eva_tv_tensors.Volume:
    """Reads the one series of a folder."""
    ((_, paths),) = dicom.find_series(
        str(folder), sorted(path.name for path in folder.iterdir())
    ).items()
    return dicom.read_series(paths, case="case")


def _expected(
    array: npt.NDArray[Any], directions: Sequence[Sequence[float]] = scans.AXIAL
) -> eva_tv_tensors.Volume:
    return reorientation.reorient(array, scans.affine(directions))


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
    names = sorted(path.name for path in folder.iterdir())
    shuffled = random.Random(0).sample(names, len(names))
    for name, other in zip(names, shuffled, strict=True):
        (folder / name).rename(folder / f"{other}.dcm")
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
    slopes = np.arange(1, 1 + scans.SHAPE[0], dtype=np.int16)
    array = scans.hounsfield() // slopes[:, None, None] * slopes[:, None, None]

    def change(index: int, header: pydicom.Dataset) -> None:
        slope = int(slopes[index])
        header.PixelRepresentation = 1
        header.BitsStored, header.HighBit = 12, 11
        header.RescaleSlope, header.RescaleIntercept = slope, -100 * slope
        header.PixelData = (array[index] // slope + 100).astype(np.int16).tobytes()

    _assert_equal(_read(scans.write_series(tmp_path, array, change=change)), _expected(array))


def _write_directory(path: pathlib.Path) -> None:
    """Writes the directory of a medium."""
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = uid.MediaStorageDirectoryStorage
    header.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    header.FileSetID = "DISC"
    header.save_as(path, enforce_file_format=True)


def test_finds_the_series_of_a_folder(tmp_path: pathlib.Path) -> None:
    array = scans.hounsfield()
    scans.write_series(tmp_path, array, name="a{}", series="1.2.3")
    scans.write_series(tmp_path, array[:3], name="b{}.DCM", series="1.2.4")
    _write_directory(tmp_path / "DICOMDIR")
    _write_directory(tmp_path / "index.dcm")
    _write_directory(tmp_path / "0001")
    (tmp_path / "words").write_bytes(b"\x08\x00\x05\x00\x0a\x00\x00\x00 no DICOM at all")
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "broken.dcm").write_bytes(b"not DICOM")
    (tmp_path / "broken2.DCM").write_bytes(b"")
    found = dicom.find_series(str(tmp_path), sorted(path.name for path in tmp_path.iterdir()))
    names = {series: [pathlib.Path(path).name for path in paths] for series, paths in found.items()}
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


@pytest.mark.parametrize(
    "cosines", [[2, 0, 0, 0, 0.5, 0], [1, 0, 0, 0.2, 0.98, 0], [0.5, 0, 0, 0, 2, 0]]
)
def test_directions_that_are_no_unit_vectors_are_not_taken_as_lengths(
    tmp_path: pathlib.Path, cosines: list[float]
) -> None:
    def change(_: int, header: pydicom.Dataset) -> None:
        header.ImageOrientationPatient = cosines

    folder = scans.write_series(tmp_path / "scan", scans.hounsfield(), change=change)
    with pytest.raises(DatasetError, match="no unit vectors at a right angle"):
        _read(folder)


def test_one_pixel_spacing_may_be_written_in_several_ways(tmp_path: pathlib.Path) -> None:
    def change(index: int, header: pydicom.Dataset) -> None:
        header.PixelSpacing = ["2.000", "2.50"] if index % 2 else ["2", "2.5"]

    array = scans.hounsfield()
    folder = scans.write_series(tmp_path / "scan", array, change=change)
    _assert_equal(_read(folder), _expected(array))


def test_what_macos_and_windows_leave_in_a_folder_is_no_series(tmp_path: pathlib.Path) -> None:
    array = scans.hounsfield()
    folder = scans.write_series(tmp_path / "scan", array, name="IM{:04d}.dcm")
    for name in ("._IM0000.dcm", "._IM0001.dcm", ".DS_Store"):
        (folder / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100))
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" * 40)

    _assert_equal(_read(folder), _expected(array))
    assert read_scan(folder).array.shape == array.shape


@pytest.mark.parametrize("slices", [1, 9])
def test_names_the_case_and_what_is_wrong(tmp_path: pathlib.Path, slices: int) -> None:
    folder = scans.write_series(tmp_path, scans.hounsfield()[:slices])
    with pytest.raises(DatasetError, match=f"'case', DICOM series of {slices} files: too few sl"):
        _read(folder)


# what other programs read, with dcm2niix as the oracle


def _as_dcm2niix(folder: pathlib.Path, out: pathlib.Path) -> eva_tv_tensors.Volume:
    """Returns the scan as dcm2niix converts it."""
    dcm2niix = pytest.importorskip("dcm2niix")
    out.mkdir()
    command = [dcm2niix.bin, "-z", "n", "-f", "scan", "-o", str(out), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = out.glob("scan*.nii")
    return nifti.read_scan(str(path), case="case")


def _assert_as_dcm2niix(folder: pathlib.Path, *, tolerance: float = 1e-3) -> None:
    expected = _as_dcm2niix(folder, folder.parent / f"{folder.name}_converted")
    volume = _read(folder)
    np.testing.assert_allclose(volume.numpy(), expected.numpy(), atol=1e-3)
    np.testing.assert_allclose(
        np.asarray(volume.affine), np.asarray(expected.affine), rtol=0, atol=tolerance
    )


def _rounded_positions(_: int, header: pydicom.Dataset) -> None:
    header.ImagePositionPatient = [round(float(p), 1) for p in header.ImagePositionPatient]


@pytest.mark.parametrize("distance", [0.625, 1.25, 3.27, 5.0])
def test_positions_may_be_rounded(tmp_path: pathlib.Path, distance: float) -> None:
    """Those of slices 0.625 mm apart differ by 0.6 or 0.7 mm.

    dcm2niix takes the distance of the first two slices for that of all.
    """
    array = scans.hounsfield(shape=(50, 24, 20))
    spacing = (distance, 2.0, 2.5)
    folder = scans.write_series(
        tmp_path / "series", array, spacing=spacing, change=_rounded_positions
    )
    expected = reorientation.reorient(array, scans.affine(spacing=spacing))
    np.testing.assert_allclose(
        np.asarray(_read(folder).affine), np.asarray(expected.affine), rtol=0, atol=2e-3
    )
    _assert_as_dcm2niix(folder, tolerance=0.1)


@pytest.mark.parametrize(("distance", "moved"), [(0.625, 0.3), (5.0, 0.6)])
def test_a_slice_that_lies_elsewhere_is_not_rounded(
    tmp_path: pathlib.Path, distance: float, moved: float
) -> None:
    def change(index: int, header: pydicom.Dataset) -> None:
        if index == 20:
            x, y, _ = header.ImagePositionPatient
            header.ImagePositionPatient = [x, y, 100 + 20 * distance + moved]

    array = scans.hounsfield(shape=(50, 24, 20))
    folder = scans.write_series(tmp_path, array, spacing=(distance, 2.0, 2.5), change=change)
    with pytest.raises(DatasetError, match="lie unevenly"):
        _read(folder)


def test_a_missing_slice_shows_where_positions_are_rounded(tmp_path: pathlib.Path) -> None:
    array = scans.hounsfield(shape=(50, 24, 20))
    spacing = (0.625, 2.0, 2.5)
    folder = scans.write_series(tmp_path, array, spacing=spacing, change=_rounded_positions)
    (folder / "IM0020").unlink()
    with pytest.raises(DatasetError, match="1 slices are missing"):
        _read(folder)


@pytest.mark.parametrize("suffix", ["", ".dcm"])
@pytest.mark.parametrize("has_meta", [True, False])
def test_reads_files_without_preamble(tmp_path: pathlib.Path, suffix: str, has_meta: bool) -> None:
    def change(_: int, header: pydicom.Dataset) -> None:
        if not has_meta:
            header.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian

    array = scans.hounsfield()
    folder = scans.write_series(tmp_path / "series", array, name="IM{:04d}" + suffix, change=change)
    for path in folder.iterdir():
        content = path.read_bytes()
        start = 132
        if not has_meta:
            # behind the meta information, whose length its first element has
            start += 12 + int.from_bytes(content[140:144], "little")
        path.write_bytes(content[start:])
    names = sorted(path.name for path in folder.iterdir())
    (paths,) = dicom.find_series(str(folder), names).values()
    assert len(paths) == len(array)
    _assert_equal(_read(folder), _expected(array))
    if not has_meta:  # dcm2niix reads no others
        _assert_as_dcm2niix(folder)


def _report(path: pathlib.Path, series: str) -> None:
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = uid.BasicTextSRStorage
    header.SOPInstanceUID = uid.generate_uid()
    header.Modality, header.SeriesInstanceUID = "SR", series
    header.save_as(path, enforce_file_format=True)


def test_a_stray_localizer_and_a_report_are_left_out(
    tmp_path: pathlib.Path, log: list[str]
) -> None:
    array = scans.hounsfield()
    folder = scans.write_series(tmp_path, array, series="1.2.3")

    def localize(_: int, header: pydicom.Dataset) -> None:
        header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    scans.write_series(
        folder, scans.hounsfield(shape=(1, 50, 60)), directions=scans.SAGITTAL, change=localize,
        name="scout{}", series="1.2.3",
    )  # fmt: skip
    _report(folder / "report", "1.2.3")
    names = sorted(path.name for path in folder.iterdir())
    (paths,) = dicom.find_series(str(folder), names).values()
    assert len(paths) == len(array) + 2
    _assert_equal(_read(folder), _expected(array))
    (message,) = (line for line in log if "left out" in line)
    assert "2 of 16 files are left out" in message and message.endswith("report, scout0.")
    assert "a localizer" in message and "modality is SR" in message


def test_copies_of_slices_count_once(tmp_path: pathlib.Path, log: list[str]) -> None:
    array = scans.hounsfield()
    folder = scans.write_series(tmp_path, array, series="1.2.3")
    for number in (2, 3):
        shutil.copy(folder / f"IM{number:04d}", folder / f"copy{number}")
    header = pydicom.dcmread(folder / "IM0005")
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    header.save_as(folder / "sent_again")
    _assert_equal(_read(folder), _expected(array))
    assert any("3 of 17 files are left out (a copy of another slice)" in line for line in log)
    header.PixelData = bytes(len(header.PixelData))
    header.save_as(folder / "sent_again")
    with pytest.raises(DatasetError, match="1 slices lie at the position of another one"):
        _read(folder)


@pytest.mark.parametrize(("stated", "sign"), [(63536, 0), (-2000, 1)])
def test_padding_without_a_sign_is_air(tmp_path: pathlib.Path, stated: int, sign: int) -> None:
    """-2000 is 63536 where it is stored without a sign, which would be 62512 HU."""
    array = scans.hounsfield()

    def change(index: int, header: pydicom.Dataset) -> None:
        pixels = (array[index] + 1024).astype(np.uint16)
        pixels[:3] = 63536
        header.PixelData = pixels.tobytes()
        header.PixelRepresentation = sign
        header.PixelPaddingValue = stated
        header["PixelPaddingValue"].VR = "SS" if sign else "US"

    folder = scans.write_series(tmp_path, array, change=change)
    volume = _read(folder)
    expected = array.copy()
    expected[:, :3] = -1024 if not sign else -3024
    _assert_equal(volume, _expected(expected))


def test_padding_up_to_the_range_limit_is_air(tmp_path: pathlib.Path) -> None:
    """Between the padding value and its limit, both without a sign."""
    array = scans.hounsfield()

    def change(index: int, header: pydicom.Dataset) -> None:
        pixels = np.frombuffer(header.PixelData, np.uint16).reshape(header.Rows, header.Columns)
        pixels = pixels.copy()
        pixels[0, :3] = (63536, 63538, 63540)
        header.PixelData, header.PixelRepresentation = pixels.tobytes(), 0
        header.add_new("PixelPaddingValue", "US", 63536)
        header.add_new("PixelPaddingRangeLimit", "US", 63540)

    folder = scans.write_series(tmp_path, array, change=change)
    volume = dicom.read_series([str(path) for path in sorted(folder.iterdir())], case="a")

    assert float(volume.max()) < 2000


def test_a_padding_value_within_the_scale_changes_nothing(tmp_path: pathlib.Path) -> None:
    array = scans.hounsfield()

    def change(_: int, header: pydicom.Dataset) -> None:
        header.PixelPaddingValue = 1064  # 40 HU
        header["PixelPaddingValue"].VR = "US"

    _assert_equal(_read(scans.write_series(tmp_path, array, change=change)), _expected(array))


def test_a_deflated_file_is_not_inflated(tmp_path: pathlib.Path) -> None:
    """2 MB of it may be 5 GB."""

    def change(_: int, header: pydicom.Dataset) -> None:
        header.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
        header.PixelData = bytes(200 * 2**20)

    folder = scans.write_series(tmp_path, scans.hounsfield()[:1], change=change)
    tracemalloc.start()
    (paths,) = dicom.find_series(str(folder), [path.name for path in folder.iterdir()]).values()
    with pytest.raises(DatasetError, match="deflated .* convert it to NIfTI"):
        dicom.read_series(paths, case="case")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 2**20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"HighBit": 11}, "HighBit is not BitsStored - 1"),
        ({"BitsStored": 8}, "HighBit is not BitsStored - 1"),
        ({"BitsStored": 17, "HighBit": 16}, "BitsStored is missing or is not from 1 to"),
        ({"BitsAllocated": 12}, "BitsAllocated is not 8, 16 or 32"),
    ],
)
def test_bits_that_readers_mask_each_in_its_own_way(
    tmp_path: pathlib.Path, changes: dict[str, int], message: str
) -> None:
    def change(index: int, header: pydicom.Dataset) -> None:
        if index == 3:
            for name, value in changes.items():
                setattr(header, name, value)

    with pytest.raises(DatasetError, match=message):
        _read(scans.write_series(tmp_path, scans.hounsfield(), change=change))


@pytest.mark.parametrize("rest", [b"\0", b"\xff" * 3000, bytes(range(256)) * 12])
def test_what_is_left_behind_the_pixels_is_not_read(tmp_path: pathlib.Path, rest: bytes) -> None:
    """GDCM takes it for elements, and allocates what their lengths say: 3 GB for 3 kB."""
    array = scans.hounsfield()
    folder = scans.write_series(tmp_path, array)
    path = sorted(folder.iterdir())[3]
    path.write_bytes(path.read_bytes() + rest)

    _assert_equal(_read(folder), _expected(array))


def test_an_error_of_the_disk_is_the_cause(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = scans.write_series(tmp_path, scans.hounsfield())

    def fail(path: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(dicom.dicom_header, "read", fail)
    with pytest.raises(DatasetError) as raised:
        _read(folder)
    assert isinstance(raised.value.__cause__, OSError)
