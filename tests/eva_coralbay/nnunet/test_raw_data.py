"""Tests the writing of a task in nnU-Net's raw layout."""

import json
import pathlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from nibabel import nifti1

from eva_coralbay.cli import main
from eva_coralbay.data import datasets
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.nnunet import raw_data
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import layouts, task_layouts


@pytest.fixture
def btcv(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    layouts.few_cases("btcv", monkeypatch, count=2)
    task_layouts.write_btcv(tmp_path / "btcv", task_layouts.all_cases(datasets.BTCV))
    return str(tmp_path / "btcv")


def test_scans_labels_and_split_are_those_of_the_task(btcv: str, tmp_path: pathlib.Path) -> None:
    _shift_a_scan(btcv)
    out = tmp_path / "Dataset501_BTCV"

    assert raw_data.write("btcv", btcv, out) == 6

    for split in ("train", "val"):
        source, written = datasets.BTCV(btcv, split), datasets.NnUNet(str(out), split)
        for dataset in (source, written):
            dataset.setup()
        assert written.case_ids == source.case_ids and len(source) == 2
        assert written.classes == source.classes
        for index, case in enumerate(source.case_ids):
            expected = source.load_data(index)
            assert np.array_equal(written.load_data(index), expected)
            assert np.allclose(written.load_data(index).affine, expected.affine)
            assert np.array_equal(written.load_target(index), source.load_target(index))
            # nnU-Net reads by SimpleITK, and gets our order and directions of axes
            image = SimpleITK.ReadImage(str(out / f"imagesTr/{case}_0000.nii.gz"))
            assert np.array_equal(SimpleITK.GetArrayFromImage(image), expected[0])
    test = datasets.BTCV(btcv, "test")
    test.setup()
    names = sorted(path.name for path in (out / "imagesTs").iterdir())
    assert names == [f"{case}_0000.nii.gz" for case in test.case_ids]
    assert not (out / "labelsTs").exists()
    description = json.loads((out / "dataset.json").read_text())
    assert (description["numTraining"], description["channel_names"]) == (4, {"0": "CT"})


def _shift_a_scan(root: str) -> None:
    """Makes the HU of a scan fractions, which the written file has to hold."""
    path = min(pathlib.Path(root, "RawData/Training/img").iterdir())
    image = nib.load(path)
    nib.save(nifti1.Nifti1Image(image.get_fdata(dtype=np.float32) + 0.25, image.affine), path)


def test_again_keeps_what_is_there(
    btcv: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], log: list[str]
) -> None:
    out = tmp_path / "Dataset501_BTCV"
    command = ["nnunet", "data", "btcv", "--root", btcv, "--out", str(out)]
    assert main.main(command) == 0
    assert f"data set: {out} (6 cases)" in capsys.readouterr().out
    (warning,) = (line for line in log if "without exchanging left and right" in line)
    assert "right_kidney and left_kidney" in warning and "nnUNetTrainerNoMirroring" in warning
    image, *_ = sorted((out / "imagesTr").iterdir())
    image.write_bytes(b"kept")

    assert main.main(command) == 0

    assert image.read_bytes() == b"kept"


def test_without_validation_cases_the_training_cases_are_monitored(
    btcv: str, tmp_path: pathlib.Path
) -> None:
    splits = splits_lib.read_splits("btcv")
    for lists in splits.schemes.values():
        lists.pop("val")
    out = tmp_path / "Dataset501_BTCV"

    raw_data.write("btcv", btcv, out)

    (fold,) = json.loads((out / "splits_final.json").read_text())
    assert fold["val"] == fold["train"] == splits.schemes[splits.default]["train"]


def test_another_data_set_is_left_alone(btcv: str, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "Dataset501_Mine"
    out.mkdir()
    (out / "dataset.json").write_text("{}")

    with pytest.raises(EvaCoralbayError, match="dataset.json' is of another data set"):
        raw_data.write("btcv", btcv, out)

    assert [path.name for path in out.iterdir()] == ["dataset.json"]


def test_scans_of_an_unknown_data_set_are_left_alone(btcv: str, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "Dataset501_Mine"
    (out / "labelsTr").mkdir(parents=True)
    (out / "labelsTr" / "img0001.nii.gz").write_bytes(b"another")

    with pytest.raises(EvaCoralbayError, match="labels in labelsTr, but no dataset.json"):
        raw_data.write("btcv", btcv, out)

    assert [path.name for path in out.iterdir()] == ["labelsTr"]


def test_what_cannot_be_written(btcv: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(EvaCoralbayError, match="DatasetNNN_NAME .* got 'btcv'"):
        raw_data.write("btcv", btcv, tmp_path / "btcv")
    with pytest.raises(EvaCoralbayError, match="no task 'nnunet' .* choose one of .*btcv"):
        raw_data.write("nnunet", btcv, tmp_path / "Dataset501_Own")
    with pytest.raises(EvaCoralbayError, match="'luna25' is a classification"):
        raw_data.write("luna25", btcv, tmp_path / "Dataset501_Nodules")
