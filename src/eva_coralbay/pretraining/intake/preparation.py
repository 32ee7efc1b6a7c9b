"""Finds scans, sets aside what cannot be used with the reason, and prepares the others."""

import collections
import contextlib
import fnmatch
import functools
import hashlib
import json
import math
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, NoReturn

import numpy as np
import torch
import tqdm
from eva.vision.data import tv_tensors as eva_tv_tensors
from loguru import logger

from eva_coralbay import _file_locks
from eva_coralbay.data import dicom, nifti, preparation, quality, store
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import workers as workers_lib
from eva_coralbay.errors import DatasetError
from eva_coralbay.pretraining import manifest

_NAME = "ct"
"""The name of the prepared scans in a store."""

_HU_RANGE = (-1024.0, 3071.0)
"""The HU that are kept: what twelve bits of a scanner hold."""

_BODY_ABOVE = -500.0
"""The scan is cropped to what is denser, in HU: the body with its skin, and the table."""

_NIFTI_NAME = re.compile(r"(.+)\.nii(\.gz)?", re.IGNORECASE | re.DOTALL)
"""The name of a NIfTI file."""

_PAIR_NAME = re.compile(r"(.+)\.img", re.IGNORECASE | re.DOTALL)
"""The name of the voxels of a scan whose header is another file."""

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

_EXCLUDED = "excluded"
"""The reason that a scan is set aside for which an earlier call took, and this one excludes."""

_KILLED = f"{workers_lib.KILLED}, perhaps as there was too little memory"
"""The reason that a scan is set aside for when its process was killed: it is tried again."""

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


def prepare(
    sources: Sequence[str],
    out: str,
    *,
    spacing: Sequence[float] = (1.5, 1.5, 1.5),
    exclude: Sequence[str] = (),
    workers: int | None = None,
) -> manifest.Manifest:
    """Makes a store of all scans below some folders, or adds them to it.

    What was done before, by a call that ended or not, is not done again; the prepared scans are
    read as a whole, though, and damaged ones are replaced. The files of a DICOM series lie in one
    folder.

    The id of a scan is the name of its source and the path in it, with "__" between the parts; the
    first file of a series is named too where there are several in a folder. Scans of other places
    that would have the same id get the hash of their place behind it. The ids are all that the
    store and its manifest keep of names: nothing of a header but where the voxels lie.

    A scan whose process is killed is set aside, and tried again by the next call.

    Args:
        sources: The folders to search; NIfTI files may be named as well.
        out: The folder of the store.
        spacing: The voxel spacing (D, H, W) to resample to, in mm.
        exclude: Patterns of paths, relative to their source, to leave out. What the store has of
            them from an earlier call is set aside, and is taken again by a call that finds it and
            does not exclude it.
        workers: The number of processes; if None, one a core, and fewer for little work.

    Returns:
        The manifest of the store.

    Raises:
        DatasetError: If there is nothing to be found, a pattern to exclude fits nothing, the store
            has another spacing, or the disk does not suffice.
    """
    wanted = grid_lib.check_spacing(spacing)
    with _lock(out):
        content = _open_manifest(out, wanted)
        rows = {case.case: case for case in content.cases}
        found, excluded, left_out = _find(sources, exclude)
        if not (found or excluded):
            raise DatasetError(
                f"No NIfTI file and no DICOM series in {', '.join(sources)}. Name folders of scans."
            )
        _set_excluded_aside(excluded, rows)
        found = _name_apart(found, rows)
        _look_at(found, rows, out, content, workers)
        _set_duplicates_aside(rows)
        _write(out, content, rows)
        _prepare_found(found, rows, out, content, workers)
        content = _write(out, content, rows)
    _log_left_out(left_out)
    return content


def count_reasons(content: manifest.Manifest) -> dict[str, int]:
    """Counts the scans that were set aside.

    Args:
        content: The manifest of a store.

    Returns:
        The number of scans by reason, the most frequent first. What differs from scan to scan in a
        reason is left out.
    """
    reasons = collections.Counter(
        _generalize(case.reason or "") for case in content.cases if case.status == "quarantined"
    )
    return dict(reasons.most_common())


def load(found: Found) -> tuple[eva_tv_tensors.Volume, None]:
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

    def refuse() -> NoReturn:
        raise DatasetError(f"Another process adds scans to '{out}'. Wait until it has ended.")

    os.makedirs(out, exist_ok=True)
    with _file_locks.locked(os.path.join(out, ".lock"), on_busy=refuse):
        yield


def _open_manifest(out: str, spacing: tuple[float, float, float]) -> manifest.Manifest:
    if not os.path.exists(os.path.join(out, manifest.NAME)):
        return manifest.Manifest(spacing=spacing, cases=())
    content = manifest.Manifest.read(out)
    if content.spacing != spacing:
        raise DatasetError(
            f"The scans in '{out}' have a spacing of {content.spacing} mm, not {spacing}: choose "
            "another --out, or the same --spacing."
        )
    return content


def _find(
    sources: Sequence[str], exclude: Sequence[str]
) -> tuple[list[Found], list[Found], dict[str, int]]:
    """Finds what may be scans, and what of them is excluded; counts the files that are left out.

    Returns:
        What is taken, what is excluded, and the number of other files by the reason.
    """
    found: list[Found] = []
    excluded: list[Found] = []
    left_out: dict[str, int] = collections.Counter()
    fitting = dict.fromkeys(exclude, False)
    for source in sources:
        if not os.path.exists(source):
            raise DatasetError(f"'{source}' does not exist.")
        top = source if os.path.isdir(source) else os.path.dirname(source)
        for folder, names in tqdm.tqdm(
            _walk(source), desc=f"Searching {_name_of(source)}", unit="folder"
        ):
            below = os.path.relpath(folder, top or ".")
            dropped = _fit(names, below, fitting)
            usable = _filter(folder, names, below, dropped, left_out)
            left_out["neither NIfTI nor DICOM"] += len(set(usable) - dropped)
            # the excluded ones too, so that an id does not depend on what is excluded
            for one in _find_in_folder(folder, usable, _name_of(top), below):
                kept = tuple(path for path in one.paths if os.path.basename(path) not in dropped)
                left_out["neither NIfTI nor DICOM"] -= len(kept)
                if kept:
                    found.append(one._replace(paths=kept))
                else:
                    excluded.append(one)
    _check_fitting(fitting)
    return found, excluded, left_out


def _check_fitting(fitting: dict[str, bool]) -> None:
    """Checks that all patterns fit: one that does not would let in what it is to keep out."""
    unfit = [f"'{pattern}'" for pattern, fits in fitting.items() if not fits]
    if unfit:
        raise DatasetError(
            f"There is nothing to exclude that fits {', '.join(unfit)}; nothing is prepared. "
            "Patterns are of paths below SRC, in which * stands for anything: '*/case_007*'."
        )


def _walk(source: str) -> Iterator[tuple[str, list[str]]]:
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
    return os.path.isfile(path) and os.access(path, os.R_OK)


def _find_in_folder(folder: str, names: Sequence[str], source: str, below: str) -> Iterator[Found]:
    """Yields the scans among the files of a folder."""
    nifti = _find_nifti(names)
    for stem, files in nifti:
        paths = tuple(os.path.join(folder, name) for name in files)
        yield Found(_case_id(source, below, stem), "nifti", paths, _place(paths[0]))
    taken = {name for _, files in nifti for name in files}
    others = [name for name in names if name not in taken]
    series = sorted(dicom.find_series(folder, others).values())
    for paths in series:
        part = os.path.basename(paths[0]).removesuffix(".dcm") if len(series) > 1 else ""
        place = _place(os.path.join(folder, part))
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
    return f"{_digest(text)}-{encoded[17 - _MAX_ID_BYTES :].decode(errors='ignore')}"


def _name_of(path: str) -> str:
    return os.path.basename(os.path.abspath(path))


def _place(path: str) -> str:
    return _digest(os.path.abspath(path))


def _set_excluded_aside(excluded: Sequence[Found], rows: dict[str, manifest.Case]) -> None:
    """Takes what is excluded now out of what an earlier call took."""
    places = {one.place for one in excluded}
    known = {(one.case, _identity(one)) for one in excluded}
    for row in list(rows.values()):
        # a source that was moved has other places
        if row.place not in places and (row.case, row.identity) not in known:
            continue
        _warn_excluded(row)
        rows[row.case] = row.model_copy(update={"status": "quarantined", "reason": _EXCLUDED})


def _warn_excluded(row: manifest.Case) -> None:
    if row.status != "quarantined":
        logger.warning(
            f"Scan '{row.case}' of the store is excluded now, so no training will use it. What was "
            "trained on the store before may have seen it: train it again from the start."
        )


def _name_apart(found: Sequence[Found], rows: dict[str, manifest.Case]) -> list[Found]:
    """Gives those whose id a scan of another place has an id of their own, which stays theirs."""
    named: dict[str, Found] = {}
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
    rows: dict[str, manifest.Case],
    out: str,
    content: manifest.Manifest,
    workers: int | None,
) -> None:
    """Looks at what is new, and saves now and then what is known by then."""
    new = [one for one in found if _is_new(one, rows.get(one.case))]
    size = sum(os.path.getsize(path) for one in new for path in one.paths)
    logger.info(
        f"{len(found)} found, {len(new)} of them ({size / 1e6:,.1f} MB) to be looked at: about "
        f"{size * _SECONDS_PER_BYTE / 60.0:.1f} minutes on one core."
    )
    saved = time.monotonic()
    examine = functools.partial(_examine, spacing=content.spacing)
    try:
        for row in tqdm.tqdm(
            _map(examine, new, workers), total=len(new), desc="Looking", unit="scan"
        ):
            rows[row.case] = row
            if time.monotonic() - saved > _SAVE_SECONDS:
                _write(out, content, rows)
                saved = time.monotonic()
    finally:
        _write(out, content, rows)


def _is_new(found: Found, row: manifest.Case | None) -> bool:
    """Returns whether something is to be looked at, or once more."""
    return row is None or row.identity != _identity(found) or row.reason in (_EXCLUDED, _KILLED)


def _map(
    function: Callable[[Found], manifest.Case], items: Sequence[Found], workers: int | None
) -> Iterator[manifest.Case]:
    """Maps in as many processes as are worth their start."""
    number = workers or workers_lib.suitable_number(path for item in items for path in item.paths)
    if min(number, len(items)) <= 1:
        yield from map(function, items)
        return
    with contextlib.closing(workers_lib.in_processes(function, items, number)) as results:
        for item, row in results:
            if row is None:
                _log_killed(item)
            yield row or _row_of(item).model_copy(update={"reason": _KILLED})


def _log_killed(found: Found) -> None:
    logger.error(
        f"'{found.paths[0]}' is set aside: {_KILLED}. Run `eva-coralbay pretrain prepare` again "
        "with fewer --workers, or with an --exclude that fits it."
    )


def _row_of(found: Found) -> manifest.Case:
    """Returns the row of what is set aside, as far as it is known before it is looked at."""
    return manifest.Case(
        case=found.case,
        kind=found.kind,
        identity=_identity(found),
        place=found.place,
        status="quarantined",
    )


def _examine(found: Found, *, spacing: Sequence[float]) -> manifest.Case:
    """Looks whether something is a scan that can be resampled to a spacing."""
    row = _row_of(found)
    try:
        volume = _read(found)
        statistics = quality.measure(volume)
        problem = quality.find_problem(volume, statistics, spacing=spacing) or quality.find_lack(
            grid_lib.Grid.of(volume)
        )
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
            "source": _describe(grid_lib.Grid.of(volume)),
            "hounsfield": statistics,
        }
    )


def _read(found: Found) -> eva_tv_tensors.Volume:
    if found.kind == "dicom":
        return dicom.read_series(found.paths, case=found.case)
    return nifti.read_scan(found.paths[0], case=found.case)


def _set_duplicates_aside(rows: dict[str, manifest.Case]) -> None:
    """Keeps the first of equal scans, one that is prepared before one that is not."""
    # a scan that is excluded at one place is not to be trained on at another
    first = {row.sha256: row.case for row in rows.values() if row.sha256 and _is_excluded(row)}
    usable = [row for row in rows.values() if row.status != "quarantined" or _is_duplicate(row)]
    for row in sorted(usable, key=lambda row: (row.status != "prepared", row.case)):
        original = first.setdefault(str(row.sha256), row.case)
        update = {}
        if original != row.case:
            if _is_excluded(rows[original]):
                _warn_excluded(row)
            update = {"status": "quarantined", "reason": f"{_SAME_AS}'{original}'"}
        elif _is_duplicate(row):  # the one that it is a duplicate of has changed
            update = {"status": "found", "reason": None}
        rows[row.case] = row.model_copy(update=update)


def _is_excluded(row: manifest.Case) -> bool:
    return row.reason == _EXCLUDED


def _is_duplicate(row: manifest.Case) -> bool:
    return row.reason is not None and row.reason.startswith(_SAME_AS)


def _prepare_found(
    found: Sequence[Found],
    rows: dict[str, manifest.Case],
    out: str,
    content: manifest.Manifest,
    workers: int | None,
) -> None:
    """Prepares all scans that are not yet, and sets those aside that cannot be."""
    scans = store.PreparedStore(
        out, name=_NAME, preparation=preparation.Preparation(content.spacing, _BODY_ABOVE)
    )
    sources = [
        store.Source(one.case, one.paths, functools.partial(load, one), grid.extent_mm)
        for one in found
        if rows[one.case].status != "quarantined" and (grid := rows[one.case].source)
    ]
    missing = scans.verify(sources)
    _log_time([rows[source.case] for source in missing], content.spacing)
    problems: dict[str, str] = {}
    try:
        scans.prepare(missing, workers=workers)
    except store.StoreError as error:
        if not error.problems:
            raise
        problems = error.problems
    for one in found:
        if workers_lib.KILLED in problems.get(one.case, ""):
            problems[one.case] = _KILLED
            _log_killed(one)
    for source in sources:
        rows[source.case] = _complete(rows[source.case], scans, source, out, problems)


def _complete(
    row: manifest.Case,
    scans: store.PreparedStore,
    source: store.Source,
    out: str,
    problems: dict[str, str],
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
    out: str, content: manifest.Manifest, rows: dict[str, manifest.Case]
) -> manifest.Manifest:
    """Writes the manifest and reads it again."""
    cases = tuple(rows[case] for case in sorted(rows))
    manifest.Manifest(spacing=content.spacing, cases=cases).write(out)
    return manifest.Manifest.read(out)


def _log_left_out(left_out: dict[str, int]) -> None:
    reasons = [f"{number} {reason}" for reason, number in left_out.items() if number]
    if reasons:
        logger.info(f"Files that were not looked at: {'; '.join(reasons)}.")


def _generalize(reason: str) -> str:
    """Returns a reason without what differs from scan to scan."""
    # but no digit of a name such as MONOCHROME1
    numbers = r"(?<![A-Z\d])-?\d+(\.\d+)?(e[+-]?\d+)?"
    return re.sub(r"'[^']*'", "'...'", re.sub(numbers, "N", reason))


def _without_place(message: str, case: str, path: str) -> str:
    """Returns an error message in a line, without the case and the folder."""
    line = message.removeprefix(f"Case '{case}', ").replace(os.path.dirname(path) + os.sep, "")
    return " ".join(line.split())


def _describe(grid: grid_lib.Grid) -> manifest.Geometry:
    spacing = [round(value, 6) for value in grid_lib.spacing(grid.affine)]
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
