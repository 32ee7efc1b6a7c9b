"""Finds scans, sets aside what cannot be used with the reason, and prepares the others."""

import collections
import concurrent.futures
import fnmatch
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
import re
import time
from typing import Dict, Iterable, Iterator, List, Literal, NamedTuple, Sequence, Tuple

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

_SECONDS_PER_VOXEL = 6e-8
"""About how long a core takes for a voxel, before and after resampling."""

_SAVE_SECONDS = 30.0
"""How often what was found is written while scans are looked at."""

_MAX_WORKERS = 8
"""How many processes there are, unless said otherwise."""

_BYTES_PER_WORKER = 64 * 2**20
"""How much there must be to read for another process, which takes seconds to start."""


class Found(NamedTuple):
    """What may be a scan."""

    case: str
    """Its id: the name of the source and the path in it."""

    kind: Literal["nifti", "dicom"]
    """What it was found as."""

    paths: Tuple[str, ...]
    """Its files."""


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

    Args:
        sources: The folders to search; NIfTI files may be named as well.
        out: The folder of the store.
        spacing: The voxel spacing (D, H, W) to resample to, in mm.
        exclude: Patterns of paths, relative to their source, to leave out.
        workers: The number of processes; if None, one a core, and fewer for little work.

    Returns:
        The manifest of the store.

    Raises:
        DatasetError: If there is nothing to be found, the store has another spacing, or the disk
            does not suffice.
    """
    depth, height, width = (float(length) for length in spacing)
    content = _open_manifest(out, (depth, height, width))
    found, left_out = _find(sources, exclude)
    if not found:
        raise DatasetError(
            f"No NIfTI file and no DICOM series in {', '.join(sources)}. Name folders of scans."
        )
    rows = {case.case: case for case in content.cases}
    _look_at(found, rows, out, content, workers)
    _set_duplicates_aside(rows)
    content = _write(out, content, rows)
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


def _find(
    sources: Sequence[str], exclude: Sequence[str]
) -> Tuple[List[Found], Dict[str, int]]:
    """Finds what may be scans, and counts what is left out, by the reason."""
    found: List[Found] = []
    left_out: Dict[str, int] = collections.Counter()
    for source in sources:
        if not os.path.exists(source):
            raise DatasetError(f"'{source}' does not exist.")
        name = pathlib.Path(source).resolve().name
        for folder, names in tqdm.tqdm(_walk(source), desc=f"Searching {name}", unit="folder"):
            below = os.path.relpath(folder, source) if os.path.isdir(source) else ""
            kept = _filter(names, below, exclude, left_out)
            scans = [entry for entry in kept if entry.endswith(_SUFFIXES)]
            others = [entry for entry in kept if not entry.endswith(_SUFFIXES)]
            for entry in scans:
                stem = entry.removesuffix(".gz").removesuffix(".nii")
                path = os.path.join(folder, entry)
                found.append(Found(_case_id(name, below, stem), "nifti", (path,)))
            series = dicom.find_series(folder, others)
            for index, uid in enumerate(sorted(series)):
                part = f"series{index + 1}" if len(series) > 1 else ""
                found.append(Found(_case_id(name, below, part), "dicom", tuple(series[uid])))
            left_out["neither NIfTI nor DICOM"] += len(others) - sum(map(len, series.values()))
    return _name_apart(found), left_out


def _walk(source: str) -> Iterator[Tuple[str, List[str]]]:
    """Yields the folders below a source, and the names of their files, in order."""
    if os.path.isfile(source):
        yield os.path.dirname(source) or ".", [os.path.basename(source)]
        return
    for folder, folders, names in os.walk(source):
        folders.sort()
        yield folder, sorted(names)


def _filter(
    names: Sequence[str], below: str, exclude: Sequence[str], left_out: Dict[str, int]
) -> List[str]:
    """Returns the names of files that are neither excluded nor in a folder of label maps."""
    if set(pathlib.Path(below).parts) & set(_LABEL_FOLDERS):
        left_out["in a folder of label maps"] += len(names)
        return []
    kept = [
        name
        for name in names
        if not any(
            fnmatch.fnmatch(os.path.normpath(os.path.join(below, name)), pattern)
            for pattern in exclude
        )
    ]
    left_out["excluded"] += len(names) - len(kept)
    return kept


def _case_id(*parts: str) -> str:
    """Returns an id that is a name of a file too."""
    text = "__".join(part for part in parts if part not in ("", "."))
    return re.sub(r"[^\w.-]+", "__", text)


def _name_apart(found: Sequence[Found]) -> List[Found]:
    """Gives those of one id, which are in sources of one name, the hash of their place too."""
    counts = collections.Counter(one.case for one in found)
    return [
        one
        if counts[one.case] == 1
        else one._replace(case=f"{one.case}-{_digest(os.path.abspath(one.paths[0]))[:8]}")
        for one in found
    ]


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
    logger.info(f"{len(found)} found, {len(new)} of them ({size / 1e6:,.1f} MB) to be looked at.")
    saved = time.monotonic()
    for row in tqdm.tqdm(
        _map(_examine, new, workers, size), total=len(new), desc="Looking", unit="scan"
    ):
        rows[row.case] = row
        if time.monotonic() - saved > _SAVE_SECONDS:
            _write(out, content, rows)
            saved = time.monotonic()


def _map(function, items: Sequence[Found], workers: int | None, size: int) -> Iterable:
    """Maps in as many processes as are worth their start."""
    number = workers or min(os.cpu_count() or 1, _MAX_WORKERS, size // _BYTES_PER_WORKER)
    if number <= 1:
        yield from map(function, items)
        return
    with concurrent.futures.ProcessPoolExecutor(
        number,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    ) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)


def _examine(found: Found) -> manifest.Case:
    """Looks whether something is a scan."""
    row = manifest.Case(
        case=found.case, kind=found.kind, identity=_identity(found), status="quarantined"
    )
    try:
        volume = _read(found)
    except DatasetError as error:
        return row.model_copy(update={"reason": _without_place(str(error), found)})
    statistics = quality.measure(volume)
    problem = quality.find_problem(volume, statistics)
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
    usable = [row for row in rows.values() if row.status != "quarantined"]
    for row in sorted(usable, key=lambda row: (row.status != "prepared", row.case)):
        original = first.setdefault(str(row.sha256), row.case)
        if original != row.case:
            update = {"status": "quarantined", "reason": f"the same scan as '{original}'"}
            rows[row.case] = row.model_copy(update=update)


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
        store.Source(one.case, one.paths, functools.partial(load, one))
        for one in found
        if rows[one.case].status != "quarantined"
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
        update = {"status": "quarantined", "reason": f"cannot be prepared: {problems[row.case]}"}
        return row.model_copy(update=update)
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
    voxels = 0.0
    for row in rows:
        if row.source is not None:
            lengths = np.array(row.source.shape, dtype=np.float64)
            resampled = lengths * row.source.spacing / spacing
            voxels += lengths.prod() + resampled.prod()
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
    for reason, number in left_out.items():
        if number:
            table.add_row("not looked at", reason, f"{number} files")
    rich_console.Console().print(table)


def _generalize(reason: str) -> str:
    """Returns a reason without what differs from scan to scan."""
    return re.sub(r"'[^']*'", "'...'", re.sub(r"-?\d+(\.\d+)?(e[+-]?\d+)?", "N", reason))


def _without_place(message: str, found: Found) -> str:
    """Returns an error message without the case and the folder, which the row has or not."""
    message = message.removeprefix(f"Case '{found.case}', ")
    return message.replace(os.path.dirname(found.paths[0]) + os.sep, "")


def _describe(grid: geometry.Grid) -> manifest.Geometry:
    spacing = [round(value, 6) for value in geometry.spacing(grid.affine)]
    return manifest.Geometry(shape=grid.shape, spacing=(spacing[0], spacing[1], spacing[2]))


def _hash(volume: eva_tv_tensors.Volume) -> str:
    """Returns the hash of the HU and their grid, whatever the file they come from."""
    grid = json.dumps([list(volume.shape), np.asarray(volume.affine).round(3).tolist()])
    digest = hashlib.sha256(grid.encode())
    digest.update(volume.as_subclass(torch.Tensor).round().to(torch.int32).numpy().tobytes())
    return digest.hexdigest()


def _identity(found: Found) -> str:
    """Returns what the files are by their names, sizes and times."""
    status = [(os.path.basename(path), os.stat(path)) for path in found.paths]
    return _digest(*((name, found.st_size, found.st_mtime_ns) for name, found in status))


def _digest(*content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
