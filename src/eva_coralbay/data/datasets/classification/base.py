"""Base class of the leaderboard's classification tasks."""

import abc
import hashlib
import json
import os
import pathlib
import pickle  # nosec B403  # only for the error that PyTorch and NumPy raise
import typing
from typing import Any, Literal, NamedTuple

import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from eva.vision.data.datasets import vision
from typing_extensions import override

from eva_coralbay import _hashes, _messages
from eva_coralbay.data import _object_description, volume_transforms
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.errors import DatasetError

EMBEDDINGS_FILE = "embeddings.json"
"""The file beside embeddings that says what they are made of, written when all are there."""


class Case(NamedTuple):
    """A volume with its class."""

    path: str
    """Where it lies, relative to the root of the data set."""

    label: int
    """The index of its class."""

    patient: str
    """The id of the patient, the unit that is scored."""


class ClassificationDataset(
    task_lib.PublicTask, vision.VisionDataset[eva_tv_tensors.Volume, torch.Tensor], abc.ABC
):
    """A public data set of volumes with one class each, with the splits of the leaderboard.

    A subclass says which task it is by its `facts`, which cases exist under the root, and how
    a volume is read. A sample is what `transforms` makes of the volume (without it the volume
    itself, float32, of shape [1, D, H, W]), or its embedding; the index of the class, int64, of
    shape []; and the ids `{"case": ..., "patient": ...}`.
    """

    def __init__(
        self,
        root: str,
        split: Literal["train", "val", "test"] | None = None,
        *,
        split_scheme: str | None = None,
        download: bool = False,
        transforms: volume_transforms.VolumeTransform | None = None,
        embeddings_root: str | None = None,
    ) -> None:
        """Initializes the data set.

        Args:
            root: The folder of the data set; nothing is written to it but what is downloaded.
            split: The split to use, all cases of the scheme if None.
            split_scheme: The name of the lists that say which case is in which split, such as
                "voco"; the one that is ranked if None.
            download: Whether to download what is missing, where the terms allow it.
            transforms: What makes the input of the encoder of a volume.
            embeddings_root: The folder of the embeddings, to be used in place of the volumes.

        Raises:
            EvaCoralbayError: If the scheme is unknown or has no such split.
        """
        super().__init__(transforms=transforms)

        self._root = os.path.expanduser(root)
        self._split = split
        self._download = download
        self._embeddings_root = embeddings_root
        self._choose_scheme(split_scheme)

        self._cases: dict[str, Case] = {}
        self._case_ids: list[str] = []

    @abc.abstractmethod
    def _find_cases(self) -> dict[str, Case]:
        """Returns the cases that are known under the root, by id, whatever their split.

        The file of a case may be missing. Where it is not known what exists, nothing is returned.
        """

    @abc.abstractmethod
    def _read(self, case: str) -> eva_tv_tensors.Volume:
        """Reads the volume of a case, of shape [1, D, H, W].

        Raises:
            DatasetError: If it cannot be read.
        """

    @property
    @override
    def class_to_idx(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.facts.labels)}

    @property
    def split(self) -> str | None:
        """The split that is used."""
        return self._split

    @property
    def transforms(self) -> volume_transforms.VolumeTransform | None:
        """What makes the input of the encoder of a volume."""
        return typing.cast(volume_transforms.VolumeTransform | None, self._transforms)

    @property
    def case_ids(self) -> list[str]:
        """The ids of the cases of the split, in the order of the samples."""
        return list(self._case_ids)

    @property
    def patients(self) -> list[str]:
        """The ids of the patients, in the same order."""
        return [self._cases[case].patient for case in self._case_ids]

    @override
    def prepare_data(self) -> None:
        """Downloads the data set if wanted and not there.

        Raises:
            DatasetError: If files are missing that cannot be downloaded without an account.
        """
        if self._download:
            self._cases = self._find_cases()
            if any(self._find_problems(case) for case in sum(self._lists.values(), [])):
                self._download_files()

    @override
    def configure(self) -> None:
        self._cases = self._find_cases()
        self._check_labels()
        self._case_ids = sorted(self._split_cases())
        self._warn_of_surplus(self._cases)

    @override
    def validate(self) -> None:
        """Checks that all cases of the split exist.

        Raises:
            DatasetError: If some do not. All of them are reported at once.
        """
        problems = [
            f"{self._name_split(case)}{problem}"
            for case in self._case_ids
            for problem in self._find_problems(case)
        ]
        if problems:
            raise DatasetError(
                f"Data set '{self.name}', split '{self._split or 'all'}' ({self.split_name}) in "
                f"'{self._root}': {len(problems)} of {len(self)} cases are missing:\n"
                f"{_messages.list_lines(problems)}\n{self.facts.how_to_get}"
            )

    @override
    def __len__(self) -> int:
        return len(self._case_ids)

    @override
    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        if self._embeddings_root is None:
            volume = self.load_data(index)
            data = volume if self._transforms is None else self._transforms(volume)
        else:
            data = self._load_embedding(index)
        return data, self.load_target(index), self.load_metadata(index)

    @override
    def load_data(self, index: int) -> eva_tv_tensors.Volume:
        """Loads the volume of a case.

        Args:
            index: The index of the case.

        Returns:
            The volume, float32, of shape [1, D, H, W].
        """
        return self._read(self._case_ids[index])

    @override
    def load_target(self, index: int) -> torch.Tensor:
        """Loads the class of a case.

        Args:
            index: The index of the case.

        Returns:
            The index of the class, int64, of shape [].
        """
        return torch.tensor(self._cases[self._case_ids[index]].label, dtype=torch.int64)

    @override
    def load_metadata(self, index: int) -> dict[str, Any]:
        case = self._case_ids[index]
        return {"case": case, "patient": self._cases[case].patient}

    @override
    def filename(self, index: int) -> str:
        return self._cases[self._case_ids[index]].path

    def checksums(self) -> dict[str, str]:
        """Reads all files of the split and returns what identifies their content.

        Returns:
            A sha256 for "images", over the files' sha256, and one for "labels", over the id and
            the class of each case.
        """
        files = dict.fromkeys(path for case in self._case_ids for path in self._files(case))
        images = "".join(f"{_hashes.hash_file(path)}\n" for path in files)
        labels = "".join(f"{case} {self._cases[case].label}\n" for case in self._case_ids)
        return {
            name: hashlib.sha256(content.encode()).hexdigest()
            for name, content in (("images", images), ("labels", labels))
        }

    def describe_inputs(self) -> dict[str, Any]:
        """Returns what the input of the encoder is made of, the same for each split."""
        cases = json.dumps(self._lists, sort_keys=True)
        return {
            "task": self.facts.id,
            "split scheme": self.split_name,
            "cases": hashlib.sha256(cases.encode()).hexdigest(),
            "files": self._identify_files(),
            "transform": None
            if self._transforms is None
            else _object_description.describe(self._transforms),
        }

    def embeddings_of(self) -> dict[str, Any] | None:
        """Returns what the embeddings are made of; None if volumes are used.

        Raises:
            DatasetError: If the embeddings are not there, or not all of them.
        """
        if self._embeddings_root is None:
            return None
        path = pathlib.Path(self._embeddings_root, EMBEDDINGS_FILE)
        try:
            with path.open(encoding="utf-8") as file:
                return json.load(file)
        except (FileNotFoundError, ValueError) as error:
            raise DatasetError(
                f"The embeddings in '{self._embeddings_root}' are not complete: delete the folder "
                "and run `eva predict_fit`."
            ) from error

    def _load_embedding(self, index: int) -> torch.Tensor:
        """Loads an embedding as eva's writer has saved it, of shape [E]."""
        name = pathlib.Path(self.filename(index)).with_suffix(".pt")
        path = pathlib.Path(self._embeddings_root or "", name)
        try:
            (embedding,) = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
            raise DatasetError(
                f"Case '{self._case_ids[index]}', embedding '{path}': unreadable ({error}). "
                "Delete the folder of the embeddings and run `eva predict_fit`."
            ) from error
        return embedding

    def _files(self, case: str) -> list[str]:
        """Returns the paths of the files that a case is read from."""
        return [self._path(self._cases[case].path)]

    def _identify_files(self) -> str:
        """Returns what changes when the files of any split change: their sizes and times."""
        digest = hashlib.sha256()
        for case in sorted(set(self._cases) & set(sum(self._lists.values(), []))):
            for path in filter(os.path.isfile, self._files(case)):
                status = pathlib.Path(path).stat()
                name = os.path.relpath(path, self._root)
                digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def _check_labels(self) -> None:
        """Checks that each case is of a class that there is, and what is scored of one."""
        wrong = [
            f"'{name}' ({case.label})"
            for name, case in self._cases.items()
            if not 0 <= case.label < len(self.facts.labels)
        ]
        if wrong:
            raise DatasetError(
                f"Data set '{self.name}' in '{self._root}': {len(wrong)} cases have classes that "
                f"do not exist: {_messages.list_names(wrong)}. {self.facts.how_to_get}"
            )
        patients: dict[str, set[int]] = {}
        for name in self._cases.keys() & set(sum(self._lists.values(), [])):
            patients.setdefault(self._cases[name].patient, set()).add(self._cases[name].label)
        mixed = sorted(patient for patient, labels in patients.items() if len(labels) > 1)
        if mixed and self.facts.unit == "patient":
            raise DatasetError(
                f"Data set '{self.name}' in '{self._root}' is scored by patient, but these "
                f"patients have cases of several classes: {_messages.list_names(mixed)}. "
                f"{self.facts.how_to_get}"
            )

    def _find_problems(self, case: str) -> list[str]:
        """Returns what is missing of a case."""
        if case not in self._cases:
            return [f"Case '{case}': not found."]
        return [
            f"Case '{case}': '{path}' is missing."
            for path in self._files(case)
            if not pathlib.Path(path).is_file()
        ]

    def _path(self, relative: str) -> str:
        return os.path.join(self._root, relative)
