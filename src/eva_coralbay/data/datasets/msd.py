"""Data sets in the layout of the Medical Segmentation Decathlon."""

import functools
import pathlib
import posixpath
import unicodedata
from typing import Any

from typing_extensions import override

from eva_coralbay.data import foreign_files
from eva_coralbay.data.datasets import base, nnunet
from eva_coralbay.data.foreign_files import UnusableError


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
        with foreign_files.reading(self._description_path, fix="Correct it."):
            if not isinstance(entries, list):
                raise UnusableError(
                    f"it has no list '{key}'",
                    "It must name the image and the label of each case; for nnU-Net's layout use "
                    "`NnUNet`.",
                )
            files = [self._parse_entry(entry) for entry in entries]
            found: dict[str, base.CaseFiles] = {}
            for case in files:
                if (
                    not _is_hidden(case.label)
                    and found.setdefault(self._case_id(case.label), case) != case
                ):
                    raise UnusableError(
                        f"two cases have the label '{posixpath.basename(case.label)}'",
                        "Give each label a name of its own.",
                    )
            return found

    def _parse_entry(self, entry: Any) -> base.CaseFiles:
        """Returns the files of a case from its entry in `dataset.json`."""
        if isinstance(entry, str):
            folder, name = posixpath.split(_to_path(entry))
            entry = {"image": entry, "label": f"{folder.replace('images', 'labels')}/{name}"}
        if not isinstance(entry, dict) or not {"image", "label"} <= set(entry):
            raise UnusableError(
                f"the entry {entry!r:.200} does not name an 'image' and a 'label'", "Correct it."
            )
        image, label = (_to_path(entry[kind]) for kind in ("image", "label"))
        renamed = f"{image[: -len(self._file_ending)]}{nnunet.CHANNEL_SUFFIX}{self._file_ending}"
        return base.CaseFiles(
            image=self._find_path(image) or self._find_path(renamed) or image,
            label=self._find_path(label) or label,
        )

    def _find_path(self, path: str) -> str | None:
        """Returns how a file is really called, None if it does not exist.

        The description may write letters with accents otherwise, and the ending in lower case.
        """
        folder, name = posixpath.split(path)
        found = self._names_in(folder).get(_normalize(name))
        return None if found is None else posixpath.join(folder, found)

    def _names_in(self, folder: str) -> dict[str, str]:
        """Returns the names of the files in a folder by their normal form."""
        if folder not in self._names:
            path = pathlib.Path(self._path(folder))
            names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
            self._names[folder] = {_normalize(name): name for name in names}
        return self._names[folder]

    @functools.cached_property
    def _names(self) -> dict[str, dict[str, str]]:
        return {}

    def _case_id(self, label: str) -> str:
        name = posixpath.basename(label)
        if name.lower().endswith(self._file_ending.lower()):
            name = name[: -len(self._file_ending)]
        return foreign_files.check_name(name, "the name of a label")


def _to_path(value: Any) -> str:
    """Returns a path of a description, in which Windows may have left its separators."""
    path = foreign_files.check_name(value, "a path")
    return posixpath.normpath(path.replace("\\", "/"))


def _normalize(name: str) -> str:
    """Returns what is equal for names that are seen as equal, whatever the case of the ending."""
    stem, dot, ending = unicodedata.normalize("NFC", name).partition(".")
    return f"{stem}{dot}{ending.lower()}"


def _is_hidden(path: str) -> bool:
    return posixpath.basename(path).startswith(".")
