"""Tests the segmentation of other scans by what a run has trained."""

import itertools
import json
import os
import pathlib
import shutil
import zipfile
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
import yaml
from PIL import Image
from pydicom import uid

import eva_coralbay
from eva_coralbay.data.datasets import NnUNet
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation.probe import classifier_file
from eva_coralbay.inference import label_files, segment, segmenting_job, trained
from eva_coralbay.results import case_table
from tests.eva_coralbay.data import volumes
from tests.eva_coralbay.inference import runs
from tests.eva_coralbay.pretraining import scans


@pytest.fixture(name="data", scope="module")
def _data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return runs.write_data(tmp_path_factory.mktemp("phantom"))


@pytest.fixture(name="run", scope="module")
def _run(data: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return runs.fit(data, tmp_path_factory.mktemp("decoder"), is_probe=False)


@pytest.fixture(name="probe", scope="module")
def _probe(data: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return runs.fit(data, tmp_path_factory.mktemp("probe"), is_probe=True)


def _segment(
    named: list[pathlib.Path], out: pathlib.Path, run: pathlib.Path, **wanted: bool
) -> Any:
    chosen = segmenting_job.Wanted(**wanted)
    return segmenting_job.segment_scans(
        [str(path) for path in named], out, trained.load(run), wanted=chosen
    )


def _image(data: pathlib.Path, index: int = 0) -> pathlib.Path:
    return sorted((data / "imagesTr").iterdir())[index]


@pytest.mark.parametrize("kind", ["run", "probe"])
def test_the_labels_are_those_that_were_scored(
    kind: str, data: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    """The Dice of the validation cases, from their image files, is that of the case table."""
    run: pathlib.Path = request.getfixturevalue(kind)
    dataset = NnUNet(str(data), "val")
    dataset.setup()
    known = {
        (row.case, row.class_name): row.value
        for row in case_table.read(run / "record_val_last.cases.csv")
        if row.metric == "dice"
    }
    compared = 0
    for index, case in enumerate(dataset.case_ids):
        (path,) = (data / "imagesTr").glob(f"{case}_0000.nii*")
        labels = eva_coralbay.segment(path, run)
        _, truth, _ = dataset[index]
        assert labels.shape == truth.shape[1:]
        for value, name in enumerate(dataset.classes):
            both = [np.asarray(array) == value for array in (labels, truth[0])]
            total = both[0].sum() + both[1].sum()
            if value == 0 or total == 0 or not both[1].any():
                continue
            dice = 2 * (both[0] & both[1]).sum() / total
            assert known[case, name] == pytest.approx(float(dice), abs=1e-9)
            compared += dice > 0
    assert compared > 0


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAR", "PIR"])
def test_a_label_map_lies_on_the_grid_of_its_file(
    tmp_path: pathlib.Path, run: pathlib.Path, data: pathlib.Path, codes: str
) -> None:
    """Opened again by ITK and by nibabel: shape, spacing, origin, directions, codes and units."""
    scan = eva_coralbay.read_scan(_image(data))
    turned = volumes.rotation((0.1, -0.2, 0.15)) @ scan.affine
    path = scans.write_nifti(
        tmp_path / "in" / "a.nii.gz", scan.array.astype(np.int16), turned, orientation=codes
    )
    source = nib.load(path)
    source.set_qform(source.affine, code=3)
    source.set_sform(source.affine, code=2)
    source.header.set_xyzt_units("mm", "sec")
    nib.save(source, path)
    assert _segment([path.parent], tmp_path / "out", run).segmented == 1
    written = tmp_path / "out" / "in__a.nii.gz"

    found, expected = nib.load(written), nib.load(path)
    assert found.shape == expected.shape and found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(found.affine, expected.affine)
    for field in ("sform_code", "qform_code", "srow_x", "quatern_b", "pixdim", "xyzt_units"):
        np.testing.assert_array_equal(found.header[field][()], expected.header[field][()])
    itk, itk_source = SimpleITK.ReadImage(written), SimpleITK.ReadImage(path)
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(itk, name)() == getattr(itk_source, name)()
    # the labels are at the voxels of the scan that they are of
    labels = segment.segment(path, run)
    assert labels.any()
    np.testing.assert_array_equal(eva_coralbay.read_scan(written).array, labels)


@pytest.mark.parametrize("directions", [scans.AXIAL, scans.SAGITTAL, scans.OBLIQUE])
def test_a_dicom_series_gives_a_nifti_file_on_its_grid(
    tmp_path: pathlib.Path, run: pathlib.Path, directions: Any
) -> None:
    array = scans.hounsfield(shape=(30, 40, 36))
    folder = scans.write_series(
        tmp_path / "in", array, directions=directions, spacing=(3.0, 3.0, 4.0)
    )
    assert _segment([folder], tmp_path / "out", run).failures == {}
    (written,) = (tmp_path / "out").glob("*.nii.gz")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    series, itk = reader.Execute(), SimpleITK.ReadImage(written)
    assert itk.GetSize() == series.GetSize()
    for corner in itertools.product(*((0, length - 1) for length in series.GetSize())):
        np.testing.assert_allclose(
            itk.TransformIndexToPhysicalPoint(corner),
            series.TransformIndexToPhysicalPoint(corner),
            atol=1e-3,
        )
    labels = segment.segment(folder, run)
    np.testing.assert_array_equal(eva_coralbay.read_scan(written).array, labels)


def test_what_is_written(tmp_path: pathlib.Path, run: pathlib.Path, data: pathlib.Path) -> None:
    path, out = _image(data), tmp_path / "out"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "b/scan.nii.gz")
    report = _segment([tmp_path / "a.zip"], out, run, overlay=True, probabilities=True)
    assert report == (1, 0, {})
    names = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    case = "a__b__scan"
    assert names == [f"{case}.nii.gz", f"{case}.png", f"{case}_probabilities.nii.gz", "labels.json"]
    classes = trained.load(run).classes
    stated = json.loads((out / "labels.json").read_text())
    assert stated["labels"] == {name: value for value, name in enumerate(classes)}
    assert label_files.read_description(out / f"{case}.nii.gz")["labels"] == stated["labels"]

    labels = nib.load(out / f"{case}.nii.gz")
    shares = nib.load(out / f"{case}_probabilities.nii.gz")
    values = shares.get_fdata()
    assert values.shape == (*labels.shape, len(classes))
    np.testing.assert_array_equal(shares.affine, labels.affine)
    np.testing.assert_allclose(values.sum(axis=-1), 1.0, atol=len(classes) / 255)
    chosen = np.take_along_axis(values, np.asarray(labels.dataobj)[..., None].astype(int), -1)
    assert (chosen[..., 0] >= values.max(axis=-1) - 1 / 254).all()
    with Image.open(out / f"{case}.png") as picture:
        colors = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colors, axis=0)) > 100
    assert (colors.max(axis=1).astype(int) - colors.min(axis=1) > 60).any(), "labels in color"


def test_it_goes_on_and_names_what_is_unusable(
    tmp_path: pathlib.Path,
    run: pathlib.Path,
    data: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    log: list[str],
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.nii.gz").write_bytes(_image(data, index).read_bytes())
    (folder / "bad.nii.gz").write_bytes(b"nothing")

    plain, calls = segment.segment_volume, []

    def interrupt(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*args, **kwargs)

    monkeypatch.setattr(segment, "segment_volume", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _segment([folder], out, run)
    assert len(list(out.glob("*.nii.gz"))) == 2
    monkeypatch.setattr(segment, "segment_volume", plain)
    before = {path: path.read_bytes() for path in out.glob("*.nii.gz")}
    report = _segment([folder], out, run)
    assert (report.segmented, report.known) == (1, 2)
    assert list(report.failures) == [str(folder / "bad.nii.gz")]
    assert any("bad.nii.gz" in line for line in log)
    assert all(path.read_bytes() == content for path, content in before.items())

    # what is asked for later is added, and a scan that has changed is segmented anew
    assert _segment([folder], out, run, overlay=True).segmented == 3
    (folder / "0.nii.gz").write_bytes(_image(data, 1).read_bytes())
    os.utime(folder / "0.nii.gz", (1, 1))
    assert _segment([folder], out, run, overlay=True).segmented == 1


def test_refuses_to_mix_runs(
    tmp_path: pathlib.Path, run: pathlib.Path, probe: pathlib.Path, data: pathlib.Path
) -> None:
    _segment([_image(data)], tmp_path / "out", run)
    with pytest.raises(EvaCoralbayError, match="another run or checkpoint"):
        _segment([_image(data)], tmp_path / "out", probe)
    for damaged in ("", "[]", "[" * 100_000, "{}"):
        (tmp_path / "out" / "labels.json").write_text(damaged)
        with pytest.raises(EvaCoralbayError, match="another run or checkpoint"):
            _segment([_image(data)], tmp_path / "out", run)


def test_refuses_a_file_as_the_folder(
    tmp_path: pathlib.Path, run: pathlib.Path, data: pathlib.Path
) -> None:
    (tmp_path / "out").write_bytes(b"something")
    with pytest.raises(EvaCoralbayError, match="out' is a file: name the folder to write to"):
        _segment([data / "imagesTr"], tmp_path / "out", run)
    assert (tmp_path / "out").read_bytes() == b"something"


def test_names_the_scans_of_which_there_is_no_dicom_seg(
    tmp_path: pathlib.Path, run: pathlib.Path, data: pathlib.Path, log: list[str]
) -> None:
    pytest.importorskip("highdicom", reason="highdicom is an extra")
    scan = min((data / "imagesTr").iterdir())
    _segment([scan], tmp_path / "out", run, dicom_seg=True)
    assert any(f"no DICOM SEG of {scan}" in line for line in log)


def test_refuses_two_scans_that_would_share_a_file(
    tmp_path: pathlib.Path, run: pathlib.Path, data: pathlib.Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "a_probabilities"):
        (tmp_path / "in" / f"{name}.nii.gz").write_bytes(_image(data).read_bytes())
    with pytest.raises(EvaCoralbayError, match="in__a_probabilities.nii.gz'. Leave one"):
        _segment([tmp_path / "in"], tmp_path / "out", run, probabilities=True)


def test_refuses_what_is_no_run(tmp_path: pathlib.Path, run: pathlib.Path) -> None:
    with pytest.raises(EvaCoralbayError, match=f"Did you mean '{run}'"):
        trained.load(run.parents[1])
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(EvaCoralbayError, match="neither 'probe.safetensors' nor"):
        trained.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": {}}, tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(EvaCoralbayError, match="is not a checkpoint of a segmentation"):
        trained.load(tmp_path)


def test_folders_of_the_same_name_are_segmented_beside_each_other(
    tmp_path: pathlib.Path, run: pathlib.Path, data: pathlib.Path
) -> None:
    """The label map of the first was replaced."""
    content = _image(data).read_bytes()
    sites = [tmp_path / f"site_{number}" / "images" for number in range(2)]
    for site in sites:
        site.mkdir(parents=True)
        (site / _image(data).name).write_bytes(content)

    for number, site in enumerate(sites):
        assert _segment([site], tmp_path / "out", run).segmented == 1
        assert len(list((tmp_path / "out").glob("*.nii.gz"))) == number + 1
    assert _segment(sites[::-1], tmp_path / "out", run)[:2] == (0, 2)
    sites[0].parent.rename(tmp_path / "moved")
    assert _segment([tmp_path / "moved" / "images"], tmp_path / "out", run)[:2] == (0, 1)


def test_an_error_of_one_scan_does_not_stop_the_others(
    tmp_path: pathlib.Path,
    run: pathlib.Path,
    data: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    segment_volume, calls = segment.segment_volume, itertools.count()

    def stumble(*args: Any, **options: Any) -> Any:
        if next(calls) == 0:
            raise IndexError("no such voxel")
        return segment_volume(*args, **options)

    monkeypatch.setattr(segment, "segment_volume", stumble)
    named = [_image(data, index) for index in range(2)]

    report = _segment(named, tmp_path / "out", run)

    assert report.segmented == 1
    assert list(report.failures.values()) == ["IndexError: no such voxel"]


def test_the_checkpoint_is_the_one_that_the_run_is_scored_by(
    run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    content = yaml.safe_load(config.read_text())
    content["trainer"]["init_args"]["protocol"] = "frozen-eva"
    config.write_text(yaml.safe_dump(content))

    assert trained.load(tmp_path / "run").path.name == "best.ckpt"


def test_the_best_checkpoint_can_be_chosen(run: pathlib.Path, probe: pathlib.Path) -> None:
    assert trained.load(run, selection="best").path.name == "best.ckpt"
    assert trained.load(run).path.name == "last.ckpt"
    assert trained.load(probe, selection="best").path.name == classifier_file.NAME
    for loaded in (trained.load(run), trained.load(probe)):
        assert loaded.transform.preparation == ((8.0, 8.0, 8.0), -200.0)


def _add_identity(index: int, header: pydicom.Dataset) -> None:
    """Adds what a scanner writes, and a DICOM SEG needs."""
    header.PatientID, header.PatientName = "patient", "Test^Patient"
    header.PatientBirthDate = header.PatientSex = header.AccessionNumber = ""
    header.StudyInstanceUID, header.FrameOfReferenceUID = "1.2.3.4", "1.2.3.5"
    header.StudyDate = header.StudyTime = header.StudyID = header.ReferringPhysicianName = ""
    header.Manufacturer, header.SliceThickness = "nobody", 3.0
    header.PositionReferenceIndicator = ""


@pytest.mark.parametrize("finds", [True, False])
def test_dicom_seg(
    tmp_path: pathlib.Path, probe: pathlib.Path, monkeypatch: pytest.MonkeyPatch, finds: bool
) -> None:
    """Also of a scan in which no class is found."""
    seg = pytest.importorskip("highdicom.seg", reason="highdicom is an extra")
    folder = scans.write_series(
        tmp_path / "in",
        scans.hounsfield(shape=(30, 40, 36)),
        spacing=(3.0, 3.0, 4.0),
        change=_add_identity,
        series=uid.generate_uid(),
    )
    if not finds:
        empty = segment.Segmentation(np.zeros((30, 40, 36), dtype=np.uint8), None)
        monkeypatch.setattr(segment, "segment_volume", lambda *args, **kwargs: empty)
    assert _segment([folder], tmp_path / "out", probe, dicom_seg=True).failures == {}
    (path,) = (tmp_path / "out").glob("*.dcm")
    (written,) = (tmp_path / "out").glob("*.nii.gz")
    read = seg.segread(path)
    classes = trained.load(probe).classes
    assert [read.get_segment_description(n).segment_label for n in read.segment_numbers] == list(
        classes[1:]
    )
    sources = [pydicom.dcmread(file) for file in folder.iterdir()]
    sources.sort(key=lambda header: header.ImagePositionPatient[2])
    frames = read.get_pixels_by_source_instance(
        [header.SOPInstanceUID for header in sources],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )
    itk = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(written))
    np.testing.assert_array_equal(frames, itk)
    assert itk.any() == finds


@pytest.mark.skipif(
    "EVA_CORALBAY_REAL_DATA" not in os.environ, reason="EVA_CORALBAY_REAL_DATA names no folder"
)
def test_real_scans(tmp_path: pathlib.Path, run: pathlib.Path) -> None:
    root = pathlib.Path(os.environ["EVA_CORALBAY_REAL_DATA"], "ct")
    named = [root / "lidc_0001_slab" / "image.nii.gz", root / "ts_aorta_crop" / "image.nii.gz"]
    assert _segment(named, tmp_path, run, overlay=True).failures == {}
    for path in named:
        written = SimpleITK.ReadImage(tmp_path / f"{path.parent.name}__image.nii.gz")
        source = SimpleITK.ReadImage(path)
        for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(written, name)() == getattr(source, name)()
