"""Data sets in the raw layout of nnU-Net."""

import collections
import functools
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, Literal

from loguru import logger
from sklearn import model_selection
from typing_extensions import override

from eva_coralbay import _messages
from eva_coralbay.data import foreign_files, label_values
from eva_coralbay.data import transforms as transforms_lib
from eva_coralbay.data.datasets import base
from eva_coralbay.data.foreign_files import UnusableError
from eva_coralbay.errors import DatasetError

_NUM_FOLDS = 5
"""The number of folds that nnU-Net draws."""

_FOLD_SEED = 12345
"""The seed that nnU-Net draws its folds with (`nnunetv2/utilities/crossval_split.py`)."""

CHANNEL_SUFFIX = "_0000"
"""What nnU-Net puts between the case id and the ending in the name of the first channel."""

_NO_CT = re.compile(
    r"(?<![a-z0-9])(mri?|mrt|magnetic|t1\w*|t2\w*|flair|dwi|adc|dixon|pet|pt|petct|suv|us|ultrasound|"
    r"x-?ray|rgb|[rgb]|red|green)(?![a-z0-9])",
    re.IGNORECASE,
)
"""The names of channels that hold no CT, as nnU-Net and the Decathlon write them."""

_NAMES = ("name", "license", "licence", "file_ending")
"""The entries of `dataset.json` that are texts; the Decathlon has "licence"."""

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
        unchecked_cases: Sequence[str] = (),
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
            unchecked_cases: The ids of the cases whose intensities are taken as HU whatever they
                look like; "*" stands for all, and for scans that `dataset.json` calls no CT.
        """
        super().__init__(
            root,
            split,
            transforms=transforms,
            prepared=prepared,
            prepared_root=prepared_root,
            unchecked_cases=unchecked_cases,
        )

        self._fold = fold

    @property
    @override
    def name(self) -> str:
        return self._description.get("name") or pathlib.Path(os.path.abspath(self._root)).name

    @property
    @override
    def license(self) -> str:
        return self._description.get("license") or self._description.get("licence") or "unknown"

    @property
    @override
    def classes(self) -> list[str]:
        return self._labels.classes

    @property
    @override
    def _ignored_value(self) -> int | None:
        return self._labels.ignored

    @property
    @override
    def split_name(self) -> str:
        return f"fold_{self._fold}" if self._split in _SPLITS else self._split or "all"

    @override
    def has_split(self, split: Literal["train", "val", "test"]) -> bool:
        return split != "test" or pathlib.Path(self._path("labelsTs")).is_dir()

    @override
    def _find_files(self) -> dict[str, base.CaseFiles]:
        images, labels = (f"{kind}{self._folder_suffix}" for kind in ("images", "labels"))
        scans = self._list_cases(images, f"{CHANNEL_SUFFIX}{self._file_ending}")
        masks = self._list_cases(labels, self._file_ending)
        return {
            case: base.CaseFiles(
                image=scans.get(case, f"{images}/{case}{CHANNEL_SUFFIX}{self._file_ending}"),
                label=masks.get(case, f"{labels}/{case}{self._file_ending}"),
            )
            for case in scans | masks
        }

    @override
    def _split_cases(self) -> list[str]:
        if self._split not in _SPLITS:
            return list(self._files)
        path = self._path("splits_final.json")
        if not pathlib.Path(path).is_file():
            return self._draw_fold()[self._split]
        content = foreign_files.read_json(path)
        with foreign_files.reading(path, fix="Correct it."):
            return _parse_fold(content, self._fold)[self._split]

    @property
    def _folder_suffix(self) -> str:
        return "Ts" if self._split == "test" else "Tr"

    @property
    def _file_ending(self) -> str:
        return self._description.get("file_ending") or ".nii.gz"

    @property
    def _description_path(self) -> str:
        return self._path("dataset.json")

    @functools.cached_property
    def _description(self) -> dict[str, Any]:
        """The content of `dataset.json`."""
        path = self._description_path
        description = foreign_files.read_json(
            path, fix="Check that the root is the folder of the data set."
        )
        with foreign_files.reading(path, fix="Correct it."):
            if not isinstance(description, dict):
                raise UnusableError("it does not hold a JSON object", "Correct it.")
            for key in _NAMES:
                if description.get(key):
                    description[key] = foreign_files.check_name(description[key], f"'{key}'")
            _check_channel(description, is_checked="*" not in self._unchecked_cases)
        return description

    @functools.cached_property
    def _labels(self) -> label_values.Labels:
        labels = self._description.get("labels")
        with foreign_files.reading(self._description_path, fix="Correct its 'labels'."):
            return label_values.parse(labels)

    def _list_cases(self, folder: str, ending: str) -> dict[str, str]:
        """Returns the paths of the files in a folder by the id of their case.

        Hidden files are left out. The ending may be in upper case.

        Raises:
            DatasetError: If a name is not in UTF-8, or two names differ in nothing that is seen.
        """
        path = pathlib.Path(self._path(folder))
        found: dict[str, str] = {}
        for name in sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []:
            if name.startswith(".") or not name.lower().endswith(ending.lower()):
                continue
            with foreign_files.reading(str(path / name).encode(errors="replace").decode()):
                case = foreign_files.check_name(name[: -len(ending)], "the name of a file")
                if case in found:
                    raise UnusableError(
                        f"'{pathlib.Path(found[case]).name}' is the same case",
                        "Remove one of them.",
                    )
            found[case] = f"{folder}/{name}"
        return found

    def _draw_fold(self) -> dict[str, list[str]]:
        """Draws the folds as nnU-Net does and returns the wanted one."""
        cases = sorted(self._files)
        if len(cases) < _NUM_FOLDS or not 0 <= self._fold < _NUM_FOLDS:
            raise DatasetError(
                f"Cannot draw fold {self._fold} of {_NUM_FOLDS} from the {len(cases)} cases in "
                f"'{self._root}'. Add a splits_final.json that lists the "
                'cases of each fold: [{"train": ["<case>", ...], "val": ["<case>", ...]}].'
            )
        logger.info(
            f"No splits_final.json in '{self._root}': fold {self._fold} is drawn as nnU-Net does."
        )
        folds = model_selection.KFold(_NUM_FOLDS, shuffle=True, random_state=_FOLD_SEED)
        train, val = list(folds.split(cases))[self._fold]
        return {"train": [cases[i] for i in train], "val": [cases[i] for i in val]}


def _check_channel(description: dict[str, Any], *, is_checked: bool) -> None:
    """Checks that the scans have one channel, which is a CT as far as the description says."""
    for key in ("channel_names", "modality"):
        channels = description.get(key) or {}
        if not isinstance(channels, (dict, list)):
            channels = {"0": channels}
        names = list(channels.values() if isinstance(channels, dict) else channels)
        if len(names) > 1:
            raise UnusableError(
                f"{len(names)} channels ({names!r:.200}), but only scans of one channel, the CT, "
                "are supported",
                "Keep the channel of the CT.",
            )
        if is_checked and names and _NO_CT.search(str(names[0])):
            raise UnusableError(
                f"the scans are {str(names[0])!r:.100} and no CT in HU",
                "If they are, correct the name of the channel; if not, set `unchecked_cases` to "
                '["*"] to take their intensities as HU.',
            )


def _parse_fold(splits: Any, fold: int) -> dict[str, list[str]]:
    """Returns the cases of each split of one fold, after checking that they are apart."""
    folds = splits if isinstance(splits, list) else []
    if not 0 <= fold < len(folds) or not isinstance(folds[fold], dict):
        raise UnusableError(
            f"it has no fold {fold}",
            "It must be a list with one entry a fold, each with the case ids of 'train' and 'val'.",
        )
    cases = {split: _parse_cases(folds[fold].get(split, []), split) for split in _SPLITS}
    repeated = sorted(
        case for case, count in collections.Counter(sum(cases.values(), [])).items() if count > 1
    )
    if repeated:
        raise UnusableError(
            f"fold {fold}: the cases {_messages.list_names(repeated)} are listed more than once",
            "Each must be in one split, once.",
        )
    return cases


def _parse_cases(listed: Any, split: str) -> list[str]:
    """Returns the ids of the cases of a split."""
    if not isinstance(listed, list):
        raise UnusableError(f"'{split}' is not a list", "List the ids of its cases.")
    return [
        foreign_files.check_name(
            str(case) if isinstance(case, int) else case, f"a case of '{split}'"
        )
        for case in listed
    ]
