"""Tests which scans are found, which are set aside and why, and that a later call goes on."""

import errno
import gzip
import json
import multiprocessing
import os
import pathlib
import re
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch
from pydicom import encaps, uid

from eva_coralbay import _processes
from eva_coralbay.cli import main
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import nifti, quality, resampling
from eva_coralbay.errors import DatasetError
from eva_coralbay.pretraining import manifest
from eva_coralbay.pretraining.intake import examine
from eva_coralbay.pretraining.intake import prepare as preparation
from tests.eva_coralbay.pretraining import scans

_SPACING = (3.0, 3.0, 3.0)

_FORK = multiprocessing.get_context("fork")
"""A forked process need not import torch anew."""


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder for the files of scans."""
    folder = tmp_path / "scans"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path: pathlib.Path) -> str:
    """A folder for the store."""
    return str(tmp_path / "store")


def _prepare(
    source: pathlib.Path | Sequence[pathlib.Path], out: str, **options: Any
) -> manifest.Manifest:
    sources = [source] if isinstance(source, pathlib.Path) else source
    options = {"spacing": _SPACING, "workers": 1} | options
    return preparation.prepare([str(path) for path in sources], out, **options)


def _statuses(content: manifest.Manifest) -> dict[str, str]:
    return {case.case: case.status for case in content.cases}


def _read(content: manifest.Manifest, case: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Returns the HU and the affine of a prepared scan."""
    (row,) = (row for row in content.prepared if row.case == case)
    scan = content.open(row)
    return scan.read_image(scan.whole).numpy()[0], scan.grid.affine


def _write_scans(folder: pathlib.Path, number: int) -> None:
    for seed in range(number):
        scans.write_nifti(folder / f"{seed}.nii.gz", scans.hounsfield(seed=seed))


# what is in the store


@pytest.mark.parametrize("directions", [scans.AXIAL, scans.SAGITTAL], ids=["axial", "sagittal"])
def test_nifti_and_dicom_of_a_scan_give_the_same(
    tmp_path: pathlib.Path, directions: Sequence[Sequence[float]]
) -> None:
    array, affine = scans.hounsfield(), scans.affine(directions)
    scans.write_series(tmp_path / "a/scan", array, directions=directions)
    scans.write_nifti(tmp_path / "b/scan.nii", array, affine, orientation="LPS")
    scans.write_nifti(tmp_path / "c/scan.nii.gz", array, affine, orientation="RAS")
    scans.write_nifti(tmp_path / "d/scan.nii.gz", array.astype(float), affine, orientation="SLA")
    contents = [_prepare(tmp_path / name, str(tmp_path / f"store_{name}")) for name in "abcd"]
    rows = [content.prepared[0] for content in contents]
    assert [row.kind for row in rows] == ["dicom", "nifti", "nifti", "nifti"]
    assert len({row.sha256 for row in rows}) == 1
    assert len({(row.source, row.prepared, row.hounsfield) for row in rows}) == 1
    expected_hu, expected_affine = _read(contents[0], "a__scan")
    for name, content in zip("bcd", contents[1:], strict=True):
        hu, found_affine = _read(content, f"{name}__scan")
        np.testing.assert_array_equal(hu, expected_hu)
        np.testing.assert_allclose(found_affine, expected_affine, atol=1e-4)


@pytest.mark.parametrize("directions", [scans.AXIAL, scans.SAGITTAL], ids=["axial", "sagittal"])
def test_a_voxel_lies_where_dicom_says(
    source: pathlib.Path, out: str, directions: Sequence[Sequence[float]]
) -> None:
    array = scans.hounsfield()
    index = (5, 14, 8)
    array[index] = 2000
    scans.write_series(source / "scan", array, directions=directions)
    steps = np.array(directions) * np.array(scans.SPACING)[:, None]
    left, posterior, superior = np.array(scans.ORIGIN) + np.array(index) @ steps
    spacing = np.abs(steps.sum(axis=0))[::-1]  # that of the scan, so nothing is resampled
    hu, affine = _read(_prepare(source, out, spacing=spacing), "scans__scan")
    found = affine @ [*np.unravel_index(hu.argmax(), hu.shape), 1.0]
    np.testing.assert_allclose(found[:3], [-left, -posterior, superior], rtol=0, atol=1e-4)
    assert hu.max() == 2000 and (hu == 2000).sum() == 1


def test_the_store_holds_the_body_resampled(source: pathlib.Path, out: str) -> None:
    array = scans.hounsfield()
    array[7, 12, 10] = 32000
    path = scans.write_nifti(source / "scan.nii.gz", array)
    hu, affine = _read(_prepare(source, out), "scans__scan")
    volume = nifti.read_scan(str(path), case="scan")
    clipped = type(volume)(volume.clamp(-1024, 3071), affine=volume.affine)
    resampled = resampling.resample(clipped, _SPACING)
    assert grid_lib.spacing(affine) == pytest.approx(_SPACING)
    assert hu.max() > 1000 and hu.max() <= 3071
    whole = resampled.as_subclass(torch.Tensor).numpy()[0]
    at = np.linalg.solve(np.asarray(resampled.affine), affine)[:3, 3].round().astype(int)
    box = tuple(slice(first, first + length) for first, length in zip(at, hu.shape, strict=True))
    np.testing.assert_allclose(hu, whole[box], atol=0.51)
    assert hu.size < whole.size and (hu > -500).sum() == (whole.round() > -500).sum()


def test_a_folder_of_all_kinds(source: pathlib.Path, out: str) -> None:
    _write_scans(source / "imagesTr", 1)
    _write_scans(source / "labelsTr", 1)
    scans.write_nifti(source / ".hidden.nii.gz", scans.hounsfield(seed=1))
    scans.write_series(source / "study/series 1", scans.hounsfield(seed=2))
    scans.write_series(source / "both", scans.hounsfield(seed=3), name="a{}.dcm")
    scans.write_series(source / "both", scans.hounsfield(seed=4), name="b{}")
    (source / "both/notes.txt").write_text("")
    (source / "away.nii.gz").symlink_to("nowhere.nii.gz")
    (source / "loop").symlink_to(source)
    os.mkfifo(source / "pipe.nii.gz")
    assert _statuses(_prepare(source, out)) == dict.fromkeys(
        ["scans__both__a0", "scans__both__b0", "scans__imagesTr__0", "scans__study__series__1"],
        "prepared",
    )


def test_ids_are_short_and_apart(tmp_path: pathlib.Path, out: str) -> None:
    sources = [tmp_path / "one/data", tmp_path / "two/data"]
    for seed, folder in enumerate(sources):
        scans.write_nifti(folder / "ct.nii.gz", scans.hounsfield(seed=seed))
    long = "sub/" + "x" * 100 + "/" + "y" * 100
    scans.write_nifti(sources[0] / f"{long}.nii.gz", scans.hounsfield(seed=2))
    content = _prepare(sources, out)
    first, apart, of_long = sorted(_statuses(content), key=len)
    assert first == "data__ct" and re.fullmatch("data__ct-[0-9a-f]{8}", apart)
    assert len(of_long) == 120 and of_long.endswith("_" + "y" * 100)
    # whatever is named first, and what else is named
    for again in (sources[::-1], sources[1:], sources + sources[:1]):
        assert _prepare(again, out) == content
    assert len(content.prepared) == 3


def test_a_moved_source_is_the_same(tmp_path: pathlib.Path, source: pathlib.Path, out: str) -> None:
    _write_scans(source, 2)
    content = _prepare(source, out)
    (tmp_path / "elsewhere").mkdir()
    moved = source.rename(tmp_path / "elsewhere/scans")
    assert _prepare(moved, out) == content
    excluded = _prepare(moved, out, exclude=["0*"])
    assert _statuses(excluded) == {"scans__0": "quarantined", "scans__1": "prepared"}


def test_takes_files_as_sources(source: pathlib.Path, out: str) -> None:
    _write_scans(source, 3)
    content = _prepare([source / "0.nii.gz", source / "2.nii.gz"], out)
    assert _statuses(content) == {"scans__0": "prepared", "scans__2": "prepared"}
    assert len(_prepare(source, out).prepared) == 3


def test_excludes(source: pathlib.Path, out: str) -> None:
    _write_scans(source / "case_1", 2)
    _write_scans(source / "case_2", 1)
    scans.write_series(source / "case_3/dicom", scans.hounsfield(seed=5))
    content = _prepare(source, out, exclude=["case_2/*", "*/1.nii.gz", "case_3*"])
    assert _statuses(content) == {"scans__case_1__0": "prepared"}


def test_what_fits_no_file_is_an_error(source: pathlib.Path, out: str) -> None:
    _write_scans(source / "labelsTr", 1)
    _write_scans(source, 1)
    (source / ".hidden").write_text("")
    match = "nothing to exclude that fits 'case_4/\\*', '/mnt/\\*'; nothing is prepared.*below SRC"
    with pytest.raises(DatasetError, match=match):
        _prepare(source, out, exclude=["0*", "case_4/*", "/mnt/*"])
    assert not list(pathlib.Path(out).rglob("[!.]*"))
    # of what is not looked at anyhow
    assert len(_prepare(source, out, exclude=["labelsTr/*", ".hidden"]).prepared) == 1


def test_an_id_does_not_depend_on_what_is_excluded(source: pathlib.Path, out: str) -> None:
    scans.write_series(source / "study", scans.hounsfield(seed=1), name="a{}.dcm")
    scans.write_series(source / "study", scans.hounsfield(seed=2), name="b{}.dcm")
    assert _statuses(_prepare(source, out, exclude=["*/b*"])) == {"scans__study__a0": "prepared"}


def test_excludes_what_an_earlier_call_prepared(
    source: pathlib.Path, out: str, log: list[str]
) -> None:
    _write_scans(source, 1)
    scans.write_series(source / "study", scans.hounsfield(seed=1), name="a{}.dcm")
    scans.write_series(source / "study", scans.hounsfield(seed=2), name="b{}.dcm")
    before = _prepare(source, out)
    assert len(before.prepared) == 3
    content = _prepare(source, out, exclude=["0.nii.gz", "study/a*"])
    assert [case.case for case in content.prepared] == ["scans__study__b0"]
    assert {case.reason for case in content.cases} == {None, "excluded"}
    warned = {message.split("'")[1] for message in log if message.startswith("WARNING")}
    assert warned == {"scans__0", "scans__study__a0"}
    # nothing but what is excluded, and again without
    assert _prepare(source, out, exclude=["*"]).prepared == ()
    assert _prepare(source, out) == before


def test_what_is_excluded_at_one_place_is_at_others(
    source: pathlib.Path, out: str, log: list[str]
) -> None:
    for name in ("a", "b"):
        scans.write_nifti(source / f"{name}.nii.gz", scans.hounsfield())
    scans.write_nifti(source / "c.nii.gz", scans.hounsfield(seed=1))
    before = _prepare(source, out)
    for name, other in (("a", "b"), ("b", "a")):
        content = _prepare(source, out, exclude=[f"{name}*"])
        assert [case.case for case in content.prepared] == ["scans__c"]
        reasons = {case.case: case.reason for case in content.cases}
        assert reasons[f"scans__{name}"] == "excluded"
        assert reasons[f"scans__{other}"] == f"the same scan as 'scans__{name}'"
        assert any("WARNING Scan 'scans__a'" in message for message in log)
        log.clear()
        assert _prepare(source, out) == before


# what is set aside


def _series(problem: str, change: scans.Change, **options: Any) -> tuple[str, Callable]:
    """Returns a reason, and what writes a series that is set aside for it."""

    def write(path: pathlib.Path) -> None:
        scans.write_series(path, scans.hounsfield(seed=99), change=change, **options)

    return problem, write


def _set(**values: Any) -> scans.Change:
    """Returns a change of header fields."""

    def change(_: int, header: pydicom.Dataset) -> None:
        for tag, value in values.items():
            setattr(header, tag, value)

    return change


def _move(offset: Callable[[int], Sequence[float]]) -> scans.Change:
    """Returns a change of the position of the slices, in mm."""

    def change(index: int, header: pydicom.Dataset) -> None:
        position = np.array(header.ImagePositionPatient, dtype=float) + offset(index)
        header.ImagePositionPatient = [round(float(value), 6) for value in position]

    return change


def _without_modality(_: int, header: pydicom.Dataset) -> None:
    del header.Modality


def _at(number: int, change: scans.Change) -> scans.Change:
    """Returns a change of one slice only."""
    return lambda index, header: change(index, header) if index == number else None


def _color(_: int, header: pydicom.Dataset) -> None:
    _set(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)(0, header)
    _set(BitsAllocated=8, BitsStored=8, HighBit=7)(0, header)
    header.PixelData = bytes(3 * header.Rows * header.Columns)


def _smaller(_: int, header: pydicom.Dataset) -> None:
    header.Rows = 22
    header.PixelData = header.PixelData[: 2 * 22 * header.Columns]


def _deflated(_: int, header: pydicom.Dataset) -> None:
    header.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian


def _broken_jpeg(_: int, header: pydicom.Dataset) -> None:
    header.file_meta.TransferSyntaxUID = uid.JPEGLosslessSV1
    header.PixelData = encaps.encapsulate([b"no JPEG at all"])


def _without(number: int) -> Callable[[pathlib.Path], None]:
    def write(path: pathlib.Path) -> None:
        scans.write_series(path, scans.hounsfield(seed=99))
        for index in range(5, 5 + number):
            (path / f"IM{index:04d}").unlink()

    return write


def _few(path: pathlib.Path) -> None:
    scans.write_series(path, scans.hounsfield(seed=99)[:5])


def _cut_slice(length: int) -> Callable[[pathlib.Path], None]:
    """Returns what writes a series of which a file is cut to a length, from the end if below 0."""

    def write(path: pathlib.Path) -> None:
        scans.write_series(path, scans.hounsfield(seed=99), name="IM{:04d}.dcm")
        file = path / "IM0003.dcm"
        file.write_bytes(file.read_bytes()[:length])

    return write


def _nifti(
    problem: str,
    change: Callable[[npt.NDArray[np.int16]], npt.NDArray[Any]],
    matrix: npt.NDArray[np.float64] | None = None,
) -> tuple[str, Callable]:
    """Returns a reason, and what writes a NIfTI file that is set aside for it."""

    def write(path: pathlib.Path) -> None:
        array = change(scans.hounsfield(seed=98))
        scans.write_nifti(path.with_suffix(".nii.gz"), array, matrix)

    return problem, write


def _bytes(
    problem: str, change: Callable[[bytes], bytes], suffix: str = ".nii.gz"
) -> tuple[str, Callable]:
    """Returns a reason, and what writes a NIfTI file whose bytes are changed."""

    def write(path: pathlib.Path) -> None:
        file = scans.write_nifti(path.with_suffix(suffix), scans.hounsfield(seed=97))
        file.write_bytes(change(file.read_bytes()))

    return problem, write


def _flip(content: bytes) -> bytes:
    """Returns bytes with a bit in the middle flipped."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _without_codes(content: bytes) -> bytes:
    """Returns a NIfTI file without qform and sform."""
    header = bytearray(gzip.decompress(content))
    header[252:256] = bytes(4)
    return gzip.compress(header)


def _with_wrong_affine(content: bytes) -> bytes:
    """Returns a NIfTI file whose first axis has no direction."""
    header = bytearray(gzip.decompress(content))
    header[280:328:16] = header[281:328:16] = header[282:328:16] = header[283:328:16] = bytes(3)
    return gzip.compress(header)


def _in_unit(code: int) -> Callable[[bytes], bytes]:
    """Returns what gives a NIfTI file a unit of length, beside seconds."""

    def change(content: bytes) -> bytes:
        header = bytearray(gzip.decompress(content))
        header[123] = code | 8
        return gzip.compress(header)

    return change


def _pair(path: pathlib.Path) -> None:
    """Writes a scan with its header in a file of its own."""
    nib.save(nib.Nifti1Pair(scans.hounsfield().T, np.eye(4)), path.with_suffix(".img"))


def _blocks(array: npt.NDArray[np.int16]) -> npt.NDArray[Any]:
    return np.kron(np.arange(64).reshape(4, 4, 4), np.ones((4, 6, 5))).astype(np.uint8)


def _with_nan(array: npt.NDArray[np.int16]) -> npt.NDArray[Any]:
    return np.where(array > 50, np.nan, array).astype(np.float32)


def _noise(level: float) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    """Returns what makes noise of a scan."""
    return lambda array: np.random.default_rng(0).normal(level, 10, array.shape).astype(np.float32)


_TILT = np.tan(np.radians(15.0)) * scans.SPACING[0]

_MALFORMED: dict[str, tuple[str, Callable[[pathlib.Path], None]]] = {
    "tilted": _series(
        "the gantry is tilted by 15.0 degrees", _move(lambda index: (0, _TILT * index, 0))
    ),
    "uneven": _series(
        "the slices lie unevenly, 2.00 to 4.00 mm from each other",
        _at(5, _move(lambda _: (0, 0, 1))),
    ),
    "one_slice_aside": _series(
        "the slices do not lie behind each other, but up to 50.0 mm to the side",
        _at(5, _move(lambda _: (50, 0, 0))),
    ),
    "missing": ("2 slices are missing", _without(2)),
    "duplicate_positions": _series(
        "1 slices lie at the position of another one",
        _at(5, _move(lambda _: (0, 0, scans.SPACING[0]))),
    ),
    "localizer": _series("a localizer", _set(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
    "localizer_alone": _series("a localizer", _set(ImageType="LOCALIZER")),
    "magnetic_resonance": _series(
        "the modality is MR, not CT", _set(Modality="MR", SOPClassUID=uid.MRImageStorage)
    ),
    "no_modality": _series("the modality is missing, not CT", _without_modality),
    "positron_emission": _series("the modality is PT, not CT", _set(Modality="PT")),
    "no_rescale": _series("not HU: RescaleSlope or RescaleInt", _set(RescaleSlope=None)),
    "rescaled_to_something": _series("not HU: RescaleType is US, not HU", _set(RescaleType="US")),
    "rescaled_to_anything": _series("not HU: RescaleType is not HU", _set(RescaleType="Doe^Jane")),
    "unknown_modality": _series("files: the modality is not CT", _set(Modality="DOE_JANE")),
    "slope_is_0": _series("not HU: RescaleSlope is not above 0", _set(RescaleSlope=0)),
    "slope_is_huge": _series("voxels are NaN or infinite", _set(RescaleSlope="1e300")),
    "another_intercept": _series(
        "mixed: 1 slices have another RescaleSlope or RescaleIntercept than the others",
        _at(5, _set(RescaleIntercept=0)),
    ),
    "another_slope": _series(
        "mixed: 1 slices have another RescaleSlope", _at(5, _set(RescaleSlope=2))
    ),
    "deflated": _series("deflated (transfer syntax", _deflated),
    "intercept_is_0": _series("not HU: values from 24 to", _set(RescaleIntercept=0)),
    "secondary_capture": _series(
        "a secondary capture", _set(SOPClassUID=uid.SecondaryCaptureImageStorage)
    ),
    "several_frames": _series("several frames in a file", _set(NumberOfFrames=14)),
    "color": _series("a color image", _color),
    "inverted": _series(
        "the photometric interpretation is MONOCHROME1",
        _set(PhotometricInterpretation="MONOCHROME1"),
    ),
    "few_slices": ("too few slices: 5", _few),
    "mixed_sizes": _series("mixed: the slices differ in size", _at(5, _smaller)),
    "mixed_spacings": _series(
        "mixed: the slices differ in pixel spacing", _at(5, _set(PixelSpacing=[2, 2]))
    ),
    "mixed_orientations": _series(
        "mixed: the slices differ in orientation",
        _at(5, _set(ImageOrientationPatient=[0, 1, 0, 1, 0, 0])),
    ),
    "wrong_pixel_spacing": _series("PixelSpacing is invalid", _set(PixelSpacing=[2, -2])),
    "no_orientation": _series(
        "ImageOrientationPatient is missing", _set(ImageOrientationPatient=None)
    ),
    "position_is_nan": _series(
        "1 of them: ImagePositionPatient is invalid: NaN or infinite",
        _at(5, lambda _, header: setattr(header, "ImagePositionPatient", ["0", "0", "nan"])),
    ),
    "position_of_two": _series(
        "ImagePositionPatient is invalid: it does not have 3 numbers",
        _set(ImagePositionPatient=[0, 0]),
    ),
    "wrong_orientation": _series(
        "ImageOrientationPatient is invalid", _set(ImageOrientationPatient=[0] * 6)
    ),
    "no_position": _series(
        "1 of them: ImagePositionPatient is missing", _at(5, _set(ImagePositionPatient=None))
    ),
    "cut_in_pixels": ("1 of them: truncated: it is shorter than its pixels", _cut_slice(-100)),
    "cut_by_a_little": ("1 of them: truncated: it is shorter than its pixels", _cut_slice(-6)),
    "cut_in_header": ("1 of them: truncated: no pixels follow", _cut_slice(-1000)),
    "broken_jpeg": _series("unreadable (RuntimeError)", _broken_jpeg),
    "flat": _series("constant: all voxels are -1024", _set(PixelData=bytes(2 * 24 * 20))),
    "cut_nifti": _bytes("the file is unreadable", lambda content: content[:-500]),
    "cut_nifti_without_gzip": _bytes(
        "the file is unreadable", lambda content: content[:-500], ".nii"
    ),
    "flipped_bit": _bytes("the file is unreadable", _flip),
    "no_nifti": _bytes("the file is unreadable", lambda content: content[::-1]),
    "empty_file": _bytes("the file is unreadable", lambda _: b""),
    "wrong_affine": _bytes("the affine is singular or not finite", _with_wrong_affine),
    "no_codes": _bytes("orientation and spacing are missing", _without_codes),
    "constant": _nifti("constant: all voxels are 40", lambda array: np.full_like(array, 40)),
    "not_a_number": _nifti("voxels are NaN or infinite", _with_nan),
    "air": _nifti("empty, or not HU: 0.0%", _noise(-1000.0)),
    "scaled": _nifti("scaled to [0, 1]", lambda array: (array + 1000.0) / 2000.0),
    "normalized": _nifti("a range as of normalized values", lambda array: array / 1000.0),
    "bits": _nifti(
        "an image of 8 bits", lambda array: np.clip(array + 100.0, 0, 255).astype(np.uint8)
    ),
    "label_map": _nifti("looks like a label map", _blocks),
    "positive": _nifti("none below 0", lambda array: array + 1024),
    "bright": _nifti("more than one percent of them above 4096", lambda array: array * 60.0),
    "few_voxels": _nifti("too small: 8x24x20 voxels", lambda array: array[3:-3]),
    "small": _nifti(
        "too small: 14x24x20 voxels, 14x24x20 mm",
        lambda array: array,
        scans.affine(spacing=(1, 1, 1)),
    ),
    "large": _nifti(
        "too large: 14x24x20 voxels, 4200x4800x5000 mm (D, H, W); at most 3000 mm are possible "
        "(is the spacing not in mm?)",
        lambda array: array,
        scans.affine(spacing=(300, 200, 250)),
    ),
    "large_in_all": _nifti(
        "too large: 14x24x20 voxels, 2800x2880x2800 mm (D, H, W), would be 836,266,667 voxels at "
        "3x3x3 mm",
        lambda array: array,
        scans.affine(spacing=(200, 120, 140)),
    ),
    "in_meters": _bytes("the unit of length (xyzt_units) is meters: some", _in_unit(1)),
    "in_micrometers": _bytes("(xyzt_units) is micrometers: some programs", _in_unit(3)),
    "in_something": _bytes("(xyzt_units) has the unknown code 5", _in_unit(5)),
    "pair": ("not a NIfTI file. Convert it to .nii.gz", _pair),
    "several_volumes": _nifti(
        "is not that of one volume", lambda array: np.stack([array, array], axis=-1)
    ),
    "copy_of_good": _nifti("the same scan as 'scans__good'", lambda _: scans.hounsfield(seed=1)),
}
"""What is set aside by its name: a part of the reason, and what writes it."""


def test_sets_aside_what_is_malformed(source: pathlib.Path, out: str) -> None:
    for name, (_, write) in _MALFORMED.items():
        write(source / "malformed" / name)
    scans.write_nifti(source / "good.nii.gz", scans.hounsfield(seed=1))
    scans.write_series(source / "good_series", scans.hounsfield(seed=2))
    content = _prepare(source, out)
    assert [case.case for case in content.prepared] == ["scans__good", "scans__good_series"]
    reasons = {
        case.case.removeprefix("scans__malformed__"): case.reason
        for case in content.cases
        if case.status == "quarantined"
    }
    expected = {name: reason for name, (reason, _) in _MALFORMED.items()}
    assert len(expected) >= 20 and reasons.keys() == expected.keys()
    wrong = {name: reasons[name] for name in reasons if expected[name] not in str(reasons[name])}
    assert wrong == {}


def test_a_file_that_is_no_dicom_does_not_hide_the_others(source: pathlib.Path, out: str) -> None:
    scans.write_series(source / "series", scans.hounsfield())
    (source / "series/broken.dcm").write_bytes(b"")
    content = _prepare(source, out)
    assert _statuses(content) == {
        "scans__series__IM0000": "prepared",
        "scans__series__broken": "quarantined",
    }
    assert content.cases[1].reason == "DICOM series of 1 files: unreadable (InvalidDicomError)."


def test_counts_what_was_set_aside_and_logs_what_was_not_looked_at(
    source: pathlib.Path, out: str, log: list[str]
) -> None:
    _write_scans(source, 1)
    for level in (40, 41):
        flat = np.full(scans.SHAPE, level, dtype=np.int16)
        scans.write_nifti(source / f"flat_{level}.nii.gz", flat)
    (source / "notes.txt").write_text("")
    change = _set(PhotometricInterpretation="MONOCHROME1")
    scans.write_series(source / "inverted", scans.hounsfield(), change=change)
    (first, twice), (second, once) = preparation.count_reasons(_prepare(source, out)).items()
    assert (first, twice, once) == ("constant: all voxels are N", 2, 1)
    assert second.startswith("DICOM series of N files") and "is MONOCHROME1, not" in second
    assert any("not looked at: 1 neither NIfTI nor DICOM." in message for message in log)


# one call after another


def _looked_at(log: list[str]) -> list[str]:
    """Returns how many scans were found and looked at, by the calls that were logged."""
    found = (re.search(r"(\d+ found, \d+) of them", message) for message in log)
    return [match[1] for match in found if match]


def test_a_second_call_has_nothing_to_do(source: pathlib.Path, out: str, log: list[str]) -> None:
    _write_scans(source, 2)
    scans.write_series(source / "series", scans.hounsfield(seed=3))
    (source / "broken.nii.gz").write_bytes(b"")
    content = _prepare(source, out)
    written = {path: path.stat().st_mtime_ns for path in pathlib.Path(out).rglob("*.scan")}
    assert _prepare(source, out) == content
    assert _looked_at(log) == ["4 found, 4", "4 found, 0"]
    assert {path: path.stat().st_mtime_ns for path in pathlib.Path(out).rglob("*.scan")} == written


def test_says_beforehand_what_it_takes(source: pathlib.Path, out: str, log: list[str]) -> None:
    _write_scans(source, 2)
    _prepare(source, out)
    text = "".join(log)
    assert re.search(r"2 found, 2 of them \(\d\.\d MB\) to be looked at: about \d\.\d min", text)
    assert re.search(r"2 scans to prepare: about \d+\.\d minutes on one core\.", text)
    assert re.search(r"that takes about \d+\.\d MB \(an estimate\), [\d,.]+ MB are free\.", text)


def test_adds_to_a_store(source: pathlib.Path, out: str, log: list[str]) -> None:
    _write_scans(source, 1)
    _prepare(source, out)
    scans.write_nifti(source / "new.nii.gz", scans.hounsfield(seed=7))
    (source / "0.nii.gz").unlink()
    content = _prepare(source, out)
    assert _statuses(content) == {"scans__0": "prepared", "scans__new": "prepared"}
    assert _looked_at(log)[1] == "1 found, 1"
    assert _read(content, "scans__0")[0].max() > 0


def test_looks_again_at_what_changed(source: pathlib.Path, out: str, log: list[str]) -> None:
    _write_scans(source, 2)
    (source / "broken.nii.gz").write_bytes(b"")
    before = _prepare(source, out)
    scans.write_nifti(source / "0.nii.gz", scans.hounsfield(seed=7))
    scans.write_nifti(source / "broken.nii.gz", scans.hounsfield(seed=8))
    (source / "1.nii.gz").write_bytes(b"")
    content = _prepare(source, out)
    assert _looked_at(log)[1] == "3 found, 3"
    assert _statuses(content) == {
        "scans__0": "prepared",
        "scans__1": "quarantined",
        "scans__broken": "prepared",
    }
    assert not np.array_equal(_read(content, "scans__0")[0], _read(before, "scans__0")[0])


def test_a_duplicate_is_used_once_the_other_one_changed(source: pathlib.Path, out: str) -> None:
    for name in ("a", "b", "c"):
        scans.write_nifti(source / f"{name}.nii.gz", scans.hounsfield())
    content = _prepare(source, out)
    assert list(_statuses(content).values()) == ["prepared", "quarantined", "quarantined"]
    scans.write_nifti(source / "a.nii.gz", scans.hounsfield(seed=1))
    content = _prepare(source, out)
    assert list(_statuses(content).values()) == ["prepared", "prepared", "quarantined"]
    assert content.cases[1].reason is None
    assert content.cases[2].reason == "the same scan as 'scans__b'"


def test_a_prepared_scan_stays_when_an_equal_one_is_found(tmp_path: pathlib.Path, out: str) -> None:
    scans.write_series(tmp_path / "b/series", scans.hounsfield())
    scans.write_nifti(tmp_path / "a/scan.nii.gz", scans.hounsfield(), orientation="RAS")
    _prepare(tmp_path / "b", out)
    content = _prepare([tmp_path / "a", tmp_path / "b"], out)
    assert _statuses(content) == {"a__scan": "quarantined", "b__series": "prepared"}
    assert content.cases[0].reason == "the same scan as 'b__series'"


def _prepare_until(
    source: pathlib.Path,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    *,
    number: int,
) -> Any:
    """Starts a process that prepares until a function is called often enough, and waits there."""
    original, is_there, calls = getattr(module, name), _FORK.Event(), iter(range(1, 100))

    def wait(*arguments: Any, **options: Any) -> Any:
        if next(calls) == number:
            is_there.set()
            time.sleep(60)
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, wait)
        patch.setattr(preparation, "SAVE_SECONDS", 0.0)
        process = _FORK.Process(target=_prepare, args=(source, out))
        process.start()
    assert is_there.wait(60)
    return process


@pytest.mark.parametrize(
    ("module", "name", "number", "looked_at", "to_prepare"),
    [
        (nifti, "read_scan", 3, "4 found, 2", 4),  # while it looks at the third
        (resampling, "resample", 3, "4 found, 0", 2),  # while it prepares the third
    ],
)
def test_goes_on_when_it_was_killed(
    source: pathlib.Path,
    out: str,
    log: list[str],
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    number: int,
    looked_at: str,
    to_prepare: int,
) -> None:
    _write_scans(source, 4)
    process = _prepare_until(source, out, monkeypatch, module, name, number=number)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    content = _prepare(source, out)
    assert _looked_at(log) == [looked_at]
    assert any(f" {to_prepare} scans to prepare" in message for message in log)
    assert list(_statuses(content).values()) == ["prepared"] * 4
    undisturbed = _prepare(source, f"{out}_undisturbed")
    assert content.cases == undisturbed.cases


@pytest.mark.usefixtures("forked")
def test_processes_that_end_by_themselves_are_not_started_for_each_scan(
    source: pathlib.Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_scans(source, 4)
    monkeypatch.setattr(quality, "measure", lambda volume: os._exit(3))
    with pytest.raises(DatasetError, match=r"has ended \(exit code 3\)"):
        _prepare(source, out, workers=2)


def _flip_bits(path: pathlib.Path) -> None:
    """Damages the voxels of a prepared scan."""
    content = bytearray(path.read_bytes())
    content[-20] ^= 255
    path.write_bytes(content)


def test_replaces_what_is_damaged(source: pathlib.Path, out: str, log: list[str]) -> None:
    _write_scans(source, 3)
    content = _prepare(source, out)
    expected = {path: path.read_bytes() for path in pathlib.Path(out).rglob("*.scan")}
    flipped, cut, kept = sorted(expected)
    _flip_bits(flipped)
    cut.write_bytes(cut.read_bytes()[:-10])
    written = kept.stat().st_mtime_ns
    with pytest.raises(DatasetError, match=f"'{flipped}' is damaged.*Prepare the data set again."):
        _read(content, "scans__0")
    assert _prepare(source, out) == content
    assert {path: path.read_bytes() for path in expected} == expected
    assert kept.stat().st_mtime_ns == written
    assert any(f"WARNING Prepared scan '{flipped}' is damaged" in message for message in log)
    assert any(" 2 scans to prepare" in message for message in log)


def test_what_is_damaged_together_with_its_source_is_set_aside(
    source: pathlib.Path, out: str
) -> None:
    _write_scans(source, 2)
    content = _prepare(source, out)
    _flip_bits(pathlib.Path(out, str(content.prepared[0].path)))
    status = (source / "0.nii.gz").stat()
    (source / "0.nii.gz").write_bytes(bytes(status.st_size))
    os.utime(source / "0.nii.gz", ns=(status.st_atime_ns, status.st_mtime_ns))
    content = _prepare(source, out)
    assert _statuses(content) == {"scans__0": "quarantined", "scans__1": "prepared"}
    assert "the file is unreadable" in str(content.cases[0].reason)


def test_goes_on_when_it_was_interrupted(
    source: pathlib.Path, out: str, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_scans(source, 4)
    original, calls = nifti.read_scan, iter(range(1, 100))

    def interrupt(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(nifti, "read_scan", interrupt)
        _prepare(source, out)
    assert len(_prepare(source, out).prepared) == 4
    assert _looked_at(log) == ["4 found, 4", "4 found, 2"]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "Input/output error"), MemoryError(), OSError(errno.ESTALE, "Stale")],
    ids=["disk", "memory", "network"],
)
@pytest.mark.parametrize("stage", ["looking", "preparing"])
def test_a_scan_is_tried_again_after_an_error_that_is_none_of_it(
    source: pathlib.Path,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    log: list[str],
    error: Exception,
    stage: str,
) -> None:
    _write_scans(source, 2)
    module, name = (nifti, "read_scan") if stage == "looking" else (resampling, "resample")
    original = getattr(module, name)
    calls = []

    def fail_once(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise error
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, fail_once)
        content = _prepare(source, out)
    assert sorted(_statuses(content).values()) == ["prepared", "quarantined"]
    assert preparation.count_failures(content) == 1
    assert all("failed this time" in str(row.reason) for row in content.cases if row.reason)
    content = _prepare(source, out)
    assert list(_statuses(content).values()) == ["prepared", "prepared"]
    assert preparation.count_failures(content) == 0


def test_the_command_says_that_a_scan_is_to_be_tried_again(
    source: pathlib.Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_scans(source, 1)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(nifti, "read_scan", fail)
    assert main.main(["pretrain", "prepare", str(source), "--out", out, "--workers", "1"]) == 1


def test_a_name_that_is_not_in_utf_8_stops_no_other(source: pathlib.Path, out: str) -> None:
    _write_scans(source, 1)
    for name in (b"bad_\xff.nii.gz", b"bad_\xe9\xff.dcm"):
        (source / os.fsdecode(name)).write_bytes(b"nothing")
    folder = scans.write_series(source / "series", scans.hounsfield(seed=3))
    folder.rename(source / os.fsdecode(b"series_\xff"))
    content = _prepare(source, out)
    assert [case.case for case in content.prepared][:1] == ["scans__0"]
    assert len(content.cases) == 4
    assert _prepare(source, out) == content


def test_what_a_killed_call_was_writing_is_removed(source: pathlib.Path, out: str) -> None:
    _write_scans(source, 1)
    pathlib.Path(out).mkdir()
    leftover = pathlib.Path(out) / f".manifest.json~{_dead_process()}~{'0' * 32}.tmp"
    leftover.write_text("half")
    _prepare(source, out)
    assert not leftover.exists()


def _dead_process() -> str:
    """Returns the name of a process of this machine that has ended."""
    machine, *_ = _processes.name_this_process().split("~")
    return f"{machine}~99999999~1"


def test_two_at_once_are_refused(
    source: pathlib.Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_scans(source, 2)
    process = _prepare_until(source, out, monkeypatch, nifti, "read_scan", number=1)
    try:
        with pytest.raises(DatasetError, match=f"Another process adds scans to '{out}'. Wait"):
            _prepare(source, out)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert len(_prepare(source, out).prepared) == 2


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the workers forked instead of started anew, which takes long."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: _FORK)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("module", "name"),
    [(quality, "measure"), (resampling, "resample")],
    ids=["looking", "preparing"],
)
def test_a_scan_whose_process_is_killed_is_named_and_stops_no_other(
    source: pathlib.Path,
    out: str,
    log: list[str],
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
) -> None:
    _write_scans(source, 3)
    array = scans.hounsfield(seed=5)
    array[7, 12, 10] = 2900
    scans.write_nifti(source / "large.nii.gz", array)
    original, tests = getattr(module, name), os.getpid()

    def kill(volume: Any, *arguments: Any, **options: Any) -> Any:
        if volume.max() == 2900:
            assert os.getpid() != tests
            os.kill(os.getpid(), signal.SIGKILL)
        return original(volume, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, kill)
        content = _prepare(source, out, workers=2)
    assert _statuses(content) == {
        **{f"scans__{seed}": "prepared" for seed in range(3)},
        "scans__large": "quarantined",
    }
    reason = "the process that worked on it was killed, perhaps as there was too little memory"
    assert content.cases[-1].reason == reason
    (message,) = [message for message in log if message.startswith("ERROR")]
    assert f"'{source}/large.nii.gz' is set aside: the process" in message
    assert "Run `eva-coralbay pretrain prepare` again with fewer --workers" in message
    # it is tried again
    assert _statuses(_prepare(source, out))["scans__large"] == "prepared"


@pytest.mark.slow
def test_processes_change_nothing(source: pathlib.Path, out: str) -> None:
    _write_scans(source, 4)
    (source / "broken.nii.gz").write_bytes(b"")
    content = _prepare(source, out, workers=2)
    assert content.cases == _prepare(source, f"{out}_alone").cases


# what is refused


def test_refuses_another_spacing(source: pathlib.Path, out: str) -> None:
    _write_scans(source, 1)
    _prepare(source, out)
    match = r"spacing of \(3.0, 3.0, 3.0\) mm, not \(2.0, 2.0, 2.0\): choose another --out"
    with pytest.raises(DatasetError, match=match):
        _prepare(source, out, spacing=(2.0, 2.0, 2.0))


def test_refuses_a_source_that_is_not_there(source: pathlib.Path, out: str) -> None:
    with pytest.raises(DatasetError, match="nowhere' does not exist"):
        _prepare([source, source / "nowhere"], out)


def test_an_empty_path_is_not_the_current_folder(
    source: pathlib.Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_scans(source, 1)
    monkeypatch.chdir(source)
    with pytest.raises(DatasetError, match="'' does not exist"):
        preparation.prepare([""], out, spacing=_SPACING, workers=1)
    with pytest.raises(DatasetError, match="path of the store is empty"):
        _prepare(source, "")
    assert [path.name for path in source.iterdir()] == ["0.nii.gz"]


@pytest.mark.parametrize("shown", ["./secret/0.nii.gz", "secret/0.nii.gz"])
def test_a_message_is_kept_without_the_folder(shown: str) -> None:
    """However the folder was named, and however an error names it."""
    message = f"Case 'a', '{shown}': unreadable."
    assert examine.without_place(message, "a", "./secret/0.nii.gz") == "'0.nii.gz': unreadable."


def test_refuses_sources_without_scans(source: pathlib.Path, out: str) -> None:
    (source / "notes.txt").write_text("")
    with pytest.raises(DatasetError, match=f"No NIfTI file and no DICOM series in {source}. Name"):
        _prepare(source, out)


# what identifies a patient

_SECRETS = ("DoeJane", "MRN48151623", "19700401", "TestHospital", "PrivateRemark", "SecretFolder")
"""Name, number, date, hospital, remark and a folder above the source."""


_HOSTILE = {
    "Modality": _SECRETS[0].upper(),
    "PhotometricInterpretation": _SECRETS[0].upper(),
    "RescaleType": _SECRETS[0],
    "ImageType": ["LOCALIZER", _SECRETS[0].upper()],
    "SOPClassUID": f"{uid.SecondaryCaptureImageStorage}.{_SECRETS[2]}",
    "RescaleSlope": f"-{_SECRETS[2]}",
    "PixelSpacing": [f"-{_SECRETS[2]}", "1"],
    "ImagePositionPatient": ["nan", _SECRETS[2], "0"],
    "ImageOrientationPatient": [_SECRETS[2], "0", "0", "0", "1", "0"],
}
"""What identifies a patient in tags that are looked at, each of which sets a series aside."""


def _identify(_: int, header: pydicom.Dataset) -> None:
    """Fills in what identifies a patient."""
    name, number, date, hospital, remark = _SECRETS[:5]
    header.PatientName, header.PatientID = f"{name}^", number
    header.ReferringPhysicianName = header.OperatorsName = header.PerformingPhysicianName = name
    header.PatientBirthDate = header.StudyDate = header.SeriesDate = header.AcquisitionDate = date
    header.ContentDate, header.AcquisitionDateTime = date, f"{date}120000"
    header.InstitutionName = header.StationName = hospital
    header.SeriesDescription = header.ImageComments = header.ProtocolName = remark
    header.AccessionNumber = header.StudyID = number
    header.StudyInstanceUID = header.FrameOfReferenceUID = f"1.2.{date}"
    header.SOPInstanceUID = f"{header.SOPInstanceUID[:30]}.{date}"
    block = header.private_block(0x0011, remark, create=True)
    block.add_new(0x01, "LO", name)


def _hide(tag: str, value: Any) -> scans.Change:
    """Returns a change that identifies a patient in another tag too."""

    def change(index: int, header: pydicom.Dataset) -> None:
        _identify(index, header)
        setattr(header, tag, value)

    return change


def _write_identified_nifti(path: pathlib.Path, array: npt.NDArray[np.int16]) -> None:
    """Writes a NIfTI file whose header identifies a patient."""
    name, number, _, hospital, remark, _ = _SECRETS
    image = nib.load(scans.write_nifti(path, array))
    assert isinstance(image, nib.Nifti1Image)
    image.header["descrip"], image.header["aux_file"] = name, number
    image.header["db_name"], image.header["intent_name"] = hospital, remark
    image.header.extensions.append(
        nib.nifti1.Nifti1Extension("comment", " ".join(_SECRETS).encode())
    )
    nib.save(nib.Nifti1Image(array.T, image.affine, image.header), path)


def _header_of(path: pathlib.Path) -> dict[str, Any]:
    """Returns the header of a prepared scan, which is JSON."""
    content = path.read_bytes()
    return json.JSONDecoder().raw_decode(content[content.index(b'{"') :].decode("latin-1"))[0]


def test_what_identifies_a_patient_does_not_reach_the_store(
    tmp_path: pathlib.Path, out: str
) -> None:
    source = tmp_path / _SECRETS[-1] / "scans"
    flat = np.full(scans.SHAPE, 40, dtype=np.int16)
    scans.write_series(source / "good", scans.hounsfield(), change=_identify, series="1.19700401")
    scans.write_series(source / "flat", flat, change=_identify)
    scans.write_series(source / "few", scans.hounsfield()[:3], change=_identify)
    for tag, value in _HOSTILE.items():
        scans.write_series(source / tag, scans.hounsfield(seed=3), change=_hide(tag, value))
    _write_identified_nifti(source / "nifti.nii.gz", scans.hounsfield(seed=1))
    for name, change in {
        "cut": lambda content: content[:-300],
        "none": lambda content: b"",
    }.items():
        path = source / f"{name}.nii.gz"
        _write_identified_nifti(path, scans.hounsfield(seed=2))
        path.write_bytes(change(path.read_bytes()))
    _write_identified_nifti(source / "flat.nii", flat)
    # that the secrets are where they are looked for
    in_sources = b"".join(path.read_bytes() for path in source.rglob("*[!z]") if path.is_file())
    assert all(secret.encode() in in_sources for secret in _SECRETS[:-1])

    content = _prepare(source, out)
    statuses = list(_statuses(content).values())
    assert statuses.count("prepared") == 2
    assert statuses.count("quarantined") == 5 + len(_HOSTILE)
    assert "is not CT" in pathlib.Path(out, manifest.NAME).read_text()
    for case in content.prepared:
        assert case.path is not None
        # apart from these names and hashes, a file holds compressed voxels only
        assert _header_of(pathlib.Path(out, case.path)).keys() == {
            "key", "affine", "label_counts", "arrays", "sources"
        }  # fmt: skip
    for path in pathlib.Path(out).rglob("*"):
        stored = str(path.relative_to(out)).encode() + (
            path.read_bytes() if path.is_file() else b""
        )
        found = [
            secret
            for secret in (*_SECRETS, str(tmp_path))
            if secret.lower().encode() in stored.lower()
        ]
        assert not found, path


# the command


def test_command(source: pathlib.Path, out: str, capsys: pytest.CaptureFixture) -> None:
    _write_scans(source, 3)
    (source / "broken.nii.gz").write_bytes(b"")
    arguments = ["pretrain", "prepare", str(source), "--out", out, "--workers", "1"]
    options = ["--spacing", "4", "3", "3", "--exclude", "2.nii.gz"]
    assert main.main([*arguments, *options]) == 0
    content = manifest.Manifest.read(out)
    assert _statuses(content) == {
        "scans__0": "prepared",
        "scans__1": "prepared",
        "scans__broken": "quarantined",
    }
    assert content.spacing == (4.0, 3.0, 3.0)
    assert content.open(content.prepared[0]).read_image((slice(0, 1),) * 3).shape == (1, 1, 1, 1)
    printed = capsys.readouterr().out
    assert "Scans of the store" in printed
    rows = [line.strip("│ ").split("│") for line in printed.splitlines()]
    cells = [tuple(cell.strip() for cell in row) for row in rows]
    assert ("prepared", "", "2") in cells
    assert any(row[0] == "set aside" and row[-1] == "1" for row in cells)
    assert main.main(arguments) == 1
    assert "eva-coralbay: error: The scans in" in capsys.readouterr().err
