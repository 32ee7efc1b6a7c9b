"""Prepared scans on disk: written once, read crop by crop."""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import random
import re
import shutil
from collections.abc import Callable, Generator, Sequence
from typing import (
    Any,
    NamedTuple,
)

from eva.vision.data import tv_tensors as eva_tv_tensors
from loguru import logger
from torchvision import tv_tensors

from eva_coralbay import _atomic_files, _messages, _progress
from eva_coralbay.data import nifti, preparation, scan_file
from eva_coralbay.data import workers as workers_lib
from eva_coralbay.data.scan_file import StoreError
from eva_coralbay.errors import DatasetError

BYTES_PER_VOXEL = 0.6
"""The disk that a voxel of a prepared scan takes, about: air is cropped, the rest compressed."""

_BYTES_PER_SOURCE_BYTE = 1.0
"""The disk that a byte of a file of unknown content takes, about."""

_FIX_FOLDER = (
    "Free some space there, or set another folder: `prepared_root`, PREPARED_ROOT or "
    "--prepared-root."
)


class Source(NamedTuple):
    """What a scan is prepared from."""

    case: str
    """The id of the case."""

    files: tuple[str, ...]
    """The files it is made of, the scan first: when one changes, it is prepared again."""

    load: Callable[[], tuple[eva_tv_tensors.Volume, tv_tensors.Mask | None]]
    """Loads the scan in HU and its label map, each of shape [1, D, H, W]; can be pickled."""

    extent_mm: tuple[float, float, float] | None = None
    """The extent of the scan along (D, H, W); if None, the header of the first file says it."""


class _Job(NamedTuple):
    """A scan to prepare."""

    source: Source
    preparation: preparation.Preparation
    path: str
    key: str
    replaced: scan_file.Identity | None
    """The damaged file to replace; when there is another one by now, there is nothing to do."""


class _Outcome(NamedTuple):
    """What came of a job."""

    case: str
    """The id of the case."""

    problem: str | None = None
    """What went wrong."""

    stops: bool = False
    """Whether it would go wrong with the others too."""


class PreparedStore:
    """A folder of prepared scans.

    There is a file for each scan, named by the case and by the names, sizes and times of the files
    that it is made of; fingerprints in it tell whether one of them was replaced with both kept. The
    folder is named by what is done to the scans, which its `preparation.json` says in full. Any
    number of processes may prepare and read at the same time.
    """

    def __init__(
        self,
        root: str,
        *,
        name: str,
        preparation: preparation.Preparation,
        labels: Sequence[str] = (),
    ) -> None:
        """Initializes the store; nothing is written before something is prepared.

        Args:
            root: The folder that holds the folder of the store.
            name: The name of the data set.
            preparation: What is done to the scans.
            labels: The name of each label value.
        """
        self._root = root
        self._name = name
        self._preparation = preparation
        self._description = {
            "version": scan_file.VERSION,
            "name": name,
            "preparation": preparation._asdict(),
            "labels": list(labels),
        }
        self._folder = os.path.join(root, f"{_safe(name)}-{_digest(self._description)}")
        self._damaged: set[scan_file.Identity] = set()

    def prepare(self, sources: Sequence[Source], *, workers: int | None = None) -> None:
        """Prepares the scans that are not there yet, or that are damaged.

        Args:
            sources: The scans.
            workers: The number of processes; if None, one a core, and fewer for little work.

        Raises:
            StoreError: If the folder cannot be written to, the disk does not suffice or some
                scans cannot be prepared. The others are prepared nevertheless, and stay.
        """
        missing = self.missing(sources)
        if not missing:
            return
        self._make_folder()
        need = self._check_space(missing)
        jobs = [self._job(source) for source in missing]
        # so that preparers that work side by side seldom begin with the same scan
        random.Random().shuffle(jobs)
        workers = workers or workers_lib.suitable_number(
            path for job in jobs for path in job.source.files
        )
        problems, stopped = _run(jobs, min(workers, len(jobs)))
        if problems:
            raise StoreError(
                _summarize(list(problems.values()), f"{len(jobs)} scans (about {need} in all)"),
                problems={} if stopped else problems,
            )

    def open(self, source: Source) -> preparation.PreparedScan:
        """Opens a prepared scan.

        Args:
            source: What it was prepared from.

        Returns:
            The scan. Each part of it is checked when it is read.

        Raises:
            StoreError: If it is missing or known to be damaged.
        """
        return self._open(source)

    def locate(self, source: Source) -> tuple[str, str]:
        """Returns the path of a prepared scan, whether or not it is there, and its key.

        Raises:
            StoreError: If a file that it is made of is missing.
        """
        try:
            status = [(path.name, path.stat()) for path in map(pathlib.Path, source.files)]
        except OSError as error:
            raise StoreError(
                f"Case '{source.case}', file '{error.filename}': {error.strerror}. Restore it."
            ) from error
        identities = [(name, found.st_size, found.st_mtime_ns) for name, found in status]
        entry = f"{_safe(source.case)}-{_digest([source.case, identities])}"
        return (
            os.path.join(self._folder, f"{entry}.scan"),
            f"{pathlib.Path(self._folder).name}/{entry}",
        )

    def missing(self, sources: Sequence[Source]) -> list[Source]:
        """Returns the scans that are not there, and names the damaged ones in the log."""
        return [source for source in sources if not self._is_intact(source)]

    def estimate_bytes(self, source: Source) -> float:
        """Returns about how much disk a scan will take; no more than its header is read."""
        return _estimate_bytes(source, self._preparation)

    def estimate_shape(self, source: Source) -> tuple[int, int, int] | None:
        """Returns the shape of a prepared scan, of which no more than the header is read.

        Args:
            source: What it is prepared from.

        Returns:
            The shape (D, H, W). If the scan is not prepared, that before it is cropped to the body;
            None if the header does not say it.
        """
        try:
            return self._open(source).grid.shape
        except StoreError:
            extent_mm = _find_extent(source)
        if extent_mm is None:
            return None
        depth, height, width = (
            max(1, round(length / step))
            for length, step in zip(extent_mm, self._preparation.spacing, strict=True)
        )
        return depth, height, width

    def verify(self, sources: Sequence[Source]) -> list[Source]:
        """Reads the prepared scans as a whole.

        Args:
            sources: The scans.

        Returns:
            Those that are missing or damaged, which the log names. `prepare` replaces them.
        """
        return [
            source
            for source in _progress.bar(sources, desc=f"Verifying {self._name}", unit="scan")
            if not self._is_intact(source, check=True)
        ]

    def _open(self, source: Source) -> scan_file.StoredScan:
        path, key = self.locate(source)
        scan = scan_file.StoredScan(path, key=key, on_damage=self._damaged.add)
        if scan.identity in self._damaged:
            raise StoreError(f"Prepared scan '{path}' is damaged. Prepare the data set again.")
        return scan

    def _is_intact(self, source: Source, *, check: bool = False) -> bool:
        path, _ = self.locate(source)
        if not pathlib.Path(path).exists():
            return False
        try:
            scan = self._open(source)
            if check:
                scan.check()
        except StoreError as error:
            logger.warning(str(error))
            return False
        return not _is_outdated(scan, path, source)

    def _job(self, source: Source) -> _Job:
        path, key = self.locate(source)
        return _Job(source, self._preparation, path, key, scan_file.identity(path))

    def _make_folder(self) -> None:
        """Makes the folder with its description, and removes what killed processes left there."""
        path = pathlib.Path(self._folder, "preparation.json")
        try:
            if not path.exists():
                _atomic_files.write_atomically(
                    path, json.dumps(self._description, indent=2).encode()
                )
            _atomic_files.remove_leftovers(self._folder)
        except OSError as error:
            raise StoreError(_describe_write_error(self._folder, error)) from error

    def _check_space(self, missing: Sequence[Source]) -> str:
        """Says how much disk the scans will take, and refuses when there is far too little."""
        need = sum(_estimate_bytes(source, self._preparation) for source in missing)
        free = shutil.disk_usage(self._folder).free
        summary = (
            f"{len(missing)} scans of '{self._name}' are to be prepared in '{self._folder}': that "
            f"takes about {_in_megabytes(need)} (an estimate), {_in_megabytes(free)} are free."
        )
        if free < need / 2:
            raise StoreError(f"{summary} {_FIX_FOLDER}")
        logger.info(summary)
        return _in_megabytes(need)


def _run(jobs: Sequence[_Job], workers: int) -> tuple[dict[str, str], bool]:
    """Does all jobs and returns what went wrong, by case, and whether that stopped the others."""
    problems = {}
    outcomes = _do_in_processes(jobs, workers) if workers > 1 else (_do(job) for job in jobs)
    with contextlib.closing(outcomes):
        for outcome in _progress.bar(outcomes, total=len(jobs), desc="Preparing", unit="scan"):
            if outcome.problem is not None:
                problems[outcome.case] = outcome.problem
            if outcome.stops:
                return problems, True
    return problems, False


def _is_outdated(scan: scan_file.StoredScan, path: str, source: Source) -> bool:
    """Whether a file was replaced by one of the same size and time after the scan was prepared.

    The time of its last change of any kind, which nobody can set, says whether to compare.
    """
    prepared = pathlib.Path(path).stat().st_mtime_ns
    changed = [file for file in source.files if pathlib.Path(file).stat().st_ctime_ns > prepared]
    if not changed or scan.sources is None:
        return False
    if scan.sources == [scan_file.fingerprint(file) for file in source.files]:
        return False
    logger.warning(
        f"Case '{source.case}': a file, such as '{changed[0]}', has been replaced by another of "
        "the same size and time; the case is prepared again."
    )
    return True


def _do(job: _Job) -> _Outcome:
    """Prepares a scan and writes it, unless somebody did meanwhile."""
    if scan_file.identity(job.path) != job.replaced:
        return _Outcome(job.source.case)
    try:
        sources = [scan_file.fingerprint(path) for path in job.source.files]
        scan = preparation.prepare(*job.source.load(), job.preparation)
        content = scan_file.encode(scan, key=job.key, sources=sources)
    except DatasetError as error:
        return _Outcome(job.source.case, str(error))
    except Exception as error:
        return _Outcome(
            job.source.case,
            f"Case '{job.source.case}', file '{job.source.files[0]}': it cannot be prepared "
            f"({type(error).__name__}: {error}).",
        )
    try:
        with _atomic_files.open_atomically(job.path) as file:
            file.write(content)
    except OSError as error:
        return _Outcome(job.source.case, _describe_write_error(job.path, error), stops=True)
    return _Outcome(job.source.case)


def _do_in_processes(jobs: Sequence[_Job], workers: int) -> Generator[_Outcome, None, None]:
    with contextlib.closing(workers_lib.in_processes(_do, jobs, workers)) as outcomes:
        for job, outcome in outcomes:
            yield outcome or _describe_killed(job)


def _describe_killed(job: _Job) -> _Outcome:
    return _Outcome(
        job.source.case,
        f"Case '{job.source.case}': {workers_lib.KILLED} (file '{job.source.files[0]}'). If there "
        "was too little memory, prepare the data set ahead with fewer --workers.",
    )


def _estimate_bytes(source: Source, preparation: preparation.Preparation) -> float:
    """Returns about how much disk a prepared scan takes."""
    extent_mm = _find_extent(source)
    if extent_mm is None:
        return _BYTES_PER_SOURCE_BYTE * sum(map(os.path.getsize, source.files))
    return BYTES_PER_VOXEL * math.prod(extent_mm) / math.prod(preparation.spacing)


def _find_extent(source: Source) -> tuple[float, float, float] | None:
    """Returns the extent of a scan in mm, as (D, H, W); None if no header says it."""
    if source.extent_mm is not None:
        return source.extent_mm
    try:
        return nifti.read_grid(source.files[0], case=source.case).extent_mm
    except DatasetError:
        return None


def _summarize(problems: Sequence[str], scans: str) -> str:
    listed = _messages.list_lines(problems)
    return f"{len(problems)} of {scans} could not be prepared:\n{listed}"


def _describe_write_error(path: str, error: OSError) -> str:
    return (
        f"Prepared scans cannot be written to '{path}' ({error.strerror}). What is written stays. "
        f"{_FIX_FOLDER}"
    )


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _safe(name: str) -> str:
    """Returns a name without the characters that mean something in paths."""
    return re.sub(r"[^\w.-]+", "_", name)


def _in_megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"
