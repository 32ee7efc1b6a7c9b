"""Tests that show what is wrong in eva's KiTS23 and WORD, and that ours are right.

Each first asserts what eva's class does; one that fails there tells that eva has changed.
"""

import pathlib

import pytest
from eva.vision.data.datasets import segmentation as eva_datasets

from eva_coralbay.data import datasets
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import task_layouts


@pytest.fixture
def word_root(tmp_path: pathlib.Path) -> pathlib.Path:
    """The root of WORD with the labels of the test cases."""
    task_layouts.write_word(tmp_path)
    return tmp_path


def write_kits23(root: pathlib.Path, cases: list[str]) -> None:
    """Writes empty files for eva, which looks at no header."""
    for case in cases:
        (root / case).mkdir()
        for name in ("imaging", "segmentation"):
            (root / case / f"{name}.nii.gz").touch()


def test_the_classes_of_word_are_sorted_as_text(word_root: pathlib.Path) -> None:
    spleen = 2  # as in the `dataset.json` of WORD
    theirs = eva_datasets.WORD(str(word_root), "train")
    ours = datasets.WORD(str(word_root), "train")

    assert theirs.classes[spleen] == "colon"
    assert theirs.class_to_idx["spleen"] == 9
    assert ours.classes[spleen] == "spleen"
    assert (theirs.classes[10], ours.classes[10]) == ("left_kidney", "colon")


def test_the_test_split_of_word_is_an_error(word_root: pathlib.Path) -> None:
    theirs = eva_datasets.WORD(str(word_root), "test")
    ours = datasets.WORD(str(word_root), "test")
    theirs.configure()
    ours.setup()

    with pytest.raises(OSError, match="missing -30 samples"):
        theirs.validate()
    assert len(ours) == 30
    assert ours[29][2] == {"case": "word_0131"}


def test_the_test_split_of_word_is_empty_without_its_labels(word_root: pathlib.Path) -> None:
    for path in word_root.glob("WORD-V0.1.0/labelsTs/*"):
        path.unlink()
    theirs = eva_datasets.WORD(str(word_root), "test")
    theirs.configure()
    theirs.validate()

    assert len(theirs) == 0
    with pytest.raises(ValueError, match="'word_0014': image without label"):
        datasets.WORD(str(word_root), "test").setup()


def test_kits23_uses_300_of_489_cases(tmp_path: pathlib.Path) -> None:
    schemes = splits_lib.read_splits("kits23").schemes
    write_kits23(tmp_path, sum(schemes["v1"].values(), []))
    theirs = eva_datasets.KiTS23(str(tmp_path))
    ours = datasets.KiTS23(str(tmp_path))
    theirs.configure()
    theirs.validate()
    ours.configure()

    assert len(theirs) == 300
    assert len(ours) == 489
    for split in ("train", "val"):
        dataset = eva_datasets.KiTS23(str(tmp_path), split)
        dataset.configure()
        used = [pathlib.Path(dataset.filename(index)).parent.name for index in range(len(dataset))]
        assert used == schemes["eva"][split]
    assert len(schemes["eva"]["train"]) == 276
    assert len(schemes["voco"]["train"]) == 465


def test_kits23_needs_cases_that_it_does_not_use(tmp_path: pathlib.Path) -> None:
    lists = splits_lib.read_splits("kits23").schemes["eva"]
    task_layouts.write_kits23(tmp_path, lists["val"])
    write_kits23(tmp_path, lists["train"])
    theirs = eva_datasets.KiTS23(str(tmp_path), "val")
    ours = datasets.KiTS23(str(tmp_path), "val", split_scheme="eva")
    theirs.configure()
    ours.setup()

    with pytest.raises(OSError, match="missing 189 samples"):
        theirs.validate()
    assert ours.case_ids == lists["val"]


def test_the_license_of_kits23_is_that_of_its_code() -> None:
    assert eva_datasets.KiTS23._license.startswith("MIT")
    assert datasets.KiTS23.facts.license.name == "CC-BY-NC-SA-4.0"
