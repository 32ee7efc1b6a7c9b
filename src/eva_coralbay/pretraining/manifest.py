"""What a store for pre-training holds, and what was set aside and why.

<store>/
    manifest.json             a row for each scan that was found
    <name>-<key>/*.scan       the prepared scans, as `eva_coralbay.data.store` writes them
"""

import functools
import hashlib
import json
import os
import pathlib
from typing import Literal

import pydantic

from eva_coralbay import _atomic_files, _invalid_fields
from eva_coralbay.data import scan_file
from eva_coralbay.data.quality import Statistics
from eva_coralbay.errors import DatasetError, EvaCoralbayError

VERSION = 1
"""The version of the format of the manifest."""

NAME = "manifest.json"
"""The name of the manifest in its store."""


class Geometry(pydantic.BaseModel, extra="forbid", frozen=True):
    """The grid of a scan."""

    shape: tuple[int, int, int]
    """The number of voxels along (D, H, W)."""

    spacing: tuple[float, float, float]
    """The distance of voxels along (D, H, W), in mm."""

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """How long it is along (D, H, W)."""
        (depth, height, width), spacing = self.shape, self.spacing
        return depth * spacing[0], height * spacing[1], width * spacing[2]


class Case(pydantic.BaseModel, extra="forbid", frozen=True):
    """A scan that was found."""

    case: str
    """Its id, which says where it was found."""

    kind: Literal["nifti", "dicom"]
    """What it was found as."""

    sha256: str | None = None
    """The hash of its voxels and their grid, as far as they could be read."""

    identity: str
    """What its files were when it was looked at: when they change, it is looked at again."""

    place: str | None = None
    """The hash of where it was found, by which scans of other places get other ids."""

    status: Literal["found", "prepared", "quarantined"]
    """Whether it can be used; `found` if it is not prepared yet."""

    reason: str | None = None
    """Why it was set aside."""

    source: Geometry | None = None
    """Its grid before it was prepared, as far as it could be read."""

    hounsfield: Statistics | None = None
    """Its HU, as far as they could be read."""

    prepared: Geometry | None = None
    """Its grid in the store."""

    path: str | None = None
    """Its file, relative to the store."""

    key: str | None = None
    """What its file was written with."""


class Manifest(pydantic.BaseModel, extra="forbid"):
    """All scans of a store, by their ids."""

    version: Literal[1] = VERSION
    """The version of the format."""

    spacing: tuple[float, float, float]
    """The voxel spacing of the prepared scans along (D, H, W), in mm."""

    cases: tuple[Case, ...]
    """The scans, sorted by their ids."""

    _store: str = pydantic.PrivateAttr("")

    @classmethod
    def read(cls, store: str) -> "Manifest":
        """Reads the manifest of a store.

        Args:
            store: The folder.

        Raises:
            DatasetError: If there is none, or it is not one.
        """
        path = pathlib.Path(store, NAME)
        if path.exists() and not path.is_file():
            raise DatasetError(f"'{path}' is a folder, a pipe or a device. Remove it.")
        try:
            with path.open(encoding="utf-8") as file:
                manifest = cls.model_validate_json(file.read())
        except OSError as error:
            raise DatasetError(
                f"'{path}': {error.strerror}. Make a store with `eva-coralbay pretrain prepare SRC "
                f"--out '{store}'`, or set STORE to one."
            ) from error
        except ValueError as error:
            why = _invalid_fields.explain(error)
            raise DatasetError(
                f"'{path}' is not a manifest of a store ({why}). Remove it, and run "
                "`eva-coralbay pretrain prepare` again with all sources: prepared scans are found."
            ) from error
        manifest._store = store
        return manifest

    def write(self, store: str) -> None:
        """Writes the manifest into a store, completely or not at all."""
        text = self.model_dump_json(indent=1, exclude_none=True)
        _atomic_files.write_atomically(pathlib.Path(store, NAME), text.encode())

    @functools.cached_property
    def prepared(self) -> tuple[Case, ...]:
        """The scans that can be used."""
        return tuple(case for case in self.cases if case.status == "prepared")

    @property
    def sha256(self) -> str:
        """The hash of the scans that can be used, whenever and wherever they were prepared."""
        rows = [(case.case, case.sha256, case.prepared) for case in self.prepared]
        content = json.dumps([self.spacing, rows], default=pydantic.BaseModel.model_dump)
        return hashlib.sha256(content.encode()).hexdigest()

    def open(self, case: Case) -> scan_file.StoredScan:
        """Opens a prepared scan; its source need not be there.

        Args:
            case: One of `prepared`.

        Raises:
            StoreError: If it is missing or damaged.
        """
        if case.path is None or case.key is None:
            raise EvaCoralbayError(f"Scan '{case.case}' was set aside: {case.reason}.")
        return scan_file.StoredScan(os.path.join(self._store, case.path), key=case.key)
