"""Makes a store for pre-training of all scans below some folders, or adds them to it."""

import collections
import contextlib
import functools
import math
import os
import pathlib
import re
import time
from collections.abc import Iterator, Sequence

from loguru import logger

from eva_coralbay import _atomic_files, _file_locks, _messages
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import preparation, scan_search, store
from eva_coralbay.data import workers as workers_lib
from eva_coralbay.errors import DatasetError
from eva_coralbay.pretraining import manifest
from eva_coralbay.pretraining.intake import examine as examine_lib
from eva_coralbay.tasks import facts

_NAME = "ct"
"""The name of the prepared scans in a store."""

_BODY_ABOVE = -500.0
"""The scan is cropped to what is denser, in HU: the body with its skin, and the table."""

_SECONDS_PER_VOXEL = 3e-8
"""About how long a core takes to prepare a voxel, counted before and after resampling."""

SAVE_SECONDS = 30.0
"""How often what was found is written while scans are looked at, at most."""

PAUSE_PER_SAVING = 20.0
"""How many times as long as it took to write what was found the next time is waited for."""

_SAME_AS = "the same scan as "
"""How the reason begins that a duplicate is set aside for; the id of the other one follows."""

_EXCLUDED = "excluded"
"""The reason that a scan is set aside for which an earlier call took, and this one excludes."""


def prepare(
    sources: Sequence[str],
    out: str,
    *,
    spacing: Sequence[float] = facts.SPACING_MM,
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

    A scan whose process is killed, or that cannot be read or prepared for a reason outside the
    scan (the disk, the memory), is set aside for now, and tried again by the next call.

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
        found, excluded, left_out = scan_search.find(sources, exclude)
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


def count_failures(content: manifest.Manifest) -> int:
    """Returns how many scans are set aside for now only, as the next call tries them again."""
    return sum(examine_lib.is_tried_again(case.reason) for case in content.cases)


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


@contextlib.contextmanager
def _lock(out: str) -> Iterator[None]:
    """Keeps other processes from adding to a store, of which one would lose the rows of another."""
    if not out:  # an empty variable is not the current folder
        raise DatasetError("The path of the store is empty. Name a folder.")
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)

    def refuse() -> None:
        raise DatasetError(f"Another process adds scans to '{out}'. Wait until it has ended.")

    with _file_locks.locked(pathlib.Path(out, ".lock"), on_busy=refuse):
        _atomic_files.remove_leftovers(out)
        yield


def _open_manifest(out: str, spacing: tuple[float, float, float]) -> manifest.Manifest:
    if not pathlib.Path(out, manifest.NAME).exists():
        return manifest.Manifest(spacing=spacing, cases=())
    content = manifest.Manifest.read(out)
    if content.spacing != spacing:
        raise DatasetError(
            f"The scans in '{out}' have a spacing of {content.spacing} mm, not {spacing}: choose "
            "another --out, or the same --spacing."
        )
    return content


def _set_excluded_aside(
    excluded: Sequence[scan_search.Found], rows: dict[str, manifest.Case]
) -> None:
    """Sets aside the scans of earlier calls that are excluded now."""
    places = {one.place for one in excluded}
    known = {(one.case, one.identity()) for one in excluded}
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


def _name_apart(
    found: Sequence[scan_search.Found], rows: dict[str, manifest.Case]
) -> list[scan_search.Found]:
    """Gives those whose id a scan of another place has an id of their own, which stays theirs."""
    named: dict[str, scan_search.Found] = {}
    for one in found:
        apart = f"{one.case}-{one.place[:8]}"
        row, other = rows.get(one.case), named.get(one.case)
        if other is not None and other.place == one.place:
            continue
        is_taken = other is not None or (
            row is not None and row.place != one.place and row.identity != one.identity()
        )
        case = apart if is_taken or apart in rows else one.case
        named.setdefault(case, one._replace(case=case))
    return list(named.values())


def _look_at(
    found: Sequence[scan_search.Found],
    rows: dict[str, manifest.Case],
    out: str,
    content: manifest.Manifest,
    workers: int | None,
) -> None:
    """Examines the new scans, and saves the state from time to time."""
    new = [one for one in found if _is_new(one, rows.get(one.case))]
    size, minutes = examine_lib.estimate(new)
    logger.info(
        f"{len(found)} found, {len(new)} of them ({size / 1e6:,.1f} MB) to be looked at: "
        f"{_messages.minutes(minutes)} on one core."
    )
    saved, pause = time.monotonic(), SAVE_SECONDS
    try:
        for row in examine_lib.examine(new, spacing=content.spacing, workers=workers):
            rows[row.case] = row
            if (started := time.monotonic()) - saved > pause:
                _write(out, content, rows)
                saved = time.monotonic()
                # all rows are written each time, which is not to take longer than the work
                pause = max(SAVE_SECONDS, PAUSE_PER_SAVING * (saved - started))
    finally:
        _write(out, content, rows)


def _is_new(found: scan_search.Found, row: manifest.Case | None) -> bool:
    """Returns whether a scan must be examined, or examined again."""
    if row is None or row.reason == _EXCLUDED or examine_lib.is_tried_again(row.reason):
        return True
    return row.identity != found.identity()


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
    found: Sequence[scan_search.Found],
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
        store.Source(one.case, one.paths, functools.partial(examine_lib.load, one), grid.extent_mm)
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
            problems[one.case] = examine_lib.KILLED
            examine_lib.log_killed(one)
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
        problem = problems[row.case]
        if problem != examine_lib.KILLED:
            # it was read well before: what is wrong with it shows when it is looked at again
            place = examine_lib.without_place(problem, row.case, source.files[0])
            problem = f"{examine_lib.FAILED}{place}"
        return row.model_copy(update={"status": "quarantined", "reason": problem})
    path, key = scans.locate(source)
    return row.model_copy(
        update={
            "status": "prepared",
            "prepared": examine_lib.describe(scans.open(source).grid),
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
    logger.info(f"{len(rows)} scans to prepare: {_messages.minutes(minutes)} on one core.")


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
