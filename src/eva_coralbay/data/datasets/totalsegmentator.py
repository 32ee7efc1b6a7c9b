"""The CT data set of TotalSegmentator."""

import csv
import os
import pathlib

import torch
from torchvision import tv_tensors
from typing_extensions import override

from eva_coralbay import _messages
from eva_coralbay.data import foreign_files, nifti
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data.datasets import base
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import catalog


class TotalSegmentator(task_lib.TaskDataset):
    """TotalSegmentator 2.0.1: 1228 CT scans of 1.5 mm with 117 structures of the whole body.

    Each structure is a binary mask of its own:

        meta.csv
        s0000/ct.nii.gz
        s0000/segmentations/spleen.nii.gz
        ...

    They are merged into one label map when a case is read. The label values are those of the
    class map "total" (https://github.com/wasserth/TotalSegmentator#class-details). Where masks
    overlap, the higher value counts, as in the authors' own label maps
    (https://github.com/wasserth/TotalSegmentator/issues/8). Copies in nnU-Net's layout are not
    read: their label values are those of version 1 or of parts of the classes.
    """

    facts = catalog.TASKS["totalsegmentator"]

    @override
    def configure(self) -> None:
        super().configure()
        self._check_lists()

    @override
    def _find_files(self) -> dict[str, base.CaseFiles]:
        folders = pathlib.Path(self._root).glob("s[0-9][0-9][0-9][0-9]")
        cases = [folder.name for folder in folders]
        return {
            case: base.CaseFiles(image=f"{case}/ct.nii.gz", label=f"{case}/segmentations")
            for case in cases
        }

    @override
    def _label_files(self, case: str) -> tuple[str, ...]:
        (folder,) = super()._label_files(case)
        return tuple(os.path.join(folder, f"{name}.nii.gz") for name in self.facts.classes)

    @override
    def _read_mask(self, case: str, grid: grid_lib.Grid) -> tv_tensors.Mask:
        merged = torch.zeros((1, *grid.shape), dtype=torch.uint8)
        for value, path in enumerate(self._label_files(case), start=1):
            mask = nifti.read_mask(path, case=case, like=grid, labels=(0, 1))
            torch.maximum(merged, mask.as_subclass(torch.Tensor) * value, out=merged)
        return tv_tensors.Mask(merged)

    @override
    def _find_problems(self, case: str) -> list[str]:
        """Returns what is wrong with a case; the masks are only looked for, as they are many."""
        if case not in self._files:
            return super()._find_problems(case)
        image, folder = (self._path(path) for path in self._files[case])
        path = pathlib.Path(folder)
        there = [entry.name for entry in path.iterdir()] if path.is_dir() else []
        wanted = {f"{name}.nii.gz" for name in self.facts.classes}
        missing = sorted(wanted - set(there))
        if missing:
            return [
                f"Case '{case}': {len(missing)} of {len(wanted)} masks are missing in "
                f"'{folder}': {_messages.list_names(missing)}. Restore them."
            ]
        try:
            nifti.read_grid(image, case=case)
        except DatasetError as error:
            return [str(error)]
        return []

    def _check_lists(self) -> None:
        """Compares the splits with those that come with the data.

        Raises:
            DatasetError: If a case is in another split there.
        """
        path = self._path("meta.csv")
        if not pathlib.Path(path).is_file():
            return
        with (
            foreign_files.reading(path, fix="Unpack it again."),
            pathlib.Path(path).open(encoding="utf-8-sig", newline="") as file,
        ):
            theirs = {row["image_id"]: row["split"] for row in csv.DictReader(file, delimiter=";")}
        moved = [
            case
            for split, cases in self._lists.items()
            for case in cases
            if theirs.get(case, split) != split
        ]
        if moved:
            raise DatasetError(
                f"{self._describe()}: {len(moved)} cases are in another split in '{path}': "
                f"{_messages.list_names(moved)}. Get version 2.0.1 of the data, or report it."
            )
