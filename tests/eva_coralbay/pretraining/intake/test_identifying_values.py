"""Tests that nothing that identifies a patient reaches the store."""

import json
import pathlib
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import uid

from eva_coralbay.pretraining import manifest
from tests.eva_coralbay.pretraining import scans
from tests.eva_coralbay.pretraining.intake import stores

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

    content = stores.prepare(source, out)
    statuses = list(stores.statuses(content).values())
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
