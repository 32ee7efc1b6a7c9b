"""The CT tasks of MedMNIST in 3D."""

import functools
import pathlib
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from typing_extensions import override

from eva_coralbay.data import arrays
from eva_coralbay.data.datasets.classification import base
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import catalog

_PARTS = ("train", "val", "test")
"""The official parts of a file."""

_SHAPE = (64, 64, 64)
"""The shape of a volume."""


class MedMNIST3D(base.ClassificationDataset):
    """A file of volumes of 64^3 voxels, of 8 bit each, with the official parts as splits.

    The id of a case is its part and its place in it, as in "train_0000". The file does not say
    which volumes are of one patient, so each counts as a patient of its own.
    """

    archive: ClassVar[str]
    """The name of the file."""

    @functools.cached_property
    def _loaded(self) -> dict[str, npt.NDArray[np.uint8]]:
        """The volumes of the parts that have been read."""
        return {}

    @override
    def _find_cases(self) -> dict[str, base.Case]:
        if not pathlib.Path(self._path(self.archive)).is_file():
            return {}
        return {
            f"{part}_{index:04d}": base.Case(
                path=f"{self.archive}/{part}_{index:04d}",
                label=int(label),
                patient=f"{part}_{index:04d}",
            )
            for part in _PARTS
            for index, label in enumerate(self._load(f"{part}_labels").ravel())
        }

    @override
    def _files(self, case: str) -> list[str]:
        return [self._path(self.archive)]

    @override
    def _read(self, case: str) -> eva_tv_tensors.Volume:
        part, index = case.split("_")
        images = self._images(part)
        if int(index) >= len(images):
            raise self._error(f"there are {len(images)} {part} images, too few for '{case}'")
        return eva_tv_tensors.Volume(torch.from_numpy(images[int(index)][None].astype(np.float32)))

    def _images(self, part: str) -> npt.NDArray[np.uint8]:
        """Returns all volumes of a part, which are read at the first call."""
        if part not in self._loaded:
            images = self._load(f"{part}_images")
            if images.shape[1:] != _SHAPE or images.dtype != np.uint8:
                raise self._error(f"{part}_images are {images.dtype} of shape {images.shape}")
            self._loaded[part] = images
        return self._loaded[part]

    def _load(self, name: str) -> npt.NDArray[Any]:
        """Reads an array of the file."""
        return arrays.read_npz(self._path(self.archive), name)

    def _error(self, problem: str) -> DatasetError:
        return DatasetError(f"File '{self._path(self.archive)}': {problem}. Download it again.")


class OrganMNIST3D(MedMNIST3D):
    """OrganMNIST3D: which organ an abdominal CT shows.

    Names and order of the classes, the counts and the checksum are those of `medmnist.INFO`.
    """

    facts = catalog.TASKS["organ_mnist_3d"]

    archive = "organmnist3d_64.npz"


class NoduleMNIST3D(MedMNIST3D):
    """NoduleMNIST3D: whether a nodule of LIDC-IDRI looks malignant to radiologists.

    Names and order of the classes, the counts and the checksum are those of `medmnist.INFO`.
    """

    facts = catalog.TASKS["nodule_mnist_3d"]

    archive = "nodulemnist3d_64.npz"
