"""Finds scans, sets aside what cannot be used with the reason, and prepares the others."""

import collections
import concurrent.futures.process
import contextlib
import fcntl
import fnmatch
import functools
import hashlib
import json
import math
import multiprocessing
import os
import pathlib
import re
import signal
import threading
import time
from typing import Callable, Dict, Iterator, List, Literal, NamedTuple, Sequence, Set, Tuple

import numpy as np
import torch
import tqdm
from eva.vision.data import tv_tensors as eva_tv_tensors
from loguru import logger
from rich import console as rich_console
from rich import table as rich_table

from eva_coralbay.data import geometry, prepared, store
from eva_coralbay.data.errors import DatasetError
from eva_coralbay.pretraining import dicom, manifest, quality

_NAME = "ct"
"""The name of the prepared scans in a store."""

_HU_RANGE = (-1024.0, 3071.0)
"""The HU that are kept: what twelve bits of a scanner hold."""

_BODY_ABOVE = -500.0
"""The scan is cropped to what is denser, in HU: the body with its skin, and the table."""

_SUFFIXES = (".nii.gz", ".nii")

_LABEL_FOLDERS = ("labelsTr", "labelsTs")
"""Folders of nnU-Net's and MSD's layout that hold label maps, which are not looked at."""

_SECONDS_PER_BYTE = 3e-8
"""About how long a core takes to look at a byte of a file."""

_SECONDS_PER_VOXEL = 3e-8
"""About how long a core takes to prepare a voxel, counted before and after resampling."""

_SAVE_SECONDS = 30.0
"""How often what was found is written while scans are looked at."""

_SAME_AS = "the same scan as "
"""How the reason begins that a duplicate is set aside for; the id of the other one follows."""

_MAX_ID_BYTES = 120
"""How long an id is at most: it is a part of the name of a file."""


class Found(NamedTuple):
    """What may be a scan."""

    case: str
    """Its id: the name of the folder that was searched and the path in it."""

    kind: Literal["nifti", "dicom"]
    """What it was found as."""

    paths: Tuple[str, ...]
    """Its files."""

    place: str
    """The hash of where it is."""


def prepare(
    sources: Sequence[str],
    out: str,
    *,
    spacing: Sequence[float] = (1.5, 1.5, 1.5),
    exclude: Sequence[str] = (),
    workers: int | None = None,
) -> manifest.Manifest:
    """Makes a store of all scans below some folders, or adds them to it.

    What was done before, by a call that ended or not, is not done again. The files of a DICOM
    series lie in one folder.

    The id of a scan is the name of its source and the path in it, with "__" between the parts; the
    first file of a series is named too where there are several in a folder. Scans of other places
    that would have the same id get the hash of their place behind it. The ids are all that the
    store and its manifest keep of names: nothing of a header but where the voxels lie.

    Args:
        sources: The folders to search; NIfTI files may be named as well.
        out: The folder of the store.
        spacing: The voxel spacing (D, H, W) to resample to, in mm.
        exclude: Patterns of paths, relative to their source, to leave out. What the store has of
            an earlier call stays in it.
        workers: The number of processes; if None, one a core, and fewer for little work.

    Returns:
        The manifest of the store.

    Raises:
        DatasetError: If there is nothing to be found, the store has another spacing, or the disk
            does not suffice.
    """
    depth, height, width = (float(length) for length in spacing)
    with _lock(out):
        content = _open_manifest(out, (depth, height, width))
        rows = {case.case: case for case in content.cases}
        found, left_out = _find(sources, exclude)
        if not found:
            raise DatasetError(
                f"No NIfTI file and no DICOM series in {', '.join(sources)}. Name folders of scans."
            )
        found = _name_apart(found, rows)
        _look_at(found, rows, out, content, workers)
        _set_duplicates_aside(rows)
        _write(out, content, rows)
        _prepare_found(found, rows, out, content, workers)
        content = _write(out, content, rows)
    _print_summary(content, left_out)
    return content


def load(found: Found) -> Tuple[eva_tv_tensors.Volume, None]:
    """Loads a scan, its HU clipped to what scanners give.

    Args:
        found: The scan.

    Returns:
        The scan of shape [1, D, H, W], and no label map.

    Raises:
        DatasetError: If it cannot be read.
    """
    volume = _read(found)
    return eva_tv_tensors.Volume(volume.clamp(*_HU_RANGE), affine=volume.affine), None


@contextlib.contextmanager
def _lock(out: str) -> Iterator[None]:
    """Keeps other processes from adding to a store, of which one would lose the rows of another."""
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, ".lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(
                f"Another process adds scans to '{out}'. Wait until it has ended."
            ) from error
        yield


def _open_manifest(out: str, spacing: Tuple[float, float, float]) -> manifest.Manifest:
    if not os.path.exists(os.path.join(out, manifest.NAME)):
        return manifest.Manifest(spacing=spacing, cases=())
    content = manifest.Manifest.read(out)
    if content.spacing != spacing:
        raise DatasetError(
            f"The scans in '{out}' have a spacing of {content.spacing} mm, not {spacing}: choose "
            "another --out, or the same --spacing."
        )
    return content


def _find(sources: Sequence[str], exclude: Sequence[str]) -> Tuple[List[Found], Dict[str, int]]:
    """Finds what may be scans, and counts the files that are left out, by the reason."""
    found: List[Found] = []
    left_out: Dict[str, int] = collections.Counter()
    unused = set(exclude)
    for source in sources:
        if not os.path.exists(source):
            raise DatasetError(f"'{source}' does not exist.")
        top = source if os.path.isdir(source) else os.path.dirname(source)
        for folder, names in tqdm.tqdm(
            _walk(source), desc=f"Searching {_name_of(source)}", unit="folder"
        ):
            below = os.path.relpath(folder, top or ".")
            kept = _filter(folder, names, below, exclude, left_out, unused)
            found += _find_in_folder(folder, kept, _name_of(top), below)
            left_out["neither NIfTI nor DICOM"] += len(kept)
    left_out["neither NIfTI nor DICOM"] -= sum(len(one.paths) for one in found)
    for pattern in sorted(unused):
        logger.warning(f"There is nothing to exclude that fits '{pattern}'.")
    return found, left_out


def _walk(source: str) -> Iterator[Tuple[str, List[str]]]:
    """Yields the folders below a source, and the names of their files, in order."""
    if os.path.isfile(source):
        yield os.path.dirname(source) or ".", [os.path.basename(source)]
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


def _filter(
    folder: str,
    names: Sequence[str],
    below: str,
    exclude: Sequence[str],
    left_out: Dict[str, int],
    unused: Set[str],
) -> List[str]:
    """Returns the names of files that may be scans, and strikes off the patterns that are used."""
    if set(pathlib.Path(below).parts) & set(_LABEL_FOLDERS):
        left_out["in a folder of label maps"] += len(names)
        return []
    kept = []
    for name in names:
        path = os.path.normpath(os.path.join(below, name))
        fitting = {pattern for pattern in exclude if fnmatch.fnmatch(path, pattern)}
        unused -= fitting
        if fitting:
            left_out["excluded"] += 1
        elif name.startswith("."):
            left_out["hidden"] += 1
        elif not _is_readable(os.path.join(folder, name)):
            left_out["a broken link, no file, or without permission to read it"] += 1
        else:
            kept.append(name)
    return kept


def _is_readable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.R_OK)


def _find_in_folder(folder: str, names: Sequence[str], source: str, below: str) -> Iterator[Found]:
    """Yields the scans among the files of a folder."""
    for name in names:
        if name.endswith(_SUFFIXES):
            path = os.path.join(folder, name)
            stem = name.removesuffix(".gz").removesuffix(".nii")
            yield Found(_case_id(source, below, stem), "nifti", (path,), _place(path))
    others = [name for name in names if not name.endswith(_SUFFIXES)]
    series = sorted(dicom.find_series(folder, others).values())
    for paths in series:
        part = os.path.basename(paths[0]).removesuffix(".dcm") if len(series) > 1 else ""
        place = _place(os.path.join(folder, part))
        yield Found(_case_id(source, below, part), "dicom", tuple(paths), place)


def _case_id(*parts: str) -> str:
    """Returns an id that is a name of a file too."""
    text = "__".join(part for part in parts if part not in ("", "."))
    case = re.sub(r"[^\w.-]+", "__", text)
    encoded = case.encode()
    if len(encoded) <= _MAX_ID_BYTES:
        return case
    return f"{_digest(text)}-{encoded[17 - _MAX_ID_BYTES:].decode(errors='ignore')}"


def _name_of(path: str) -> str:
    return os.path.basename(os.path.abspath(path))


def _place(path: str) -> str:
    return _digest(os.path.abspath(path))


def _name_apart(found: Sequence[Found], rows: Dict[str, manifest.Case]) -> List[Found]:
    """Gives those whose id a scan of another place has an id of their own, which stays theirs."""
    named: Dict[str, Found] = {}
    for one in found:
        apart = f"{one.case}-{one.place[:8]}"
        row, other = rows.get(one.case), named.get(one.case)
        if other is not None and other.place == one.place:
            continue
        is_taken = other is not None or (
            row is not None and row.place != one.place and row.identity != _identity(one)
        )
        case = apart if is_taken or apart in rows else one.case
        named.setdefault(case, one._replace(case=case))
    return list(named.values())


def _look_at(
    found: Sequence[Found],
    rows: Dict[str, manifest.Case],
    out: str,
    content: manifest.Manifest,
    workers: int | None,
) -> None:
    """Looks at what is new, and saves now and then what is known by then."""
    new = [
        one for one in found if one.case not in rows or rows[one.case].identity != _identity(one)
    ]
    size = sum(os.path.getsize(path) for one in new for path in one.paths)
    logger.info(
        f"{len(found)} found, {len(new)} of them ({size / 1e6:,.1f} MB) to be looked at: about "
        f"{size * _SECONDS_PER_BYTE / 60.0:.1f} minutes on one core."
    )
    saved = time.monotonic()
    try:
        for row in tqdm.tqdm(
            _map(_examine, new, workers), total=len(new), desc="Looking", unit="scan"
        ):
            rows[row.case] = row
            if time.monotonic() - saved > _SAVE_SECONDS:
                _write(out, content, rows)
                saved = time.monotonic()
    finally:
        _write(out, content, rows)


def _map(
    function: Callable[[Found], manifest.Case], items: Sequence[Found], workers: int | None
) -> Iterator[manifest.Case]:
    """Maps in as many processes as are worth their start."""
    number = workers or store.suitable_workers(path for item in items for path in item.paths)
    if min(number, len(items)) <= 1:
        yield from map(function, items)
        return
    with concurrent.futures.ProcessPoolExecutor(
        number,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
    ) as pool:
        try:
            yield from pool.map(function, items)
        except concurrent.futures.process.BrokenProcessPool as error:
            raise DatasetError(
                "A process that looked at the scans was killed. If there was too little memory, "
                "run it with fewer --workers. What was looked at is not looked at again."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Sets up a process, which ends with its parent whatever ends that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _examine(found: Found) -> manifest.Case:
    """Looks whether something is a scan."""
    row = manifest.Case(
        case=found.case,
        kind=found.kind,
        identity=_identity(found),
        place=found.place,
        status="quarantined",
    )
    try:
        volume = _read(found)
        statistics = quality.measure(volume)
        problem = quality.find_problem(volume, statistics)
    except DatasetError as error:
        return row.model_copy(
            update={"reason": _without_place(str(error), found.case, found.paths[0])}
        )
    except Exception as error:  # one file that no check foresaw must not stop the others
        return row.model_copy(update={"reason": f"unreadable ({type(error).__name__})"})
    return row.model_copy(
        update={
            "status": "found" if problem is None else "quarantined",
            "reason": problem,
            "sha256": _hash(volume),
            "source": _describe(geometry.Grid.of(volume)),
            "hounsfield": statistics,
        }
    )


def _read(found: Found) -> eva_tv_tensors.Volume:
    if found.kind == "dicom":
        return dicom.read_series(found.paths, case=found.case)
    return geometry.read_scan(found.paths[0], case=found.case)


def _set_duplicates_aside(rows: Dict[str, manifest.Case]) -> None:
    """Keeps the first of equal scans, one that is prepared before one that is not."""
    first: Dict[str, str] = {}
    usable = [row for row in rows.values() if row.status != "quarantined" or _is_duplicate(row)]
    for row in sorted(usable, key=lambda row: (row.status != "prepared", row.case)):
        original = first.setdefault(str(row.sha256), row.case)
        update = {}
        if original != row.case:
            update = {"status": "quarantined", "reason": f"{_SAME_AS}'{original}'"}
        elif _is_duplicate(row):  # the one that it is a duplicate of has changed
            update = {"status": "found", "reason": None}
        rows[row.case] = row.model_copy(update=update)


def _is_duplicate(row: manifest.Case) -> bool:
    return row.reason is not None and row.reason.startswith(_SAME_AS)


def _prepare_found(
    found: Sequence[Found],
    rows: Dict[str, manifest.Case],
    out: str,
    content: manifest.Manifest,
    workers: int | None,
) -> None:
    """Prepares all scans that are not yet, and sets those aside that cannot be."""
    scans = store.PreparedStore(
        out, name=_NAME, preparation=prepared.Preparation(content.spacing, _BODY_ABOVE)
    )
    sources = [
        store.Source(one.case, one.paths, functools.partial(load, one), grid.extent_mm)
        for one in found
        if rows[one.case].status != "quarantined" and (grid := rows[one.case].source)
    ]
    _log_time([rows[source.case] for source in scans.missing(sources)], content.spacing)
    problems: Dict[str, str] = {}
    try:
        scans.prepare(sources, workers=workers)
    except store.StoreError as error:
        if not error.problems:
            raise
        problems = error.problems
    for source in sources:
        rows[source.case] = _complete(rows[source.case], scans, source, out, problems)


def _complete(
    row: manifest.Case,
    scans: store.PreparedStore,
    source: store.Source,
    out: str,
    problems: Dict[str, str],
) -> manifest.Case:
    """Returns the row of a scan after the preparation."""
    if row.case in problems:
        problem = _without_place(problems[row.case], row.case, source.files[0])
        return row.model_copy(update={"status": "quarantined", "reason": problem})
    path, key = scans.locate(source)
    return row.model_copy(
        update={
            "status": "prepared",
            "prepared": _describe(scans.open(source).grid),
            "path": os.path.relpath(path, out),
            "key": key,
        }
    )


def _log_time(rows: Sequence[manifest.Case], spacing: Sequence[float]) -> None:
    """Says about how long the preparation will take."""
    grids = [row.source for row in rows if row.source is not None]
    voxels = sum(
        math.prod(grid.shape) + math.prod(grid.extent_mm) / math.prod(spacing) for grid in grids
    )
    minutes = voxels * _SECONDS_PER_VOXEL / 60.0
    logger.info(f"{len(rows)} scans to prepare: about {minutes:.1f} minutes on one core.")


def _write(
    out: str, content: manifest.Manifest, rows: Dict[str, manifest.Case]
) -> manifest.Manifest:
    """Writes the manifest and reads it again."""
    cases = tuple(rows[case] for case in sorted(rows))
    manifest.Manifest(spacing=content.spacing, cases=cases).write(out)
    return manifest.Manifest.read(out)


def _print_summary(content: manifest.Manifest, left_out: Dict[str, int]) -> None:
    table = rich_table.Table(title="Scans of the store")
    table.add_column("status")
    table.add_column("reason", overflow="fold")
    table.add_column("scans", justify="right")
    table.add_row("prepared", "", str(len(content.prepared)))
    reasons = collections.Counter(
        _generalize(case.reason or "") for case in content.cases if case.status == "quarantined"
    )
    for reason, number in reasons.most_common():
        table.add_row("set aside", reason, str(number))
    waiting = sum(case.status == "found" for case in content.cases)
    if waiting:
        table.add_row("found", "to be prepared when their source is named again", str(waiting))
    for reason, number in left_out.items():
        if number:
            table.add_row("not looked at", reason, f"{number} files")
    rich_console.Console().print(table)


def _generalize(reason: str) -> str:
    """Returns a reason without what differs from scan to scan."""
    return re.sub(r"'[^']*'", "'...'", re.sub(r"-?\d+(\.\d+)?(e[+-]?\d+)?", "N", reason))


def _without_place(message: str, case: str, path: str) -> str:
    """Returns an error message in a line, without the case and the folder."""
    line = message.removeprefix(f"Case '{case}', ").replace(os.path.dirname(path) + os.sep, "")
    return " ".join(line.split())


def _describe(grid: geometry.Grid) -> manifest.Geometry:
    spacing = [round(value, 6) for value in geometry.spacing(grid.affine)]
    return manifest.Geometry(shape=grid.shape, spacing=(spacing[0], spacing[1], spacing[2]))


def _hash(volume: eva_tv_tensors.Volume) -> str:
    """Returns the hash of the HU and their grid, whatever the file they come from."""
    # 0 is added so that there is no -0
    affine = np.asarray(volume.affine).round(3) + 0.0
    grid = json.dumps([list(volume.shape), affine.tolist()])
    digest = hashlib.sha256(grid.encode())
    digest.update(volume.as_subclass(torch.Tensor).round().to(torch.int32).numpy().tobytes())
    return digest.hexdigest()


def _identity(found: Found) -> str:
    """Returns what the files are by their names, sizes and times."""
    status = [(os.path.basename(path), os.stat(path)) for path in found.paths]
    return _digest(*((name, found.st_size, found.st_mtime_ns) for name, found in status))


def _digest(*content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
