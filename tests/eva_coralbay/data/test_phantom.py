"""Tests of the generated scans."""

import hashlib
import os
import pathlib
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np
import pytest

from eva_coralbay.data import datasets, phantom
from eva_coralbay.errors import DatasetError

COARSE: dict[str, Any] = {"shape": (36, 32, 40), "spacing_mm": (9.0, 9.0, 9.0)}
"""A small grid over the whole trunk, for what does not depend on resolution."""

HOUNSFIELD = {
    "liver": (30, 140),
    "spleen": (25, 150),
    "right_kidney": (20, 220),
    "left_kidney": (20, 220),
    "lungs": (-920, -650),
    "spine": (120, 500),
}
"""What the mean intensity of each organ must lie between, from unenhanced to portal venous."""


@pytest.fixture(scope="module")
def cases() -> list[phantom.Phantom]:
    """Some cases of the default size."""
    return [phantom.generate(index) for index in range(4)]


def test_a_case_follows_from_seed_and_index() -> None:
    first, second = (phantom.generate(3, seed=1, **COARSE) for _ in range(2))

    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    for other in (phantom.generate(4, seed=1, **COARSE), phantom.generate(3, seed=2, **COARSE)):
        assert (first.labels != other.labels).mean() > 0.01


def test_organs_are_large_enough_and_have_realistic_intensities(
    cases: list[phantom.Phantom],
) -> None:
    for case in cases:
        assert case.hounsfield.dtype == np.int16
        assert case.labels.dtype == np.uint8
        for name, (lowest, highest) in HOUNSFIELD.items():
            organ = case.labels == phantom.CLASSES.index(name)
            assert organ.sum() > 300, name
            assert lowest < case.hounsfield[organ].mean() < highest, name


def test_air_is_black_and_organs_are_noisy(cases: list[phantom.Phantom]) -> None:
    for case in cases:
        liver = case.hounsfield[case.labels == phantom.CLASSES.index("liver")]
        assert np.median(case.hounsfield[:, 0]) < -950
        assert 5 < np.percentile(liver, 75) - np.percentile(liver, 25) < 40


def test_anatomy_differs_between_cases(cases: list[phantom.Phantom]) -> None:
    volumes = np.array([np.bincount(case.labels.ravel())[1:] for case in cases])
    livers = [case.hounsfield[case.labels == 1].mean() for case in cases]

    assert (volumes.std(axis=0) / volumes.mean(axis=0) > 0.05).all()
    assert np.ptp(livers) > 15


def test_organs_lie_where_they_belong(cases: list[phantom.Phantom]) -> None:
    for case in cases:
        # RAS+ world: x grows to the right, y to the front, z upwards
        places = {name: world_center(case, name) for name in phantom.CLASSES[1:]}
        assert places["right_kidney"][0] > places["spine"][0] + 30
        assert places["left_kidney"][0] < places["spine"][0] - 30
        assert places["liver"][0] > places["spleen"][0] + 60
        assert places["lungs"][2] > places["liver"][2] + 40
        assert places["liver"][1] > places["spine"][1] + 20


def test_the_data_set_is_read_as_generated(tmp_path: pathlib.Path) -> None:
    phantom.write_dataset(str(tmp_path), cases=4, val_cases=1, **COARSE)

    train, val = (datasets.NnUNet(str(tmp_path), split) for split in ("train", "val"))
    for dataset in (train, val):
        dataset.setup()

    assert (len(train), val.case_ids) == (3, ["phantom_003"])
    assert train.classes == list(phantom.CLASSES)
    assert (train.name, train.license) == ("phantom", "CC0-1.0")
    for index in range(3):
        expected = phantom.generate(index, **COARSE)
        volume, mask, _ = train[index]
        np.testing.assert_array_equal(volume[0], expected.hounsfield)
        np.testing.assert_array_equal(mask[0], expected.labels)
        np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-4)


def test_the_files_are_stored_in_several_orientations(tmp_path: pathlib.Path) -> None:
    phantom.write_dataset(str(tmp_path), cases=3, val_cases=1, **COARSE)

    stored = {
        "".join(nib.orientations.aff2axcodes(nib.load(path).affine))
        for path in (tmp_path / "imagesTr").iterdir()
    }

    assert len(stored) == 3
    assert "SPL" not in stored


def test_the_bytes_follow_from_the_seed(tmp_path: pathlib.Path) -> None:
    for folder in ("one", "two"):
        phantom.write_dataset(str(tmp_path / folder), cases=2, val_cases=1, seed=5, **COARSE)

    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_an_interrupted_data_set_is_completed(tmp_path: pathlib.Path) -> None:
    phantom.write_dataset(str(tmp_path), cases=3, val_cases=1, **COARSE)
    before = content_of(tmp_path)
    kept = tmp_path / "imagesTr" / "phantom_000_0000.nii.gz"
    os.utime(kept, (1, 1))
    (tmp_path / "labelsTr" / "phantom_001.nii.gz").unlink()

    phantom.write_dataset(str(tmp_path), cases=3, val_cases=1, **COARSE)

    assert content_of(tmp_path) == before
    assert kept.stat().st_mtime == 1


def test_a_failed_write_leaves_nothing_behind(tmp_path: pathlib.Path) -> None:
    with (
        mock.patch("pathlib.Path.replace", side_effect=OSError("disk full")),
        pytest.raises(OSError, match="disk full"),
    ):
        phantom.write_dataset(str(tmp_path), cases=2, val_cases=1, **COARSE)

    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("changed", [{"seed": 1}, {"spacing_mm": (8.0, 8.0, 8.0)}])
def test_other_phantoms_are_not_mixed_in(tmp_path: pathlib.Path, changed: dict[str, Any]) -> None:
    phantom.write_dataset(str(tmp_path), cases=2, val_cases=1, **COARSE)

    with pytest.raises(DatasetError, match="holds another data set"):
        phantom.write_dataset(str(tmp_path), cases=2, val_cases=1, **{**COARSE, **changed})


@pytest.mark.parametrize("val_cases", [-1, 2, 3])
def test_some_case_must_be_left_to_train_on(tmp_path: pathlib.Path, val_cases: int) -> None:
    with pytest.raises(ValueError, match="`val_cases` must be from 0 to 1"):
        phantom.write_dataset(str(tmp_path), cases=2, val_cases=val_cases, **COARSE)


def world_center(case: phantom.Phantom, name: str) -> Any:
    """Returns the RAS+ world position of the middle of an organ in mm."""
    index = np.argwhere(case.labels == phantom.CLASSES.index(name)).mean(axis=0)
    return case.affine @ [*index, 1.0]


def content_of(folder: pathlib.Path) -> dict[str, str]:
    """Returns the sha256 of each file in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("content", ["[]", "7", "{", "[" * 5000])
def test_a_folder_with_another_description_is_refused(tmp_path: pathlib.Path, content: str) -> None:
    (tmp_path / "dataset.json").write_text(content)

    with pytest.raises(DatasetError, match=f"{tmp_path}.*[Cc]hoose another folder"):
        phantom.write_dataset(str(tmp_path))

    assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]
