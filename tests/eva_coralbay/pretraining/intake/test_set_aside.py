"""Tests which scans are set aside, and why."""

import gzip
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import encaps, uid

from eva_coralbay.pretraining.intake import prepare as preparation
from tests.eva_coralbay.pretraining import scans
from tests.eva_coralbay.pretraining.intake import stores


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


def _few_fitted(path: pathlib.Path) -> None:
    """Writes three slices, each with a slope of its own."""
    array = scans.hounsfield(seed=99)[:3]
    scans.write_series(path, array, change=lambda i, header: _set(RescaleSlope=1 + i)(i, header))


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
    "far_away": _series(
        "ImagePositionPatient is invalid: farther away", _move(lambda _: (0, 2e6, 0))
    ),
    "two_halves": _series(
        "mixed: 7 slices have another RescaleSlope or RescaleIntercept than the others",
        lambda index, header: _set(RescaleIntercept=0)(index, header) if index < 7 else None,
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
    "few_fitted_slices": ("too few slices: 3", _few_fitted),
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
    content = stores.prepare(source, out)
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
    content = stores.prepare(source, out)
    assert stores.statuses(content) == {
        "scans__series__IM0000": "prepared",
        "scans__series__broken": "quarantined",
    }
    assert content.cases[1].reason == "DICOM series of 1 files: unreadable (InvalidDicomError)."


def test_counts_what_was_set_aside_and_logs_what_was_not_looked_at(
    source: pathlib.Path, out: str, log: list[str]
) -> None:
    stores.write_scans(source, 1)
    for level in (40, 41):
        flat = np.full(scans.SHAPE, level, dtype=np.int16)
        scans.write_nifti(source / f"flat_{level}.nii.gz", flat)
    (source / "notes.txt").write_text("")
    change = _set(PhotometricInterpretation="MONOCHROME1")
    scans.write_series(source / "inverted", scans.hounsfield(), change=change)
    (first, twice), (second, once) = preparation.count_reasons(stores.prepare(source, out)).items()
    assert (first, twice, once) == ("constant: all voxels are N", 2, 1)
    assert second.startswith("DICOM series of N files") and "is MONOCHROME1, not" in second
    assert any("not looked at: 1 neither NIfTI nor DICOM." in message for message in log)
