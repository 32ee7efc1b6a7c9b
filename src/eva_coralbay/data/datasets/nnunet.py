"""Data sets in the raw layout of nnU-Net."""

import collections
import functools
import json
import os
from typing import Any, Literal

from loguru import logger
from sklearn import model_selection
from typing_extensions import override

from eva_coralbay.data import transforms as transforms_lib
from eva_coralbay.data.datasets import base
from eva_coralbay.errors import DatasetError

_NUM_FOLDS = 5
"""The number of folds that nnU-Net draws."""

_FOLD_SEED = 12345
"""The seed that nnU-Net draws its folds with (`nnunetv2/utilities/crossval_split.py`)."""

CHANNEL_SUFFIX = "_0000"
"""What nnU-Net puts between the case id and the ending in the name of the first channel."""

_SPLITS = ("train", "val")
"""The splits of a fold."""


class NnUNet(base.SegmentationDataset):
    """A data set in the raw layout of nnU-Net (version 1 and 2), so that own data need no code.

        <root>/
            dataset.json            labels, channels, and file ending, name, license where given
            splits_final.json       [{"train": [case, ...], "val": [case, ...]}, ...]
            imagesTr/<case>_0000.nii.gz
            labelsTr/<case>.nii.gz
            imagesTs/, labelsTs/    of the split "test", where there is one

    Without `splits_final.json` the five folds are drawn which nnU-Net draws from these cases.
    """

    def __init__(
        self,
        root: str,
        split: Literal["train", "val", "test"] | None = None,
        *,
        fold: int = 0,
        transforms: transforms_lib.EvalTransform | None = None,
        prepared: bool = True,
        prepared_root: str | None = None,
    ) -> None:
        """Initializes the data set.

        Args:
            root: The folder that holds `dataset.json`.
            split: The split to use: "train" or "val" of the fold, "test" for the cases of
                `imagesTs`, or None for all cases of `imagesTr`.
            fold: Which entry of `splits_final.json` to use.
            transforms: What makes image and target of a prepared scan.
            prepared: Whether the prepared scans are kept on disk.
            prepared_root: The folder that they are kept in, `prepared/` in the root if None.
        """
        super().__init__(
            root, split, transforms=transforms, prepared=prepared, prepared_root=prepared_root
        )

        self._fold = fold

    @property
    @override
    def name(self) -> str:
        return self._description.get("name") or os.path.basename(os.path.abspath(self._root))

    @property
    @override
    def license(self) -> str:
        return self._description.get("license") or self._description.get("license") or "unknown"

    @functools.cached_property
    @override
    def classes(self) -> list[str]:
        return _parse_labels(self._description.get("labels"), self._description_path)

    @property
    @override
    def split_name(self) -> str:
        return f"fold_{self._fold}" if self._split in _SPLITS else self._split or "all"

    @override
    def has_split(self, split: Literal["train", "val", "test"]) -> bool:
        return split != "test" or os.path.isdir(self._path("labelsTs"))

    @override
    def _find_files(self) -> dict[str, base.CaseFiles]:
        images, labels = (f"{kind}{self._folder_suffix}" for kind in ("images", "labels"))
        cases = self._list_cases(images, CHANNEL_SUFFIX) | self._list_cases(labels, "")
        return {
            case: base.CaseFiles(
                image=f"{images}/{case}{CHANNEL_SUFFIX}{self._file_ending}",
                label=f"{labels}/{case}{self._file_ending}",
            )
            for case in cases
        }

    @override
    def _split_cases(self) -> list[str]:
        if self._split not in _SPLITS:
            return list(self._files)
        path = self._path("splits_final.json")
        if not os.path.isfile(path):
            return self._draw_fold()[self._split]
        return _parse_fold(_read_json(path), self._fold, path)[self._split]

    @property
    def _folder_suffix(self) -> str:
        return "Ts" if self._split == "test" else "Tr"

    @property
    def _file_ending(self) -> str:
        return self._description.get("file_ending", ".nii.gz")

    @property
    def _description_path(self) -> str:
        return self._path("dataset.json")

    @functools.cached_property
    def _description(self) -> dict[str, Any]:
        """The content of `dataset.json`."""
        description = _read_json(self._description_path)
        if not isinstance(description, dict):
            raise DatasetError(f"File '{self._description_path}' does not hold a JSON object.")
        _check_one_channel(description, self._description_path)
        return description

    def _list_cases(self, folder: str, suffix: str) -> set[str]:
        """Returns the ids of the cases with a file in a folder, hidden files left out."""
        path = self._path(folder)
        names = os.listdir(path) if os.path.isdir(path) else []
        ending = f"{suffix}{self._file_ending}"
        return {
            name.removesuffix(ending)
            for name in names
            if name.endswith(ending) and not name.startswith(".")
        }

    def _draw_fold(self) -> dict[str, list[str]]:
        """Draws the folds as nnU-Net does and returns the wanted one."""
        cases = sorted(self._files)
        if len(cases) < _NUM_FOLDS or not 0 <= self._fold < _NUM_FOLDS:
            raise DatasetError(
                f"Cannot draw fold {self._fold} of {_NUM_FOLDS} from the {len(cases)} cases in "
                f"'{self._root}'. Add a splits_final.json that lists the cases of each split."
            )
        logger.info(
            f"No splits_final.json in '{self._root}': fold {self._fold} is drawn as nnU-Net does."
        )
        folds = model_selection.KFold(_NUM_FOLDS, shuffle=True, random_state=_FOLD_SEED)
        train, val = list(folds.split(cases))[self._fold]
        return {"train": [cases[i] for i in train], "val": [cases[i] for i in val]}


def _read_json(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError as error:
        raise DatasetError(
            f"File '{path}' is missing. Check that the root is the folder of the data set."
        ) from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"File '{path}' is no readable JSON: {error}.") from error


def _parse_labels(labels: Any, path: str) -> list[str]:
    """Returns the label names by value, from either direction of the mapping.

    Version 2 of nnU-Net maps names to values, version 1 and the Decathlon values to names.
    """
    if not isinstance(labels, dict):
        raise DatasetError(f"File '{path}' has no 'labels'. Map each label name to its value.")
    by_value = _invert_labels(labels, path)
    if sorted(by_value) != list(range(len(by_value))):
        raise DatasetError(
            f"File '{path}': the label values must be 0 (background), 1, 2, ... without gaps, "
            f"got {sorted(by_value)}. Renumber the labels."
        )
    return ["background", *(by_value[value] for value in range(1, len(by_value)))]


def _invert_labels(labels: dict[str, Any], path: str) -> dict[int, str]:
    if all(key.isdecimal() for key in labels):
        return {int(value): str(name) for value, name in labels.items()}
    if "ignore" in labels:
        raise DatasetError(
            f"File '{path}': the label 'ignore' is not supported. Label these voxels, or make "
            "them background."
        )
    for name, value in labels.items():
        if not isinstance(value, (int, str)) or not str(value).isdecimal():
            raise DatasetError(
                f"File '{path}': the label '{name}' is {value}, but only one value a label is "
                "supported, no regions. Give each label a value of its own."
            )
    by_value = {int(value): name for name, value in labels.items()}
    if len(by_value) < len(labels):
        raise DatasetError(f"File '{path}': two labels have the same value. Renumber the labels.")
    return by_value


def _check_one_channel(description: dict[str, Any], path: str) -> None:
    channels = description.get("channel_names") or description.get("modality") or {}
    if len(channels) > 1:
        raise DatasetError(
            f"File '{path}': {len(channels)} channels ({channels}), but only scans of one "
            "channel, the CT, are supported."
        )


def _parse_fold(splits: Any, fold: int, path: str) -> dict[str, list[str]]:
    """Returns the cases of each split of one fold, after checking that they are apart."""
    folds = splits if isinstance(splits, list) else []
    if not 0 <= fold < len(folds) or not isinstance(folds[fold], dict):
        raise DatasetError(
            f"File '{path}' has no fold {fold}: it must be a list with one entry a fold, each "
            "with the case ids of 'train' and 'val'."
        )
    cases = {split: [str(case) for case in folds[fold].get(split, [])] for split in _SPLITS}
    repeated = sorted(
        case for case, count in collections.Counter(sum(cases.values(), [])).items() if count > 1
    )
    if repeated:
        raise DatasetError(
            f"File '{path}', fold {fold}: the cases {repeated[:10]} are listed more than once. "
            "Each must be in one split, once."
        )
    return cases
