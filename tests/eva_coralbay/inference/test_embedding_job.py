"""Tests the embedding of many scans: what is found, left out, kept and gone on with."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import eva_coralbay
from eva_coralbay import _hashes, _processes, _progress
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.inference import feature_table
from eva_coralbay.models import checkpoints
from tests.eva_coralbay.inference import jobs, toy
from tests.eva_coralbay.pretraining import scans


def test_the_table_says_all_of_a_scan(tmp_path: pathlib.Path) -> None:
    folder, out = jobs.write(tmp_path / "in"), tmp_path / "out" / "features.parquet"
    report = jobs.embed([str(folder)], out)
    assert report == (3, 3, 0, {})
    table = jobs.read(out)
    assert list(table.index) == ["in__scan_0", "in__scan_1", "in__scan_2"]
    for number, row in enumerate(table.itertuples()):
        path = folder / f"scan_{number}.nii.gz"
        expected = eva_coralbay.embed(path, jobs.build())
        np.testing.assert_array_equal(row.embedding, expected)
        assert (row.source, row.source_sha256) == (str(path), _hashes.hash_file(path))
        assert row.weights_sha256 == checkpoints.state_dict_sha256(jobs.build().state_dict())
        assert (row.model, row.pool, row.region) == ("toy/encoder", "mean", "")
        assert json.loads(row.preprocessing) == toy.small_input().as_dict()
        assert row.version == eva_coralbay.__version__
    assert not feature_table.parts_folder(out).exists()
    assert sorted(path.name for path in out.parent.iterdir()) == [out.name]


def test_the_example_of_the_documents_finds_the_nearest_scan(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two scans and nearly the first one again, these two are each other's nearest."""
    document = pathlib.Path(__file__).parents[3] / "docs" / "own-scans.md"
    (example,) = re.findall(r"```python\n(import numpy.*?)```", document.read_text(), re.DOTALL)
    assert len(example.strip().splitlines()) == 10
    folder = jobs.write(tmp_path / "in", 2)
    shifted = scans.hounsfield(seed=0) + np.int16(1)
    scans.write_nifti(folder / "scan_2.nii.gz", shifted)
    jobs.embed([str(folder)], tmp_path / "features.parquet")
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    lines = capsys.readouterr().out.splitlines()
    assert "in__scan_0 is most like in__scan_2" in lines
    assert "in__scan_2 is most like in__scan_0" in lines


def test_dicom_and_archives_equal_the_files(tmp_path: pathlib.Path) -> None:
    array = scans.hounsfield()
    path = scans.write_nifti(tmp_path / "a" / "scan.nii.gz", array)
    series = scans.write_series(tmp_path / "b" / "study" / "series", array)
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.write(path, "deep/scan.nii.gz")
    with tarfile.open(tmp_path / "d.tar.gz", "w:gz") as archive:
        archive.add(series, "series")
    named = [str(tmp_path / name) for name in ("a", "b", "c.zip", "d.tar.gz")]
    out = tmp_path / "features.parquet"
    assert jobs.embed(named, out).rows == 4
    table = jobs.read(out)
    assert list(table.index) == ["a__scan", "b__study__series", "c__deep__scan", "d__series"]
    assert list(table["source"]) == [
        str(path), str(series), f"{tmp_path}/c.zip/deep/scan.nii.gz", f"{tmp_path}/d.tar.gz/series"
    ]  # fmt: skip
    values = np.stack(table["embedding"].tolist())
    np.testing.assert_allclose(values, values[:1].repeat(4, axis=0), atol=1e-6)
    hashes = list(table["source_sha256"])
    assert hashes[0] == hashes[2] and hashes[1] == hashes[3] and hashes[0] != hashes[1]
    # archives are known by their size and time, not by when they were unpacked
    assert jobs.embed(named, out) == (4, 0, 4, {})


def test_a_harmful_archive_is_refused(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../outside.nii.gz", b"")
    with pytest.raises(EvaCoralbayError, match="outside of the folder"):
        jobs.embed([str(tmp_path / "a.zip")], tmp_path / "features.parquet")
    assert not (tmp_path / "outside.nii.gz").exists()


def test_named_files_without_a_scan_are_named_and_the_others_are_done(
    tmp_path: pathlib.Path, log: list[str]
) -> None:
    """Before, a damaged archive ended all, and any other file was left out with the exit code 0."""
    folder, out = jobs.write(tmp_path / "in", 1), tmp_path / "features.parquet"
    (tmp_path / "damaged.zip").write_bytes(b"PK damaged")
    with zipfile.ZipFile(tmp_path / "harmful.zip", "w") as archive:
        archive.writestr("../outside.nii.gz", b"")
    (tmp_path / "a.tar.bz2").write_bytes(b"BZh9")
    (tmp_path / "scan.nrrd").write_bytes(b"NRRD0004")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    (tmp_path / "nothing").mkdir()
    os.mkfifo(tmp_path / "pipe.nii.gz")
    names = ["damaged.zip", "harmful.zip", "a.tar.bz2", "empty.zip", "nothing", "pipe.nii.gz"]
    others = [*(str(tmp_path / name) for name in names), os.path.relpath(tmp_path / "scan.nrrd")]
    report = jobs.embed([os.path.relpath(folder), *others, str(folder / "scan_0.nii.gz")], out)
    assert (report.rows, report.embedded, report.known) == (1, 1, 0)
    assert list(report.failures) == others
    damaged, harmful, other, empty, nothing, pipe, nrrd = report.failures.values()
    assert "cannot be unpacked" in damaged and "is not trusted" in harmful
    assert "no archive (zip, tar, tar.gz)" in other and other == pipe == nrrd
    assert "no DICOM series in it" in empty and empty == nothing
    assert all(any(name in line for line in log) for name in others)
    assert not (tmp_path / "outside.nii.gz").exists()
    # what the user leaves out is no failure
    assert jobs.embed([str(folder), others[-1]], out, exclude=["*.nrrd"]).failures == {}
    with pytest.raises(EvaCoralbayError, match="damaged.zip' cannot be unpacked"):
        jobs.embed(others[:1], out)


def test_what_is_unusable_is_named_and_the_others_are_done(
    tmp_path: pathlib.Path, log: list[str]
) -> None:
    folder, out = jobs.write(tmp_path / "in", 2), tmp_path / "features.parquet"
    whole = (folder / "scan_0.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    scans.write_nifti(folder / "label.nii.gz", (scans.hounsfield() > 0).astype(np.uint8))
    report = jobs.embed([str(folder)], out)
    assert (report.rows, report.embedded) == (2, 2)
    problems = {pathlib.Path(source).name: text for source, text in report.failures.items()}
    assert problems.keys() == {"cut.nii.gz", "label.nii.gz"}
    assert "label map" in problems["label.nii.gz"]
    assert "unreadable" in problems["cut.nii.gz"]
    assert any("cut.nii.gz" in line for line in log)
    # mended, it is the only one that is done
    (folder / "cut.nii.gz").write_bytes(whole)
    again = jobs.embed([str(folder)], out)
    assert (again.rows, again.embedded, again.known) == (3, 1, 2)
    assert list(again.failures) == [str(folder / "label.nii.gz")]
    # left out by the user, it is not a failure
    assert jobs.embed([str(folder)], out, exclude=["label*"]).failures == {}


class _Stumbles(toy.ToyPyramid):
    """Fails on its first scan, in a way that nobody foresaw."""

    calls = 0

    def forward_embeddings(self, tensor: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 1:
            raise IndexError("no such voxel")
        return super().forward_embeddings(tensor)


def test_an_error_of_one_scan_does_not_stop_the_others(tmp_path: pathlib.Path) -> None:
    folder, out = jobs.write(tmp_path / "in", 3), tmp_path / "features.parquet"
    report = jobs.embed(
        [str(folder)], out, build=lambda: _Stumbles(preprocessing=toy.small_input())
    )
    assert (report.rows, report.embedded) == (2, 2)
    assert list(report.failures.values()) == ["IndexError: no such voxel"]


def test_nothing_usable_writes_no_table(tmp_path: pathlib.Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii.gz").write_bytes(b"nothing")
    report = jobs.embed([str(tmp_path / "in")], tmp_path / "features.parquet")
    assert report.rows == 0 and len(report.failures) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    with pytest.raises(EvaCoralbayError, match="No NIfTI file"):
        jobs.embed([str(tmp_path / "in"), "--"][:1], tmp_path / "f.parquet", exclude=["a*"])


def test_a_later_call_adds_scans_and_replaces_changed_ones(tmp_path: pathlib.Path) -> None:
    folder, out = jobs.write(tmp_path / "in", 2), tmp_path / "features.parquet"
    jobs.embed([str(folder)], out)
    before = jobs.read(out)
    jobs.write(folder, 1, first=5)
    scans.write_nifti(folder / "scan_1.nii.gz", scans.hounsfield(seed=9))
    assert jobs.embed([str(folder)], out) == (3, 2, 1, {})
    after = jobs.read(out)
    np.testing.assert_array_equal(after["embedding"].iloc[0], before["embedding"].iloc[0])
    assert not np.array_equal(after["embedding"].iloc[1], before["embedding"].iloc[1])


class _OfTheSameWeights(toy.ToyPyramid):
    """Another function of the same weights, as patches that are merged in another order are."""

    def describe(self) -> dict[str, Any]:
        return {"patch_merging": "legacy"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"pool": "max"}, "pool"),
        (
            {"build": lambda: _OfTheSameWeights(preprocessing=toy.small_input())},
            "encoder",
        ),
        ({"hu_window": (-100.0, 200.0)}, "preprocessing"),
        ({"build": lambda: toy.ToyPyramid(preprocessing=toy.small_input(), seed=1)}, "weights"),
    ],
)
def test_refuses_to_mix_settings(
    tmp_path: pathlib.Path, options: dict[str, Any], named: str
) -> None:
    folder, out = jobs.write(tmp_path / "in", 1), tmp_path / "features.parquet"
    jobs.embed([str(folder)], out)
    content = out.read_bytes()
    with pytest.raises(EvaCoralbayError, match=f"another .*{named}.*--out"):
        jobs.embed([str(folder)], out, **options)
    assert out.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, "in"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("in", "is a folder"),
        ("features.csv", "name one that ends in .parquet"),
        ("in/scan_0.nii.gz", "name one that ends in .parquet"),
        ("in/scan_0.nii.gz/features.parquet", "'.*scan_0.nii.gz' is not a folder"),
        ("other.parquet", "Choose another --out"),
    ],
)
def test_refuses_a_path_at_which_there_can_be_no_table(
    tmp_path: pathlib.Path, name: str, message: str
) -> None:
    folder = jobs.write(tmp_path / "in", 1)
    (tmp_path / "other.parquet").write_bytes(b"something else")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(EvaCoralbayError, match=message):
        jobs.embed([str(folder)], tmp_path / name)
    assert before == {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_workers_and_devices_change_nothing(tmp_path: pathlib.Path, workers: int) -> None:
    folder = jobs.write(tmp_path / "in", 5)
    (folder / "bad.nii.gz").write_bytes(b"nothing")
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    first = jobs.embed([str(folder)], one, workers=1)
    second = jobs.embed([str(folder)], two, workers=workers, devices=("cpu", "cpu"))
    assert first == second and len(first.failures) == 1
    pd.testing.assert_frame_equal(jobs.read(one), jobs.read(two))


def test_the_bar_moves_by_windows_in_a_terminal_and_is_not_in_a_pipe(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one scan, a bar that counts scans alone would not move before all is done."""
    folder = jobs.write(tmp_path / "in", 1)
    monkeypatch.setattr(_progress, "is_shown", True)
    moved: list[tuple[float, str]] = []
    move = _progress.ScanBar.move

    def keep(bar: _progress.ScanBar, scan: str, part: float, note: str) -> None:
        moved.append((part, note))
        move(bar, scan, part, note)

    monkeypatch.setattr(_progress.ScanBar, "move", keep)
    jobs.embed([str(folder)], tmp_path / "piped.parquet", window=(8, 8, 8))
    assert capsys.readouterr().err == ""
    number = int(jobs.read(tmp_path / "piped.parquet")["windows"].iloc[0])
    assert number > 1
    notes = [f"window {index} of {number}" for index in range(1, number + 1)]
    assert moved == [(index / number, note) for index, note in enumerate(notes, start=1)]

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    jobs.embed([str(folder)], tmp_path / "drawn.parquet")
    assert "100%" in capsys.readouterr().err


def test_more_maps_than_there_are_are_refused(tmp_path: pathlib.Path) -> None:
    folder, out = jobs.write(tmp_path / "in", 1), tmp_path / "features.parquet"
    with pytest.raises(EvaCoralbayError, match="has 2 feature maps, not 99"):
        jobs.embed([str(folder)], out, num_maps=99)
    assert not out.exists()


def test_feature_maps(tmp_path: pathlib.Path) -> None:
    folder, out = jobs.write(tmp_path / "in", 1), tmp_path / "features.parquet"
    jobs.embed([str(folder)], out, num_maps=1)
    row = jobs.read(out).iloc[0]
    with np.load(tmp_path / "features_maps" / "in__scan_0.npz") as maps:
        assert set(maps) == {"map_0", "starts", "affine"}
        assert maps["map_0"].shape == (row["windows"], 6, 4, 4, 4)
        assert maps["starts"].shape == (row["windows"], 3) and maps["affine"].shape == (4, 4)
        coarse = maps["map_0"].mean(axis=(0, 2, 3, 4))
    np.testing.assert_allclose(row["embedding"][3:], coarse, atol=1e-6)


def test_refuses_windows_that_the_encoder_cannot_take(tmp_path: pathlib.Path) -> None:
    folder, out = jobs.write(tmp_path / "in", 1), tmp_path / "features.parquet"

    def build() -> nn.Module:
        return nn.Sequential(nn.Conv3d(1, 2, 9), nn.AdaptiveAvgPool3d(1), nn.Flatten())

    with pytest.raises(EvaCoralbayError, match="windows of 8 x 8 x 8 voxels .*larger --window"):
        jobs.embed([str(folder)], out, build=build, window=(8, 8, 8))
    assert not out.exists()


_KILLED = """
import pathlib, sys, time
from eva_coralbay.inference import embedding_job, feature_table
from tests.eva_coralbay.inference import jobs, toy
feature_table._SAVE_SECONDS = 0.0
def build():
    encoder = toy.ToyPyramid(preprocessing=toy.small_input())
    encoder.register_forward_pre_hook(lambda *_: time.sleep(0.3))
    plain = encoder.forward_embeddings
    encoder.forward_embeddings = lambda tensor: (time.sleep(0.1), plain(tensor))[1]
    return encoder
out = pathlib.Path(sys.argv[2])
embedding_job.embed_scans([sys.argv[1]], out, build, model="toy/encoder", workers=1)
"""


def test_killed_it_goes_on(tmp_path: pathlib.Path) -> None:
    folder, out = jobs.write(tmp_path / "in", 12), tmp_path / "features.parquet"
    undisturbed = tmp_path / "undisturbed.parquet"
    jobs.embed([str(folder)], undisturbed)
    parts = feature_table.parts_folder(out)
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(folder), str(out)])
    try:
        deadline = time.monotonic() + 120
        while len(list(parts.glob("part-*.parquet"))) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not out.exists()
    finished = len(list(parts.glob("part-*.parquet")))
    report = jobs.embed([str(folder)], out)
    assert (report.rows, report.known) == (12, finished) and 0 < finished < 12
    pd.testing.assert_frame_equal(jobs.read(out), jobs.read(undisturbed))
    assert not parts.exists()


def test_what_a_killed_call_left_beside_the_table_is_removed(tmp_path: pathlib.Path) -> None:
    folder, out = jobs.write(tmp_path / "in", 1), tmp_path / "features.parquet"
    machine, _, start = _processes.name_this_process().split("~")
    rest = f"~{machine}~{2**30}~{start}~{'0' * 32}.tmp"
    (tmp_path / f".{out.name}{rest}").touch()
    (tmp_path / f".{out.name}.parts{rest}").mkdir()
    jobs.embed([str(folder)], out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, "in"]


def test_another_process_is_waited_for_by_the_user(tmp_path: pathlib.Path) -> None:
    folder, out = jobs.write(tmp_path / "in", 1), tmp_path / "features.parquet"
    with feature_table.locked(out), pytest.raises(EvaCoralbayError, match="Another process"):
        jobs.embed([str(folder)], out)
