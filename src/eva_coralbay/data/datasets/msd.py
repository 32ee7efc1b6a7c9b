"""Data sets in the layout of the Medical Segmentation Decathlon."""

import os
from typing import Any

from typing_extensions import override

from eva_coralbay.data.datasets import base, nnunet
from eva_coralbay.errors import DatasetError


class MSD(nnunet.NnUNet):
    """A data set in the layout of the Medical Segmentation Decathlon.

        <root>/
            dataset.json            "training": [{"image": path, "label": path}, ...], labels
            splits_final.json       as for nnU-Net, where there is one
            imagesTr/<case>.nii.gz
            labelsTr/<case>.nii.gz
            imagesTs/, labelsTs/    of "test": [path, ...]; its labels are not published

    An image that was renamed to `<case>_0000.nii.gz` for nnU-Net is found, too. A case has the
    name of its label file. Without `splits_final.json` the folds are those of nnU-Net.
    """

    @override
    def _find_files(self) -> dict[str, base.CaseFiles]:
        key = "test" if self._split == "test" else "training"
        entries = self._description.get(key)
        if not isinstance(entries, list):
            raise DatasetError(
                f"File '{self._description_path}' has no list '{key}'. It must name the image "
                "and the label of each case; for nnU-Net's layout use `NnUNet`."
            )
        files = (self._parse_entry(entry) for entry in entries)
        return {self._case_id(case.label): case for case in files if not _is_hidden(case.label)}

    def _parse_entry(self, entry: Any) -> base.CaseFiles:
        """Returns the files of a case from its entry in `dataset.json`."""
        if isinstance(entry, str):
            folder, name = os.path.split(os.path.normpath(entry))
            entry = {"image": entry, "label": f"{folder.replace('images', 'labels')}/{name}"}
        if not isinstance(entry, dict) or not {"image", "label"} <= set(entry):
            raise DatasetError(
                f"File '{self._description_path}' has the entry {entry}, which does not name "
                "an 'image' and a 'label'."
            )
        image, label = (os.path.normpath(entry[kind]) for kind in ("image", "label"))
        return base.CaseFiles(image=self._renamed(image), label=label)

    def _renamed(self, image: str) -> str:
        """Returns the name for nnU-Net of an image that exists under this name only."""
        renamed = (
            f"{image.removesuffix(self._file_ending)}{nnunet.CHANNEL_SUFFIX}{self._file_ending}"
        )
        if os.path.isfile(self._path(renamed)) and not os.path.isfile(self._path(image)):
            return renamed
        return image

    def _case_id(self, label: str) -> str:
        return os.path.basename(label).removesuffix(self._file_ending)


def _is_hidden(path: str) -> bool:
    return os.path.basename(path).startswith(".")
