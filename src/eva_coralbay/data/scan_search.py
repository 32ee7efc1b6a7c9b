"""Finds what may be scans below some folders, and gives each an id."""

import collections
import fnmatch
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from eva.vision.data import tv_tensors as eva_tv_tensors
from loguru import logger

from eva_coralbay import _progress
from eva_coralbay.data import dicom, nifti
from eva_coralbay.errors import DatasetError

_NIFTI_NAME = re.compile(r"(.+)\.nii(\.gz)?", re.IGNORECASE | re.DOTALL)
"""The name of a NIfTI file."""

_PAIR_NAME = re.compile(r"(.+)\.img", re.IGNORECASE | re.DOTALL)
"""The name of the voxels of a scan whose header is another file."""

_LABEL_FOLDERS = ("labelsTr", "labelsTs")
"""Folders of nnU-Net's and MSD's layout that hold label maps, which are not looked at."""

_MAX_ID_BYTES = 120
"""How long an id is at most: it is a part of the name of a file."""


class Found(NamedTuple):
    """What may be a scan."""

    case: str
    """Its id: the name of the folder that was searched and the path in it."""

    kind: Literal["nifti", "dicom"]
    """What it was found as."""

    paths: tuple[str, ...]
    """Its files."""

    place: str
    """The hash of where it is."""

    def identity(self) -> str:
        """Returns what the files are by their names, sizes and times; "" if one is gone."""
        try:
            status = [(path.name, path.stat()) for path in map(pathlib.Path, self.paths)]
        except OSError:  # it is said when it is looked at
            return ""
        return digest(*((name, found.st_size, found.st_mtime_ns) for name, found in status))


def find(
    sources: Sequence[str], exclude: Sequence[str]
) -> tuple[list[Found], list[Found], dict[str, int]]:
    """Finds what may be scans, and what of them is excluded; counts the files that are left out.

    Args:
        sources: The folders to search; NIfTI files may be named as well.
        exclude: Patterns of paths, relative to their source, to leave out.

    Returns:
        What is taken, what is excluded, and the number of other files by the reason.

    Raises:
        DatasetError: If a source does not exist, or a pattern fits nothing.
    """
    found: list[Found] = []
    excluded: list[Found] = []
    left_out: dict[str, int] = collections.Counter()
    fitting = dict.fromkeys(exclude, False)
    for source in sources:
        path = pathlib.Path(source)
        if not (source and path.exists()):  # an empty variable is not the current folder
            raise DatasetError(f"'{source}' does not exist.")
        top = source if path.is_dir() else str(path.parent)
        for folder, names in _progress.bar(
            _walk(source), desc=f"Searching {_name_of(source)}", unit="folder"
        ):
            below = os.path.relpath(folder, top)
            dropped = _fit(names, below, fitting)
            usable = _filter(folder, names, below, dropped, left_out)
            left_out["neither NIfTI nor DICOM"] += len(set(usable) - dropped)
            # the excluded ones too, so that an id does not depend on what is excluded
            for one in _find_in_folder(folder, usable, _name_of(top), below):
                kept = tuple(path for path in one.paths if pathlib.Path(path).name not in dropped)
                left_out["neither NIfTI nor DICOM"] -= len(kept)
                if kept:
                    found.append(one._replace(paths=kept))
                else:
                    excluded.append(one)
    _check_fitting(fitting)
    return found, excluded, left_out


def read(found: Found) -> eva_tv_tensors.Volume:
    """Reads a scan.

    Args:
        found: The scan.

    Returns:
        The scan in HU, float32, of shape [1, D, H, W], with a float64 affine.

    Raises:
        DatasetError: If it cannot be read.
    """
    if found.kind == "dicom":
        return dicom.read_series(found.paths, case=found.case)
    return nifti.read_scan(found.paths[0], case=found.case)


def _check_fitting(fitting: dict[str, bool]) -> None:
    """Checks that all patterns fit: one that does not would let in what it is to keep out."""
    unfit = [f"'{pattern}'" for pattern, fits in fitting.items() if not fits]
    if unfit:
        raise DatasetError(
            f"No file matches --exclude {', '.join(unfit)}; nothing is prepared. "
            "Patterns are of paths below SRC, in which * stands for anything: '*/case_007*'."
        )


def _walk(source: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the folders below a source, and the names of their files, in order."""
    if pathlib.Path(source).is_file():
        yield str(pathlib.Path(source).parent), [pathlib.Path(source).name]
        return
    visited = set()
    for folder, folders, names in os.walk(source, onerror=_warn, followlinks=True):
        place = os.path.realpath(folder)
        if place in visited:
            folders.clear()
            continue
        visited.add(place)
        folders.sort()
        yield folder, sorted(names)


def _warn(error: OSError) -> None:
    logger.warning(f"'{error.filename}' is not searched: {error.strerror}.")


def _fit(names: Sequence[str], below: str, fitting: dict[str, bool]) -> set[str]:
    """Returns the names of files that are excluded, and notes the patterns that fit them."""
    excluded = set()
    for name in names:
        path = os.path.normpath(os.path.join(below, name))
        for pattern in fitting:
            if fnmatch.fnmatch(path, pattern):
                fitting[pattern] = True
                excluded.add(name)
    return excluded


def _filter(
    folder: str,
    names: Sequence[str],
    below: str,
    excluded: set[str],
    left_out: dict[str, int],
) -> list[str]:
    """Returns the names of files that may be scans, and counts the others and the excluded."""
    if set(pathlib.Path(below).parts) & set(_LABEL_FOLDERS):
        left_out["in a folder of label maps"] += len(names)
        return []
    kept = []
    for name in names:
        is_usable = not name.startswith(".") and _is_readable(os.path.join(folder, name))
        if is_usable:
            kept.append(name)
        if name in excluded:
            left_out["excluded"] += 1
        elif name.startswith("."):
            left_out["hidden"] += 1
        elif not is_usable:
            left_out["a broken link, no file, or without permission to read it"] += 1
    return kept


def _is_readable(path: str) -> bool:
    # in this order: before Python 3.14, `is_file` raises where the folder may not be entered
    return os.access(path, os.R_OK) and pathlib.Path(path).is_file()


def _find_in_folder(folder: str, names: Sequence[str], source: str, below: str) -> Iterator[Found]:
    """Yields the scans among the files of a folder."""
    nifti = _find_nifti(names)
    for stem, files in nifti:
        paths = tuple(os.path.join(folder, name) for name in files)
        yield Found(_case_id(source, below, stem), "nifti", paths, _place_of(paths[0]))
    taken = {name for _, files in nifti for name in files}
    others = [name for name in names if name not in taken]
    series = sorted(dicom.find_series(folder, others).values())
    for paths in series:
        part = pathlib.Path(paths[0]).name.removesuffix(".dcm") if len(series) > 1 else ""
        place = _place_of(os.path.join(folder, part))
        yield Found(_case_id(source, below, part), "dicom", tuple(paths), place)


def _find_nifti(names: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Returns the NIfTI files among some, or pairs of files, behind their names without suffix."""
    in_lower_case = {name.lower(): name for name in names}
    found: list[tuple[str, tuple[str, ...]]] = []
    for name in names:
        if match := _NIFTI_NAME.fullmatch(name):
            found.append((match[1], (name,)))
        elif match := _PAIR_NAME.fullmatch(name):
            header = in_lower_case.get(f"{match[1]}.hdr".lower())
            found += [(match[1], (name, header))] if header is not None else []
    return found


def _case_id(*parts: str) -> str:
    """Returns an id that is a name of a file too."""
    text = "__".join(part for part in parts if part not in ("", "."))
    case = re.sub(r"[^\w.-]+", "__", text)
    encoded = case.encode()
    if len(encoded) <= _MAX_ID_BYTES:
        return case
    return f"{digest(text)}-{encoded[17 - _MAX_ID_BYTES :].decode(errors='ignore')}"


def _name_of(path: str) -> str:
    return pathlib.Path(os.path.abspath(path)).name


def _place_of(path: str) -> str:
    return digest(os.path.abspath(path))


def digest(*content: object) -> str:
    """Returns a short hash of plain values."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
