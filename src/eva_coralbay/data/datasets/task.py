"""Base classes of the leaderboard's tasks."""

import fnmatch
import os
import re
from collections.abc import Collection, Iterator, Sequence
from typing import ClassVar, Literal

from loguru import logger
from typing_extensions import override

from eva_coralbay import _messages
from eva_coralbay.data import download as download_lib
from eva_coralbay.data import transforms as transforms_lib
from eva_coralbay.data.datasets import base
from eva_coralbay.errors import DatasetError, EvaCoralbayError
from eva_coralbay.tasks import catalog, splits


class PublicTask:
    """What the leaderboard knows of a public data set, whatever is to be predicted.

    A subclass says which task it is by its `facts`.
    """

    facts: ClassVar[catalog.Task]
    """What is known of the task."""

    _root: str
    _split: str | None

    def _choose_scheme(self, scheme: str | None) -> None:
        """Chooses the lists of cases, those that are ranked if None.

        Raises:
            EvaCoralbayError: If the scheme is unknown or has no such split.
        """
        self._scheme = scheme or splits.read_splits(self.facts.id).default
        self._lists = self._find_lists()

    @property
    def name(self) -> str:
        """The name of the data set."""
        return self.facts.id

    @property
    def license(self) -> str:
        """The license of the data."""
        return self.facts.license.name

    @property
    def classes(self) -> list[str]:
        """The name of each label value."""
        return list(self.facts.labels)

    @property
    def split_name(self) -> str:
        """The name of the scheme that says which case is in which split."""
        return f"{self._scheme}@{splits.read_splits(self.facts.id).version}"

    def has_split(self, split: Literal["train", "val", "test"]) -> bool:
        """Whether the scheme has a split."""
        return split in self._lists

    def _split_cases(self) -> list[str]:
        """Returns the ids of the cases of the split, whether they exist or not."""
        if self._split is None:
            return sum(self._lists.values(), [])
        return self._lists[self._split]

    def _name_split(self, case: str) -> str:
        """Returns the split of a case, to be put before its name, if all splits are looked at."""
        if self._split is not None:
            return ""
        split = next(name for name, cases in self._lists.items() if case in cases)
        return f"Split '{split}': "

    def _download_files(self) -> None:
        """Downloads all files, after the license is logged.

        Raises:
            DatasetError: If there are none that can be downloaded without an account.
        """
        logger.info(f"The license of {self.facts.title}: {self.facts.license}")
        if not self.facts.resources:
            raise DatasetError(
                f"Data set '{self.name}' is not complete in '{self._root}' and cannot be "
                f"downloaded without an account. {self.facts.how_to_get}"
            )
        download_lib.obtain(self.facts.resources, self._root)

    def _find_lists(self) -> dict[str, list[str]]:
        """Returns the case ids of each split of the scheme."""
        schemes = splits.read_splits(self.facts.id).schemes
        if self._scheme not in schemes:
            raise EvaCoralbayError(
                f"Task '{self.facts.id}' has no split scheme '{self._scheme}': choose one of "
                f"{sorted(schemes)}."
            )
        lists = schemes[self._scheme]
        if self._split is not None and self._split not in lists:
            raise EvaCoralbayError(
                f"Scheme '{self._scheme}' of task '{self.facts.id}' has no split '{self._split}': "
                f"it has {list(lists)}."
            )
        return lists

    def _warn_of_surplus(self, known: Collection[str]) -> None:
        """Names the known cases that no split lists; they are left out."""
        surplus = sorted(set(known) - set(sum(self._lists.values(), [])))
        if surplus:
            logger.warning(
                f"Data set '{self.name}': the cases {_messages.list_names(surplus)} are in no "
                f"split of '{self.split_name}' and are left out."
            )


class TaskDataset(PublicTask, base.SegmentationDataset):
    """A public data set with the splits of the leaderboard.

    A subclass says which task it is by its `facts`, and where the files of a case lie.
    """

    def __init__(
        self,
        root: str,
        split: Literal["train", "val", "test"] | None = None,
        *,
        split_scheme: str | None = None,
        download: bool = False,
        transforms: transforms_lib.EvalTransform | None = None,
        prepared: bool = True,
        prepared_root: str | None = None,
        unchecked_cases: Sequence[str] = (),
    ) -> None:
        """Initializes the data set.

        Args:
            root: The folder of the data set.
            split: The split to use, all cases of the scheme if None.
            split_scheme: The name of the lists that say which case is in which split, such as
                "voco"; the one that is ranked if None.
            download: Whether to download what is missing, where the terms allow it.
            transforms: What makes image and target of a prepared scan.
            prepared: Whether the prepared scans are kept on disk.
            prepared_root: The folder that they are kept in, `prepared/` in the root if None.
            unchecked_cases: The ids of the cases whose intensities are taken as HU whatever they
                look like; "*" stands for all.

        Raises:
            EvaCoralbayError: If the scheme is unknown or has no such split.
        """
        super().__init__(
            root,
            split,
            transforms=transforms,
            prepared=prepared,
            prepared_root=prepared_root,
            unchecked_cases=unchecked_cases,
        )

        self._download = download
        self._renamed: list[str] = []
        self._choose_scheme(split_scheme)

    @override
    def prepare_data(self) -> None:
        """Downloads the data set if wanted and not there, and prepares the scans of the split.

        Raises:
            DatasetError: If files are missing that cannot be downloaded without an account, or
                would be there twice.
        """
        if self._download and (missing := self._find_incomplete()):
            self._check_names(missing)
            self._download_files()
        super().prepare_data()

    @override
    def configure(self) -> None:
        super().configure()
        self._warn_of_surplus(self._files)

    @override
    def _summarize(self, problems: list[str]) -> str:
        return f"{super()._summarize(problems)}\n{self.facts.how_to_get}"

    def _find_incomplete(self) -> list[str]:
        """Returns the cases of the scheme of which a file is missing."""
        self._files = self._find_files()
        return [
            case
            for case in sum(self._lists.values(), [])
            if case not in self._files or not all(map(os.path.isfile, self._source_files(case)))
        ]

    def _check_names(self, missing: list[str]) -> None:
        """Checks that a download would bring no file that is there under another name.

        Args:
            missing: The cases that are to be downloaded.
        """
        if self._renamed:
            raise DatasetError(
                f"Data set '{self.name}' in '{self._root}': a download would bring cases twice, "
                f"as '{self._renamed[0]}' does not lie where the archive has it. Missing are "
                f"{_messages.list_names(missing)}: restore them, or download to an empty root."
            )

    def _match_files(
        self, prefix: str, *, image: str, label: str, usual: base.CaseFiles
    ) -> dict[str, base.CaseFiles]:
        """Finds the files of the cases by their names, in whichever folder below the root.

        Args:
            prefix: What the id of a case begins with; its number follows.
            image: The pattern of the end of an image's path, with the number as its group.
            label: The same for a label map.
            usual: Where the files usually are, with "{}" for the number; named for a file
                that is missing.

        Raises:
            DatasetError: If a file of a case is there twice.
        """
        paths = sorted(self._visible_files())
        images, labels = (self._by_number(paths, pattern) for pattern in (image, label))
        self._renamed = [
            path
            for found, place in ((images, usual.image), (labels, usual.label))
            for number, path in found.items()
            if not fnmatch.fnmatch(path, place.format(number))
        ]
        return {
            f"{prefix}{number}": base.CaseFiles(
                image=images.get(number, usual.image.format(number)),
                label=labels.get(number, usual.label.format(number)),
            )
            for number in images | labels
        }

    def _by_number(self, paths: list[str], pattern: str) -> dict[str, str]:
        """Returns the paths that end as the pattern says, by their number."""
        found: dict[str, str] = {}
        for path in paths:
            match = re.fullmatch(rf"(?:.*/)?{pattern}", path, re.IGNORECASE)
            if match is None:
                continue
            if match[1] in found:
                raise DatasetError(
                    f"{self._describe()}: '{found[match[1]]}' and '{path}' are both there for one "
                    "case. Remove one of them."
                )
            found[match[1]] = path
        return found

    def _visible_files(self) -> Iterator[str]:
        """Yields the paths below the root, with slashes; hidden folders are left out.

        Links to folders are followed, but into no folder twice.
        """
        visited = set()
        for folder, folders, names in os.walk(self._root, followlinks=True):
            if (real := os.path.realpath(folder)) in visited:
                folders.clear()
                continue
            visited.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), self._root)
                yield path.replace(os.sep, "/")
