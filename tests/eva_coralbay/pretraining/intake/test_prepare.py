"""Tests which scans are found, what the store holds of them, and what is refused."""

import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from eva_coralbay.cli import main
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import nifti, resampling
from eva_coralbay.errors import DatasetError
from eva_coralbay.pretraining import manifest
from eva_coralbay.pretraining.intake import examine
from eva_coralbay.pretraining.intake import prepare as preparation
from tests.eva_coralbay.pretraining import scans
from tests.eva_coralbay.pretraining.intake import stores


@pytest.mark.parametrize("directions", [scans.AXIAL, scans.SAGITTAL], ids=["axial", "sagittal"])
def test_nifti_and_dicom_of_a_scan_give_the_same(
    tmp_path: pathlib.Path, directions: Sequence[Sequence[float]]
) -> None:
    array, affine = scans.hounsfield(), scans.affine(directions)
    scans.write_series(tmp_path / "a/scan", array, directions=directions)
    scans.write_nifti(tmp_path / "b/scan.nii", array, affine, orientation="LPS")
    scans.write_nifti(tmp_path / "c/scan.nii.gz", array, affine, orientation="RAS")
    scans.write_nifti(tmp_path / "d/scan.nii.gz", array.astype(float), affine, orientation="SLA")
    contents = [stores.prepare(tmp_path / name, str(tmp_path / f"store_{name}")) for name in "abcd"]
    rows = [content.prepared[0] for content in contents]
    assert [row.kind for row in rows] == ["dicom", "nifti", "nifti", "nifti"]
    assert len({row.sha256 for row in rows}) == 1
    assert len({(row.source, row.prepared, row.hounsfield) for row in rows}) == 1
    expected_hu, expected_affine = stores.read(contents[0], "a__scan")
    for name, content in zip("bcd", contents[1:], strict=True):
        hu, found_affine = stores.read(content, f"{name}__scan")
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
    hu, affine = stores.read(stores.prepare(source, out, spacing=spacing), "scans__scan")
    found = affine @ [*np.unravel_index(hu.argmax(), hu.shape), 1.0]
    np.testing.assert_allclose(found[:3], [-left, -posterior, superior], rtol=0, atol=1e-4)
    assert hu.max() == 2000 and (hu == 2000).sum() == 1


def test_the_store_holds_the_body_resampled(source: pathlib.Path, out: str) -> None:
    array = scans.hounsfield()
    array[7, 12, 10] = 32000
    path = scans.write_nifti(source / "scan.nii.gz", array)
    hu, affine = stores.read(stores.prepare(source, out), "scans__scan")
    volume = nifti.read_scan(str(path), case="scan")
    clipped = type(volume)(volume.clamp(-1024, 3071), affine=volume.affine)
    resampled = resampling.resample(clipped, stores.SPACING)
    assert grid_lib.spacing(affine) == pytest.approx(stores.SPACING)
    assert hu.max() > 1000 and hu.max() <= 3071
    whole = resampled.as_subclass(torch.Tensor).numpy()[0]
    at = np.linalg.solve(np.asarray(resampled.affine), affine)[:3, 3].round().astype(int)
    box = tuple(slice(first, first + length) for first, length in zip(at, hu.shape, strict=True))
    np.testing.assert_allclose(hu, whole[box], atol=0.51)
    assert hu.size < whole.size and (hu > -500).sum() == (whole.round() > -500).sum()


def test_a_folder_of_all_kinds(source: pathlib.Path, out: str) -> None:
    stores.write_scans(source / "imagesTr", 1)
    stores.write_scans(source / "labelsTr", 1)
    scans.write_nifti(source / ".hidden.nii.gz", scans.hounsfield(seed=1))
    scans.write_series(source / "study/series 1", scans.hounsfield(seed=2))
    scans.write_series(source / "both", scans.hounsfield(seed=3), name="a{}.dcm")
    scans.write_series(source / "both", scans.hounsfield(seed=4), name="b{}")
    (source / "both/notes.txt").write_text("")
    (source / "away.nii.gz").symlink_to("nowhere.nii.gz")
    (source / "loop").symlink_to(source)
    os.mkfifo(source / "pipe.nii.gz")
    assert stores.statuses(stores.prepare(source, out)) == dict.fromkeys(
        ["scans__both__a0", "scans__both__b0", "scans__imagesTr__0", "scans__study__series__1"],
        "prepared",
    )


def test_ids_are_short_and_apart(tmp_path: pathlib.Path, out: str) -> None:
    sources = [tmp_path / "one/data", tmp_path / "two/data"]
    for seed, folder in enumerate(sources):
        scans.write_nifti(folder / "ct.nii.gz", scans.hounsfield(seed=seed))
    long = "sub/" + "x" * 100 + "/" + "y" * 100
    scans.write_nifti(sources[0] / f"{long}.nii.gz", scans.hounsfield(seed=2))
    content = stores.prepare(sources, out)
    first, apart, of_long = sorted(stores.statuses(content), key=len)
    assert first == "data__ct" and re.fullmatch("data__ct-[0-9a-f]{8}", apart)
    assert len(of_long) == 120 and of_long.endswith("_" + "y" * 100)
    # whatever is named first, and what else is named
    for again in (sources[::-1], sources[1:], sources + sources[:1]):
        assert stores.prepare(again, out) == content
    assert len(content.prepared) == 3


def test_a_moved_source_is_the_same(tmp_path: pathlib.Path, source: pathlib.Path, out: str) -> None:
    stores.write_scans(source, 2)
    content = stores.prepare(source, out)
    (tmp_path / "elsewhere").mkdir()
    moved = source.rename(tmp_path / "elsewhere/scans")
    assert stores.prepare(moved, out) == content
    excluded = stores.prepare(moved, out, exclude=["0*"])
    assert stores.statuses(excluded) == {"scans__0": "quarantined", "scans__1": "prepared"}


def test_takes_files_as_sources(source: pathlib.Path, out: str) -> None:
    stores.write_scans(source, 3)
    content = stores.prepare([source / "0.nii.gz", source / "2.nii.gz"], out)
    assert stores.statuses(content) == {"scans__0": "prepared", "scans__2": "prepared"}
    assert len(stores.prepare(source, out).prepared) == 3


def test_excludes(source: pathlib.Path, out: str) -> None:
    stores.write_scans(source / "case_1", 2)
    stores.write_scans(source / "case_2", 1)
    scans.write_series(source / "case_3/dicom", scans.hounsfield(seed=5))
    content = stores.prepare(source, out, exclude=["case_2/*", "*/1.nii.gz", "case_3*"])
    assert stores.statuses(content) == {"scans__case_1__0": "prepared"}


def test_what_fits_no_file_is_an_error(source: pathlib.Path, out: str) -> None:
    stores.write_scans(source / "labelsTr", 1)
    stores.write_scans(source, 1)
    (source / ".hidden").write_text("")
    match = "No file matches --exclude 'case_4/\\*', '/mnt/\\*'; nothing is prepared.*below SRC"
    with pytest.raises(DatasetError, match=match):
        stores.prepare(source, out, exclude=["0*", "case_4/*", "/mnt/*"])
    assert not list(pathlib.Path(out).rglob("[!.]*"))
    # of what is not looked at anyhow
    assert len(stores.prepare(source, out, exclude=["labelsTr/*", ".hidden"]).prepared) == 1


def test_an_id_does_not_depend_on_what_is_excluded(source: pathlib.Path, out: str) -> None:
    scans.write_series(source / "study", scans.hounsfield(seed=1), name="a{}.dcm")
    scans.write_series(source / "study", scans.hounsfield(seed=2), name="b{}.dcm")
    assert stores.statuses(stores.prepare(source, out, exclude=["*/b*"])) == {
        "scans__study__a0": "prepared"
    }


def test_excludes_what_an_earlier_call_prepared(
    source: pathlib.Path, out: str, log: list[str]
) -> None:
    stores.write_scans(source, 1)
    scans.write_series(source / "study", scans.hounsfield(seed=1), name="a{}.dcm")
    scans.write_series(source / "study", scans.hounsfield(seed=2), name="b{}.dcm")
    before = stores.prepare(source, out)
    assert len(before.prepared) == 3
    content = stores.prepare(source, out, exclude=["0.nii.gz", "study/a*"])
    assert [case.case for case in content.prepared] == ["scans__study__b0"]
    assert {case.reason for case in content.cases} == {None, "excluded"}
    warned = {message.split("'")[1] for message in log if message.startswith("WARNING")}
    assert warned == {"scans__0", "scans__study__a0"}
    # nothing but what is excluded, and again without
    assert stores.prepare(source, out, exclude=["*"]).prepared == ()
    assert stores.prepare(source, out) == before


def test_what_is_excluded_at_one_place_is_at_others(
    source: pathlib.Path, out: str, log: list[str]
) -> None:
    for name in ("a", "b"):
        scans.write_nifti(source / f"{name}.nii.gz", scans.hounsfield())
    scans.write_nifti(source / "c.nii.gz", scans.hounsfield(seed=1))
    before = stores.prepare(source, out)
    for name, other in (("a", "b"), ("b", "a")):
        content = stores.prepare(source, out, exclude=[f"{name}*"])
        assert [case.case for case in content.prepared] == ["scans__c"]
        reasons = {case.case: case.reason for case in content.cases}
        assert reasons[f"scans__{name}"] == "excluded"
        assert reasons[f"scans__{other}"] == f"the same scan as 'scans__{name}'"
        assert any("WARNING Scan 'scans__a'" in message for message in log)
        log.clear()
        assert stores.prepare(source, out) == before


def test_refuses_another_spacing(source: pathlib.Path, out: str) -> None:
    stores.write_scans(source, 1)
    stores.prepare(source, out)
    match = r"spacing of \(3.0, 3.0, 3.0\) mm, not \(2.0, 2.0, 2.0\): choose another --out"
    with pytest.raises(DatasetError, match=match):
        stores.prepare(source, out, spacing=(2.0, 2.0, 2.0))


def test_refuses_a_source_that_is_not_there(source: pathlib.Path, out: str) -> None:
    with pytest.raises(DatasetError, match="nowhere' does not exist"):
        stores.prepare([source, source / "nowhere"], out)


def test_an_empty_path_is_not_the_current_folder(
    source: pathlib.Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.write_scans(source, 1)
    monkeypatch.chdir(source)
    with pytest.raises(DatasetError, match="'' does not exist"):
        preparation.prepare([""], out, spacing=stores.SPACING, workers=1)
    with pytest.raises(DatasetError, match="path of the store is empty"):
        stores.prepare(source, "")
    assert [path.name for path in source.iterdir()] == ["0.nii.gz"]


@pytest.mark.parametrize("shown", ["./secret/0.nii.gz", "secret/0.nii.gz"])
def test_a_message_is_kept_without_the_folder(shown: str) -> None:
    """However the folder was named, and however an error names it."""
    message = f"Case 'a', '{shown}': unreadable."
    assert examine.without_place(message, "a", "./secret/0.nii.gz") == "'0.nii.gz': unreadable."


def test_refuses_sources_without_scans(source: pathlib.Path, out: str) -> None:
    (source / "notes.txt").write_text("")
    with pytest.raises(DatasetError, match=f"No NIfTI file and no DICOM series in {source}. Name"):
        stores.prepare(source, out)


def test_names_a_scan_whose_hu_seem_to_be_shifted(
    source: pathlib.Path, out: str, log: list[str]
) -> None:
    scans.write_nifti(source / "0.nii.gz", scans.hounsfield())
    scans.write_nifti(source / "1.nii.gz", scans.hounsfield(seed=1) - 200)
    content = stores.prepare(source, out)
    assert set(stores.statuses(content).values()) == {"prepared"}
    (line,) = [line for line in log if "is used, but" in line]
    assert "1.nii.gz' is used, but its soft tissue has about" in line


def test_command(source: pathlib.Path, out: str, capsys: pytest.CaptureFixture) -> None:
    stores.write_scans(source, 3)
    (source / "broken.nii.gz").write_bytes(b"")
    arguments = ["pretrain", "prepare", str(source), "--out", out, "--workers", "1"]
    options = ["--spacing", "4", "3", "3", "--exclude", "2.nii.gz"]
    assert main.main([*arguments, *options]) == 0
    content = manifest.Manifest.read(out)
    assert stores.statuses(content) == {
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
