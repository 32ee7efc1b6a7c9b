"""Tests of CHAOS."""

import pathlib
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from eva_coralbay.data import datasets
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import split_drawing, task_layouts

_NUMBERS = (1, 2, 5, 6, 8, 10, 14, 16, 18, 19, *range(21, 31))
"""The folders of the CT scans in the archive of the training sets."""

_CASES = [f"CT_{number}" for number in _NUMBERS]

_CT = "CHAOS_Train_Sets/Train_Sets/CT"


@pytest.mark.parametrize("downwards", [False, True])
def test_the_pictures_lie_on_their_slices(downwards: bool, tmp_path: pathlib.Path) -> None:
    task_layouts.write_chaos(tmp_path, _CASES, downwards=downwards)

    dataset = datasets.CHAOS(str(tmp_path), "test")
    dataset.setup()
    volume, mask, _ = dataset[0]

    assert volume.shape == mask.shape == (1, 14, 24, 20)
    # the liver is what has 150 HU
    assert torch.equal(mask.as_subclass(torch.Tensor) == 1, volume.as_subclass(torch.Tensor) == 150)
    assert int(mask.sum()) == 3 * 6 * 6
    assert grid_lib.spacing(volume.affine) == pytest.approx((3.0, 2.0, 2.5))
    assert len(dataset) == 6


@pytest.mark.parametrize("place", ["CT", "Train_Sets/CT"])
def test_other_places_of_the_folder(place: str, tmp_path: pathlib.Path) -> None:
    task_layouts.write_chaos(tmp_path / "archive", _CASES)
    (tmp_path / "root" / place).parent.mkdir(parents=True)
    shutil.move(tmp_path / "archive" / _CT, tmp_path / "root" / place)

    dataset = datasets.CHAOS(str(tmp_path / "root"))
    dataset.setup()

    assert dataset.case_ids == sorted(_CASES)
    assert dataset.filename(0) == f"{place}/1/DICOM_anon"


def test_what_is_missing_is_named(tmp_path: pathlib.Path) -> None:
    test = splits_lib.read_splits("chaos").schemes["v1"]["test"]
    task_layouts.write_chaos(tmp_path, _CASES)
    first, second, third = (tmp_path / _CT / case.removeprefix("CT_") for case in test[:3])
    shutil.rmtree(first)
    shutil.rmtree(second / "Ground")
    next((third / "Ground").iterdir()).unlink()

    datasets.CHAOS(str(tmp_path), "val").setup()
    with pytest.raises(DatasetError) as error:
        datasets.CHAOS(str(tmp_path), "test").setup()

    message = str(error.value)
    assert "3 of 6 cases are missing or broken" in message
    assert f"Case '{test[0]}': neither image nor label exist" in message
    assert f"Case '{test[1]}': there are no files in '{second / 'Ground'}'" in message
    assert f"Case '{test[2]}': 14 slices" in message and "13 pictures" in message


def test_pictures_of_another_size_are_an_error(tmp_path: pathlib.Path) -> None:
    task_layouts.write_chaos(tmp_path, _CASES)
    for path in tmp_path.glob(f"{_CT}/*/Ground/*.png"):
        Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(path)

    dataset = datasets.CHAOS(str(tmp_path), "val")
    dataset.setup()

    with pytest.raises(DatasetError, match="not of the slices of the scan"):
        dataset[0]


def test_a_damaged_picture_is_named(tmp_path: pathlib.Path) -> None:
    task_layouts.write_chaos(tmp_path, _CASES)
    for path in tmp_path.glob(f"{_CT}/*/Ground/liver_GT_003.png"):
        path.write_bytes(path.read_bytes()[:20])

    dataset = datasets.CHAOS(str(tmp_path), "val")
    dataset.setup()

    with pytest.raises(DatasetError, match="liver_GT_003.png': unreadable"):
        dataset[0]


def test_only_an_incomplete_data_set_is_downloaded(
    tmp_path: pathlib.Path, downloads: list[str]
) -> None:
    task_layouts.write_chaos(tmp_path / "all", _CASES)
    task_layouts.write_chaos(tmp_path / "some", _CASES[1:])

    for name in ("all", "some"):
        datasets.CHAOS(str(tmp_path / name), download=True).prepare_data()

    assert downloads == [str(tmp_path / "some")]


def test_all_slices_are_part_of_the_checksum(tmp_path: pathlib.Path) -> None:
    task_layouts.write_chaos(tmp_path, _CASES)
    dataset = datasets.CHAOS(str(tmp_path), "val")
    dataset.setup()
    before = dataset.checksums()

    folder = tmp_path / _CT / dataset.case_ids[0].removeprefix("CT_")
    shutil.copy(folder / "DICOM_anon/i0003,0000b.dcm", folder / "DICOM_anon/i0004,0000b.dcm")

    after = dataset.checksums()
    assert before["images"] != after["images"] and before["labels"] == after["labels"]


def test_splits() -> None:
    splits = splits_lib.read_splits("chaos")

    assert splits.schemes == {"v1": split_drawing.draw(_CASES)}
