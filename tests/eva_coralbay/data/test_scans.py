"""Tests of reading a scan of any format."""

import pathlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from nibabel import nifti1

from eva_coralbay.data import scans
from eva_coralbay.errors import DatasetError
from tests.eva_coralbay.pretraining import scans as dicom_scans


def test_a_nifti_file(tmp_path: pathlib.Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 10
    nib.save(nifti1.Nifti1Image(array, np.diag([1.0, 2.0, 3.0, 1.0])), tmp_path / "a.nii.gz")

    scan = scans.read_scan(tmp_path / "a.nii.gz")

    assert scan.array.dtype == np.float32
    # stored as R, A, S: superior is last, and posterior and left are the other way round
    np.testing.assert_array_equal(scan.array, array.transpose(2, 1, 0)[:, ::-1, ::-1])
    assert scan.spacing == (3.0, 2.0, 1.0)
    np.testing.assert_array_equal(scan.affine @ [0, 0, 0, 1], [1.0, 4.0, 0.0, 1.0])


def test_a_folder_with_a_dicom_series(tmp_path: pathlib.Path) -> None:
    dicom_scans.write_series(tmp_path, dicom_scans.hounsfield(seed=1))

    scan = scans.read_scan(str(tmp_path))

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = SimpleITK.DICOMOrient(reader.Execute(), "LPS")
    np.testing.assert_array_equal(scan.array, SimpleITK.GetArrayFromImage(image))
    np.testing.assert_allclose(scan.spacing, image.GetSpacing()[::-1])


def test_a_folder_without_a_series_is_an_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")

    with pytest.raises(DatasetError, match=f"'{tmp_path}' holds no DICOM series, but one is"):
        scans.read_scan(tmp_path)


def test_a_missing_file_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="none.nii.gz': .*No such file"):
        scans.read_scan(tmp_path / "none.nii.gz")


def test_an_empty_path_is_not_the_current_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dicom_scans.write_series(tmp_path, dicom_scans.hounsfield())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError):
        scans.read_scan("")


def test_the_home_folder_may_be_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    nib.save(nifti1.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), tmp_path / "a.nii")

    assert scans.read_scan("~/a.nii").array.shape == (2, 2, 2)
