"""The scans that a user names: files, folders and archives."""

import collections
import fnmatch
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from loguru import logger

from eva_coralbay import _atomic_files, _hashes, _messages
from eva_coralbay.data import archives, quality, scan_search, scans
from eva_coralbay.errors import DatasetError, EvaCoralbayError

_NO_SCAN = "no NIfTI or DICOM file that can be read, and no archive (zip, tar, tar.gz)"
"""Why a file is left out that was named and is of another kind."""

_NO_SCANS = "there is no NIfTI file and no DICOM series in it"
"""Why a folder or an archive is left out."""


class Item(NamedTuple):
    """A scan."""

    found: scan_search.Found
    """Its id and its files."""

    source: str
    """The absolute path of its file, of the folder of its series (of its first file, if the folder
    holds several series), or `<archive>/<path in it>`."""

    state: str
    """A hash of the names, sizes and times of its files: another one is another scan."""

    first_case: str
    """The id that it would have if no other scan had it."""

    @property
    def place(self) -> str:
        """A hash of where it is."""
        return scan_search.digest(self.source)

    @property
    def case(self) -> str:
        """Its id: the name of the folder that was searched and the path in it."""
        return self.found.case

    @property
    def names(self) -> set[str]:
        """What a user may call it: its id, or the name of its file with or without the ending.

        The name in nnU-Net's layout counts without the number of the channel, too.
        """
        name = pathlib.PurePath(self.source).name
        stem = name
        for ending in (".gz", ".nii", ".img"):
            stem = stem[: -len(ending)] if stem.lower().endswith(ending) else stem
        return {self.case, self.first_case, name, stem, stem.removesuffix("_0000")}

    def read(self) -> eva_tv_tensors.Volume:
        """Reads the scan, in HU, of shape [1, D, H, W] ("SPL"), with its affine.

        Raises:
            DatasetError: If it cannot be read.
        """
        return scan_search.read(self.found)

    def sha256(self) -> str:
        """Hashes the scan: its file, or the hashes of the files of a series in order of names."""
        hashes = [_hashes.hash_file(path) for path in sorted(self.found.paths)]
        if len(hashes) == 1:
            return hashes[0]
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


class Known(NamedTuple):
    """What an earlier call has made of a scan under an id."""

    place: str | None
    """The `place` of the scan; None if that was not kept."""

    state: str
    """The `state` of the scan."""

    sha256: str
    """The hash of its content."""

    def is_of(self, item: Item) -> bool:
        """Whether this was made of a scan, which may have changed, or been moved since."""
        if self.place in (None, item.place):
            return True
        return self.state == item.state and self.sha256 == item.sha256()


class Search(NamedTuple):
    """What was found of the scans that a user named."""

    items: list[Item]
    """The scans, each once, with ids that differ, in the order of the ids."""

    failures: dict[str, str]
    """Why named files and folders are left out: damaged archives, and what holds no scan."""


def find(
    sources: Sequence[str],
    *,
    exclude: Sequence[str] = (),
    unpack_in: pathlib.Path,
    known: Callable[[str], Known | None] = lambda case: None,
) -> Search:
    """Finds the scans below some folders and in archives.

    A scan whose id is that of another one, also of an earlier call, gets one that ends in the hash
    of its place.

    Args:
        sources: Folders to search, NIfTI files, and archives (zip or tar), which are unpacked.
        exclude: Patterns of paths, relative to their source, to leave out.
        unpack_in: The folder that archives are unpacked in, each once.
        known: Returns what an earlier call has made under an id.

    Raises:
        DatasetError: If there is none, a source does not exist, or a pattern fits nothing.
    """
    unpacked, failures = _unpack_all(sources, unpack_in)
    usable = [source for source in sources if source not in failures]
    searched = [str(unpacked.get(source, source)) for source in usable]
    found, excluded, left_out = scan_search.find(searched, exclude)
    rest = [f"{number} {reason}" for reason, number in left_out.items() if number]
    if rest:
        logger.info(f"Files that are not scans, or left out: {'; '.join(rest)}.")
    if not found and failures:
        raise DatasetError(next(iter(failures.values())))
    if not found:
        raise DatasetError(
            f"No NIfTI file and no DICOM series in {_messages.list_names(sources)}. Name scans, "
            "folders of them, or archives (zip or tar)."
        )
    items: dict[str, Item] = {}
    # the excluded ones too, so that an id does not depend on what is excluded
    shared = _shared_folders([*found, *excluded])
    distinct: dict[str, scan_search.Found] = {}
    for one in found:
        distinct.setdefault(one.place, one)
    for one in distinct.values():
        item = _item(one, unpacked, shared)
        case = _choose_case(item, known, items)
        items[case] = item._replace(found=one._replace(case=case))
    failures |= _find_empty(usable, [*found, *excluded], unpacked, exclude)
    for source, problem in failures.items():
        logger.warning(f"'{source}' is left out: {problem}")
    return Search([items[case] for case in sorted(items)], failures)


def _choose_case(item: Item, known: Callable[[str], Known | None], taken: Collection[str]) -> str:
    """Returns the id of a scan: that which it had before, or one that no other scan has."""
    alone = f"{item.case}-{item.place[:8]}"
    before = known(item.case)
    is_free = before is None or before.is_of(item)
    is_here = before is not None and before.place in (None, item.place)
    if item.case in taken or not is_free or (not is_here and known(alone) is not None):
        return alone
    return item.case


def _shared_folders(found: Sequence[scan_search.Found]) -> set[pathlib.Path]:
    """Returns the folders that hold several DICOM series."""
    series = {one.place: one for one in found if one.kind == "dicom"}
    number = collections.Counter(pathlib.Path(one.paths[0]).parent for one in series.values())
    return {folder for folder, count in number.items() if count > 1}


def to_volume(scan: scans.Scan | str | os.PathLike[str]) -> eva_tv_tensors.Volume:
    """Returns a scan as a volume of shape [1, D, H, W] ("SPL"), with its affine.

    Args:
        scan: What `read_scan` returns, or a NIfTI file or a folder with one DICOM series.

    Raises:
        DatasetError: If it cannot be read.
    """
    read = scan if isinstance(scan, scans.Scan) else scans.read_scan(scan)
    array = np.ascontiguousarray(read.array, dtype=np.float32)
    affine = torch.from_numpy(np.asarray(read.affine, dtype=np.float64))
    return eva_tv_tensors.Volume(torch.from_numpy(array)[None], affine=affine)


def check_quality(volume: eva_tv_tensors.Volume, *, spacing: Sequence[float], place: str) -> None:
    """Checks that a volume is a CT scan in HU, as the evaluation and the pre-training do.

    If the HU only seem to be scaled or shifted, there is a warning.

    Args:
        volume: The volume, of shape [1, D, H, W], with its affine.
        spacing: The voxel spacing (D, H, W) that it will be resampled to, in mm.
        place: Where the volume is from, for the error message.

    Raises:
        EvaCoralbayError: If it is none, or too large.
    """
    problem = quality.find_problem(volume, quality.measure(volume), spacing=spacing)
    if problem is not None:
        raise EvaCoralbayError(f"{place}: {problem}.")
    doubt = quality.find_doubt(volume)
    if doubt is not None:
        logger.warning(f"{place} is used, but {doubt}.")


def _unpack_all(
    sources: Sequence[str], folder: pathlib.Path
) -> tuple[dict[str, pathlib.Path], dict[str, str]]:
    """Unpacks archives; returns the folder of each, and why others are left out."""
    unpacked: dict[str, pathlib.Path] = {}
    failures: dict[str, str] = {}
    for source in filter(_is_archive, sources):
        try:
            unpacked[source] = _unpack(source, folder)
        except DatasetError as error:
            failures[source] = str(error)
    return unpacked, failures


def _find_empty(
    sources: Sequence[str],
    found: Sequence[scan_search.Found],
    unpacked: Mapping[str, pathlib.Path],
    exclude: Sequence[str],
) -> dict[str, str]:
    """Returns what is wrong with the sources that hold no scan, unless the user excludes them."""
    files = {pathlib.PurePath(os.path.abspath(path)) for one in found for path in one.paths}
    held = {*files, *(folder for own in {file.parent for file in files} for folder in _up(own))}
    empty = {}
    for source in sources:
        is_file = source not in unpacked and not pathlib.Path(source).is_dir()
        if pathlib.PurePath(os.path.abspath(unpacked.get(source, source))) in held:
            continue
        if is_file and any(fnmatch.fnmatch(pathlib.Path(source).name, one) for one in exclude):
            continue
        empty[source] = _NO_SCAN if is_file else _NO_SCANS
    return empty


def _up(folder: pathlib.PurePath) -> list[pathlib.PurePath]:
    """Returns a folder and those that it lies in."""
    return [folder, *folder.parents]


def _is_archive(source: str) -> bool:
    return archives.is_archive(source) and pathlib.Path(source).is_file()


def _unpack(archive: str, folder: pathlib.Path) -> pathlib.Path:
    """Returns the folder with the content of an archive, which is unpacked there unless it was."""
    path = pathlib.Path(archive)
    ending = next(end for end in archives.ENDINGS if path.name.lower().endswith(end))
    target = folder / _state_of(archive)[:16] / path.name[: -len(ending)]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _atomic_files.temporary_folder(target) as temporary:
            archives.extract(archive, str(temporary))
            temporary.replace(target)
    return target


def _item(
    found: scan_search.Found,
    unpacked: Mapping[str, pathlib.Path],
    shared: Collection[pathlib.Path],
) -> Item:
    path = pathlib.Path(found.paths[0])
    if found.kind == "dicom" and path.parent not in shared:
        path = path.parent
    for archive, folder in unpacked.items():
        if path.is_relative_to(folder):
            inner, status = path.relative_to(folder), pathlib.Path(archive).stat()
            name = pathlib.Path(archive).name
            state = scan_search.digest(name, status.st_size, status.st_mtime_ns, str(inner))
            return Item(found, os.path.abspath(pathlib.Path(archive, inner)), state, found.case)
    return Item(found, os.path.abspath(path), found.identity(), found.case)


def _state_of(path: str) -> str:
    """Returns a hash of the place, the size and the time of a file."""
    status = pathlib.Path(path).stat()
    content = [os.path.abspath(path), status.st_size, status.st_mtime_ns]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
