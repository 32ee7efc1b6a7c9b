"""CC-CCII."""

import pathlib
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from PIL import Image
from typing_extensions import override

from eva_coralbay.data import arrays, foreign_files
from eva_coralbay.data.datasets.classification import base
from eva_coralbay.tasks import catalog, splits

_ARRAYS = "CC-CCII_public/data"
"""Where VoCo's copy has its arrays."""

_SLICE_ENDINGS = (".png", ".jpg", ".jpeg")
"""The ends of the names of slices."""


class CCCCII(base.ClassificationDataset):
    """CC-CCII: whether a chest CT shows COVID-19, another pneumonia or none.

    A volume is a whole scan, a stack of slices of 8 bit gray values without a known spacing. It
    is read from the official folders `<class>/<patient>/<scan>/` of slices, or from VoCo's copy,
    one array `CC-CCII_public/data/p<patient>-s<scan>.npy` a scan, which eva uses. The id of a
    case is class, patient and scan, as in "NCP-364-1880".
    """

    facts = catalog.TASKS["cc_ccii"]

    @override
    def _find_cases(self) -> dict[str, base.Case]:
        cases = {}
        for case, path in [*self._find_arrays(), *self._find_folders()]:
            label, patient, _ = case.split("-", maxsplit=2)
            cases[case] = base.Case(path, self.facts.labels.index(label), patient)
        return cases

    @override
    def _files(self, case: str) -> list[str]:
        path = self._path(self._cases[case].path)
        return [path] if path.endswith(".npy") else _slices(path)

    @override
    def _find_problems(self, case: str) -> list[str]:
        if case in self._cases and not self._files(case):
            return [f"Case '{case}': '{self._path(self._cases[case].path)}' holds no slices."]
        return super()._find_problems(case)

    @override
    def _read(self, case: str) -> eva_tv_tensors.Volume:
        path = self._path(self._cases[case].path)
        with foreign_files.reading(path, case=case, fix="Unpack it again."):
            if path.endswith(".npy"):
                volume = arrays.read_npy(path, case=case)
            else:
                volume = np.stack([_read_slice(file, case) for file in _slices(path)])
            if volume.ndim != 3 or min(volume.shape) < 1:
                raise ValueError(f"the shape {volume.shape} is not that of a scan")
        return eva_tv_tensors.Volume(torch.from_numpy(volume[None].astype(np.float32)))

    def _find_folders(self) -> Iterator[tuple[str, str]]:
        """Yields the ids and the paths of the scans in the official folders."""
        for label in self.facts.labels:
            for patient in self._folders(label):
                for scan in self._folders(f"{label}/{patient}"):
                    yield f"{label}-{patient}-{scan}", f"{label}/{patient}/{scan}"

    def _find_arrays(self) -> Iterator[tuple[str, str]]:
        """Yields the ids and the paths of the scans in VoCo's copy, whose names lack the class."""
        listed = sum(splits.read_splits(self.facts.id).schemes["voco"].values(), [])
        ids = {case.split("-", maxsplit=1)[1]: case for case in listed}
        folder = pathlib.Path(self._path(_ARRAYS))
        for name in sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []:
            match = re.fullmatch(r"p(\d+)-s(\d+)\.npy", name)
            if match and (case := ids.get(f"{match[1]}-{match[2]}")):
                yield case, f"{_ARRAYS}/{name}"

    def _folders(self, path: str) -> list[str]:
        """Returns the names of the folders in a folder; of one that does not exist, none."""
        folder = pathlib.Path(self._path(path))
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def _slices(folder: str) -> list[str]:
    """Returns the paths of the slices of a scan, in the order of their numbers."""
    paths = [
        path
        for path in pathlib.Path(folder).iterdir()
        if path.name.lower().endswith(_SLICE_ENDINGS) and not path.name.startswith(".")
    ]
    paths.sort(key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])
    return [str(path) for path in paths]


def _read_slice(path: str, case: str) -> npt.NDArray[np.uint8]:
    with foreign_files.reading(path, case=case, fix="Unpack it again."), Image.open(path) as image:
        return np.asarray(image.convert("L"))
