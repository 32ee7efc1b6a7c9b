"""Writes a task in the raw layout of nnU-Net, with the split of the task.

<out>/                      nnUNet_raw/DatasetNNN_NAME
    dataset.json
    splits_final.json       one fold; nnU-Net takes it over when it plans
    imagesTr/, labelsTr/    the cases of training and validation
    imagesTs/               those that are scored, without labels
"""

import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from loguru import logger

from eva_coralbay import _atomic_files, _messages, _progress
from eva_coralbay.data import datasets, nifti_image, task_datasets
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.tasks import catalog, sides

_FOLDER = re.compile(r"Dataset\d{3}_\w[\w-]*")
"""The name of the folder of a data set, by which nnU-Net finds it."""

_SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
"""The splits that a task may have."""

_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
"""The folders of scans and labels in the layout."""

_ENDING = ".nii.gz"
"""How the names of all files end."""

_COMPRESSION = 3
"""A level at which scans are written fast."""


def write(task: str, root: str, out: str | os.PathLike[str]) -> int:
    """Writes the scans and labels of a task; files that are there already are kept.

    All are stored in LPS, which nnU-Net reads with axes that grow to superior, posterior and left:
    those of our tensors. A task without validation cases gets its training cases as such.

    Args:
        task: The id of a segmentation.
        root: The folder of its data.
        out: The folder to write, `nnUNet_raw/DatasetNNN_NAME`.

    Returns:
        The number of cases.

    Raises:
        EvaCoralbayError: If the task is no segmentation of the leaderboard, nnU-Net would not
            find the folder, or it has another data set.
        DatasetError: If files of a case are missing or broken.
    """
    folder = pathlib.Path(out)
    if not _FOLDER.fullmatch(folder.name):
        raise EvaCoralbayError(
            f"nnU-Net finds a data set by the name of its folder, DatasetNNN_NAME with a number of "
            f"three digits, such as Dataset501_OpenKBP; got '{folder.name}'."
        )
    if task not in catalog.TASKS:
        known = ", ".join(each.id for each in catalog.TASKS.values() if each.kind == "segmentation")
        raise EvaCoralbayError(f"There is no task '{task}' to be written: choose one of {known}.")
    every = task_datasets.build_segmentation(task, root)
    splits = [
        task_datasets.build_segmentation(task, root, split=split)
        for split in filter(every.has_split, _SPLITS)
    ]
    cases: dict[str, list[str]] = {split: [] for split in _SPLITS}
    for dataset in splits:
        dataset.setup()
        cases[str(dataset.split)] = dataset.case_ids
    training = [*cases["train"], *cases["val"]]
    description = {
        "name": every.name,
        "license": every.license,
        "channel_names": {"0": "CT"},
        "labels": every.class_to_idx,
        "numTraining": len(training),
        "file_ending": _ENDING,
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    _check_is_ours(folder)
    _write_once(folder / "dataset.json", description)
    folds = [{"train": cases["train"], "val": cases["val"] or cases["train"]}]
    _write_once(folder / "splits_final.json", folds)
    for dataset in splits:
        _write_cases(folder, dataset, is_test=dataset.split == "test")
    _warn_of_sides(list(every.class_to_idx))
    return len(training) + len(cases["test"])


def _warn_of_sides(classes: Sequence[str]) -> None:
    """Says what mirror images would do to classes of one side."""
    pairs = [f"{first} and {second}" for first, second in sides.find_pairs(classes)]
    sided = [*pairs, *sides.find_unpaired(classes)]
    if sided:
        logger.warning(
            f"nnU-Net mirrors scans in training without exchanging left and right of "
            f"{_messages.list_names(sided, limit=4)}, so it may mix up the two: train with "
            "-tr nnUNetTrainerNoMirroring."
        )


def _write_cases(
    folder: pathlib.Path, dataset: datasets.SegmentationDataset, *, is_test: bool
) -> None:
    """Writes the scans of a split, and their labels unless they are to be predicted."""
    images, labels = (
        folder / f"{kind}{'Ts' if is_test else 'Tr'}" for kind in ("images", "labels")
    )
    for path in (images,) if is_test else (images, labels):
        path.mkdir(parents=True, exist_ok=True)
    cases = _progress.bar(dataset.case_ids, desc=f"Writing {dataset.split}", unit="case")
    for index, case in enumerate(cases):
        image, label = images / f"{case}_0000{_ENDING}", labels / f"{case}{_ENDING}"
        if not image.is_file():
            volume = dataset.load_data(index)
            _write_volume(image, _shorten(volume[0].numpy()), grid_lib.Grid.of(volume))
        if not (is_test or label.is_file()):
            mask, grid = dataset.read_truth(case)
            _write_volume(label, mask[0].numpy(), grid)


def _shorten(hounsfield: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Returns HU as 16-bit integers if they are such numbers."""
    limits = np.iinfo(np.int16)
    is_short = limits.min <= hounsfield.min() and hounsfield.max() <= limits.max
    if is_short and np.array_equal(hounsfield, np.rint(hounsfield)):
        return hounsfield.astype(np.int16)
    return hounsfield


def _write_volume(path: pathlib.Path, array: npt.NDArray[Any], grid: grid_lib.Grid) -> None:
    nifti_image.write(path, array, grid.affine, compression=_COMPRESSION)


def _check_is_ours(folder: pathlib.Path) -> None:
    """Refuses a folder with scans and no description: they are not those of a task."""
    found = [name for name in _FOLDERS if any(folder.glob(f"{name}/*"))]
    if found and not (folder / "dataset.json").exists():
        raise EvaCoralbayError(
            f"'{folder}' has scans or labels in {' and '.join(found)}, but no dataset.json that "
            "says of which data set: write to another folder."
        )


def _write_once(path: pathlib.Path, content: Any) -> None:
    """Writes a description; another one that is there means that the scans are others, too."""
    text = json.dumps(content, indent=2)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise EvaCoralbayError(f"'{path}' is of another data set: write to another folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    _atomic_files.write_atomically(path, text.encode())
