"""Base class of the volumetric segmentation data sets."""

import abc
import copy
import functools
import hashlib
import os
import pathlib
import typing
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from eva.vision.data.datasets import vision
from loguru import logger
from torchvision import tv_tensors
from typing_extensions import Self, override

from eva_coralbay import _hashes, _messages
from eva_coralbay.data import foreign_files, nifti, quality, store
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import preparation as prepared_lib
from eva_coralbay.data import transforms as transforms_lib
from eva_coralbay.errors import DatasetError


class CaseFiles(NamedTuple):
    """Where the files of a case are expected, relative to the root of the data set."""

    image: str
    """The NIfTI file of the scan."""

    label: str
    """The NIfTI file of the label map."""


class SegmentationDataset(vision.VisionDataset[eva_tv_tensors.Volume, tv_tensors.Mask], abc.ABC):
    """CT scans with label maps.

    A subclass answers what the labels mean, which cases exist, where their files lie and which
    split each is in. Finding, checking and loading are done here.

    A sample is what `transforms` makes of the prepared scan, and the id of the case and the affine
    of the prepared scan as `{"case": id, "affine": [4, 4]}`. Without `transforms` it is the scan
    in HU of shape [1, D, H, W] with its affine, the label map of the same shape, and the id; see
    `eva_coralbay.data.grid` for the order of the axes. Prepared scans are kept on disk
    (`eva_coralbay.data.store`) and made by `prepare_data`, unless `prepared` is off: then each is
    made anew whenever it is used.

    A case without any labeled voxel is one like any other: in training all its crops are
    background, and it is scored by the rules of the metric.

    A scan that is not in HU, such as one scaled to [0, 1], is an error before the training (see
    `eva_coralbay.data.quality`), unless `unchecked_cases` names its case.
    """

    needs_code: ClassVar[bool] = True
    """Whether files are refused whose headers do not say where the voxels lie."""

    def __init__(
        self,
        root: str,
        split: Literal["train", "val", "test"] | None = None,
        *,
        transforms: transforms_lib.EvalTransform | None = None,
        prepared: bool = True,
        prepared_root: str | None = None,
        unchecked_cases: Sequence[str] = (),
    ) -> None:
        """Initializes the data set.

        Args:
            root: The folder of the data set; nothing is written to it but the prepared scans.
            split: The split to use, all labeled cases if None.
            transforms: What makes image and target of a prepared scan.
            prepared: Whether the prepared scans are kept on disk.
            prepared_root: The folder that they are kept in, `prepared/` in the root if None.
            unchecked_cases: The ids of the cases whose intensities are taken as HU whatever they
                look like; "*" stands for all.
        """
        super().__init__(transforms=transforms)

        self._preparation = transforms.preparation if transforms else prepared_lib.Preparation()
        self._root = os.path.expanduser(root)
        self._split = split
        self._prepared = prepared
        self._prepared_root = os.path.expanduser(
            prepared_root or os.path.join(self._root, "prepared")
        )
        self._unchecked_cases = frozenset(unchecked_cases)
        self._doubtful_cases: set[str] = set()

        self._files: dict[str, CaseFiles] = {}
        self._case_ids: list[str] = []

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The name of the data set."""

    @property
    @abc.abstractmethod
    def license(self) -> str:
        """The license of the data."""

    @property
    @override
    @abc.abstractmethod
    def classes(self) -> list[str]:
        """The name of each label value, beginning with "background"."""

    @property
    def _ignored_value(self) -> int | None:
        """The value, in the files, of voxels that are left out of loss and metrics."""
        return None

    @property
    @abc.abstractmethod
    def split_name(self) -> str:
        """The name of the scheme that says which case is in which split."""

    @abc.abstractmethod
    def _find_files(self) -> dict[str, CaseFiles]:
        """Returns the files of the cases that exist under the root, by case id.

        A case of which only one of the two files exists is part of it.
        """

    @abc.abstractmethod
    def _split_cases(self) -> list[str]:
        """Returns the ids of the cases of the split, whether they exist or not.

        The files of the existing ones are known when it is called.
        """

    @property
    @override
    def class_to_idx(self) -> dict[str, int]:
        return {name: value for value, name in enumerate(self.classes)}

    def has_split(self, split: Literal["train", "val", "test"]) -> bool:
        """Whether there are labeled cases for a split."""
        return split in ("train", "val")

    @property
    def split(self) -> str | None:
        """The split that is used."""
        return self._split

    @property
    def transforms(self) -> transforms_lib.EvalTransform | None:
        """What makes image and target of a prepared scan."""
        return typing.cast(transforms_lib.EvalTransform | None, self._transforms)

    def with_transforms(self, transforms: transforms_lib.EvalTransform) -> Self:
        """Returns the same cases with other transforms, which take the same prepared scans.

        Args:
            transforms: What makes image and target of a prepared scan.
        """
        copied = copy.copy(self)
        copied._transforms = transforms
        return copied

    @property
    def case_ids(self) -> list[str]:
        """The ids of the cases of the split, in the order of the samples."""
        return list(self._case_ids)

    @functools.cached_property
    def prepared_store(self) -> store.PreparedStore:
        """Where the prepared scans are kept."""
        return store.PreparedStore(
            self._prepared_root,
            name=self.name,
            preparation=self._preparation,
            labels=self.classes,
        )

    def sources(self) -> list[store.Source]:
        """Returns what the prepared scan of each case is made from, in the order of the samples."""
        return [self._source(case) for case in self._case_ids]

    def existing_sources(self) -> list[store.Source]:
        """Returns the sources of those cases whose files exist; `configure` must have been called.

        The files are not opened to find out.
        """
        return [
            self._source(case)
            for case in self._case_ids
            if case in self._files and all(map(os.path.isfile, self._source_files(case)))
        ]

    @property
    def keeps_prepared(self) -> bool:
        """Whether the prepared scans are kept on disk."""
        return self._prepared

    @property
    def prepared_root(self) -> str:
        """The folder that they are kept in."""
        return self._prepared_root

    @override
    def prepare_data(self) -> None:
        """Prepares the scans of the split that are not on disk yet."""
        if self._prepared and self._transforms is not None:
            self.setup()
            self.prepared_store.prepare(self.sources())

    @override
    def configure(self) -> None:
        self._files = self._find_files()
        self._case_ids = sorted(self._split_cases())

    @override
    def validate(self) -> None:
        """Checks the files and the headers of all cases of the split.

        Raises:
            DatasetError: If there is no label or no case, or files of some cases are missing or
                broken. All such cases are reported at once.
        """
        if len(self.classes) < 2:
            raise DatasetError(f"{self._describe()} has no label but the background. Add some.")
        if not self._case_ids:
            raise DatasetError(f"{self._describe()} has no cases. Check that this is its folder.")
        problems = [
            f"{self._name_split(case)}{problem}"
            for case in self._case_ids
            for problem in self._find_problems(case)
        ]
        if problems:
            raise DatasetError(self._summarize(problems))

    @override
    def __len__(self) -> int:
        return len(self._case_ids)

    @override
    def __getitem__(self, index: int) -> tuple[Any, Any, dict[str, Any]]:
        case = self._case_ids[index]
        if self._transforms is None:
            image, target = self._load_case(case)
            return image, target, self.load_metadata(index)
        image, target, affine = self._transform_prepared(case, self._transforms)
        return image, target, {**self.load_metadata(index), "affine": torch.from_numpy(affine)}

    @override
    def load_data(self, index: int) -> eva_tv_tensors.Volume:
        """Loads the scan of a case.

        Args:
            index: The index of the case.

        Returns:
            The scan in HU, float32, of shape [1, D, H, W], with its affine.
        """
        return self._read_scan(self._case_ids[index])

    @override
    def load_target(self, index: int) -> tv_tensors.Mask:
        """Loads the label map of a case.

        Args:
            index: The index of the case.

        Returns:
            The label map, of the smallest integer type, of shape [1, D, H, W].
        """
        return self.read_truth(self._case_ids[index])[0]

    def read_truth(self, case: str) -> tuple[tv_tensors.Mask, grid_lib.Grid]:
        """Reads the label map of a case on the scan's own grid.

        Args:
            case: The id of the case.

        Returns:
            The label map, of shape [1, D, H, W], and the grid of the scan.
        """
        grid = self._read_grid(self._files[case].image, case)
        return self._read_mask(case, grid), grid

    @override
    def load_metadata(self, index: int) -> dict[str, Any]:
        return {"case": self._case_ids[index]}

    @override
    def filename(self, index: int) -> str:
        return self._files[self._case_ids[index]].image

    def checksums(self) -> dict[str, str]:
        """Reads all files of the split and returns what identifies their content.

        Returns:
            A sha256 for "images" and for "labels", over the id and the file's sha256 of each
            case in order.
        """
        return {
            "images": self._checksum([self._image_files(case) for case in self._case_ids]),
            "labels": self._checksum([self._label_files(case) for case in self._case_ids]),
        }

    def _source(self, case: str) -> store.Source:
        return store.Source(
            case, self._source_files(case), functools.partial(self._load_case, case)
        )

    def _source_files(self, case: str) -> tuple[str, ...]:
        """Returns the paths of the files that a case is made of, those of the image first."""
        return (*self._image_files(case), *self._label_files(case))

    def _image_files(self, case: str) -> tuple[str, ...]:
        """Returns the paths of the files that the scan of a case is read from."""
        return (self._path(self._files[case].image),)

    def _label_files(self, case: str) -> tuple[str, ...]:
        """Returns the paths of the files that the label map of a case is read from."""
        return (self._path(self._files[case].label),)

    def _transform_prepared(
        self, case: str, transforms: Any
    ) -> tuple[Any, Any, npt.NDArray[np.float64]]:
        """Applies the transforms to the prepared scan of a case, and returns its affine, too."""
        if not self._prepared:
            loaded = prepared_lib.prepare(*self._load_case(case), self._preparation)
            return *transforms(loaded), loaded.grid.affine
        source = self._source(case)
        # a scan that is repaired in between is to give what an intact one would have given
        random = copy.deepcopy(getattr(transforms, "R", None))
        try:
            scan = self.prepared_store.open(source)
            return *transforms(scan), scan.grid.affine
        except store.StoreError as error:
            logger.warning(f"{error} It is prepared again.")
            self.prepared_store.prepare([source])
            if random is not None:
                transforms.R = random
            scan = self.prepared_store.open(source)
            return *transforms(scan), scan.grid.affine

    def _load_case(self, case: str) -> tuple[eva_tv_tensors.Volume, tv_tensors.Mask]:
        """Reads the scan and the label map of a case, and checks that the scan is one in HU."""
        volume = self._read_scan(case)
        if not self._unchecked_cases & {case, "*"}:
            self._check_quality(case, volume)
        return volume, self._read_mask(case, grid_lib.Grid.of(volume))

    def _check_quality(self, case: str, volume: eva_tv_tensors.Volume) -> None:
        problem = quality.find_problem(
            volume, quality.measure(volume), spacing=self._preparation.spacing
        )
        if problem is not None:
            raise foreign_files.problem(
                problem,
                self._path(self._files[case].image),
                case=case,
                fix="Correct the scan; or, if it is to be taken as it is, name the case in "
                "`unchecked_cases` of the data set.",
            )
        doubt = quality.find_doubt(volume)
        if doubt is not None and case not in self._doubtful_cases:
            self._doubtful_cases.add(case)
            logger.warning(f"Case '{case}' is used, but {doubt}.")

    def _read_scan(self, case: str) -> eva_tv_tensors.Volume:
        path = self._path(self._files[case].image)
        return nifti.read_scan(path, case=case, needs_code=self.needs_code)

    def _read_grid(self, relative: str, case: str) -> grid_lib.Grid:
        return nifti.read_grid(self._path(relative), case=case, needs_code=self.needs_code)

    def _read_mask(self, case: str, grid: grid_lib.Grid) -> tv_tensors.Mask:
        path = self._path(self._files[case].label)
        return nifti.read_mask(
            path,
            case=case,
            like=grid,
            labels=range(len(self.classes)),
            ignored=self._ignored_value,
            needs_code=self.needs_code,
        )

    def _find_problems(self, case: str) -> list[str]:
        """Returns what is wrong with the files and headers of a case."""
        if case not in self._files:
            return [f"Case '{case}': neither image nor label exist. Restore them."]
        image, label = (self._path(path) for path in self._files[case])
        if not pathlib.Path(label).is_file():
            return [f"Case '{case}': image without label, expected at '{label}'. Restore it."]
        if not pathlib.Path(image).is_file():
            return [f"Case '{case}': label without image, expected at '{image}'. Restore it."]
        try:
            nifti.check_same_grid(
                self._read_grid(self._files[case].label, case),
                self._read_grid(self._files[case].image, case),
                label,
                case=case,
            )
        except DatasetError as error:
            return [str(error)]
        return []

    def _name_split(self, case: str) -> str:
        """Returns what is put before the problems of a case, where its split is worth naming."""
        return ""

    def _summarize(self, problems: list[str]) -> str:
        return (
            f"{self._describe()}: {len(problems)} of {len(self)} cases are missing or broken:\n"
            f"{_messages.list_lines(problems)}"
        )

    def _describe(self) -> str:
        split = f"split '{self._split or 'all'}' ({self.split_name})"
        return f"Data set '{self.name}', {split} in '{self._root}'"

    def _checksum(self, files: list[tuple[str, ...]]) -> str:
        digest = hashlib.sha256()
        for case, paths in zip(self._case_ids, files, strict=True):
            digest.update(f"{' '.join([case, *map(_hashes.hash_file, paths)])}\n".encode())
        return digest.hexdigest()

    def _path(self, relative: str) -> str:
        return os.path.join(self._root, relative)
