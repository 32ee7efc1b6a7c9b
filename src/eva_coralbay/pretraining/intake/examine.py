"""Looks at what may be scans: says what is wrong with one, or what it is."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from loguru import logger

from eva_coralbay import _progress
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import quality, scan_search
from eva_coralbay.data import workers as workers_lib
from eva_coralbay.errors import DatasetError
from eva_coralbay.pretraining import manifest

_HU_RANGE = (-1024.0, 3071.0)
"""The HU that are kept: what twelve bits of a scanner hold."""

_SECONDS_PER_BYTE = 3e-8
"""About how long a core takes to look at a byte of a file."""

KILLED = f"{workers_lib.KILLED}, perhaps as there was too little memory"
"""The reason that a scan is set aside for when its process was killed: it is tried again."""

FAILED = "failed this time: "
"""The first words of a reason that lies in the disk or the memory, and not in the scan.

The next call tries the scan again.
"""

_OF_THE_FILE = (errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ, errno.ENODATA)
"""Errors of the system that are due to the file itself, so that trying again does not help."""

_LACK_OF_MEMORY = ("bad_alloc", "allocate memory", "allocation failed")
"""What SimpleITK's messages have in them when there is too little memory."""


def load(found: scan_search.Found) -> tuple[eva_tv_tensors.Volume, None]:
    """Loads a scan, its HU clipped to what scanners give.

    Args:
        found: The scan.

    Returns:
        The scan of shape [1, D, H, W], and no label map.

    Raises:
        DatasetError: If it cannot be read.
    """
    volume = scan_search.read(found)
    return eva_tv_tensors.Volume(volume.clamp(*_HU_RANGE), affine=volume.affine), None


def examine(
    found: Sequence[scan_search.Found], *, spacing: Sequence[float], workers: int | None = None
) -> Iterator[manifest.Case]:
    """Looks whether scans can be resampled to a spacing.

    Args:
        found: What may be scans.
        spacing: The voxel spacing (D, H, W), in mm.
        workers: The number of processes; as many as are worth their start if None.

    Yields:
        The row of each, in any order: `found`, or `quarantined` with the reason.
    """
    look = functools.partial(_examine, spacing=spacing)
    rows = _map(look, found, workers)
    yield from _progress.bar(rows, total=len(found), desc="Looking", unit="scan")


def estimate(found: Sequence[scan_search.Found]) -> tuple[int, float]:
    """Returns how many bytes there are to look at, and about how many minutes a core needs."""
    sizes = []
    for path in (path for one in found for path in one.paths):
        with contextlib.suppress(OSError):  # it is said when it is looked at
            sizes.append(pathlib.Path(path).stat().st_size)
    return sum(sizes), sum(sizes) * _SECONDS_PER_BYTE / 60.0


def is_tried_again(reason: str | None) -> bool:
    """Returns whether a scan was set aside for a reason that is not in the scan."""
    return reason is not None and (reason == KILLED or reason.startswith(FAILED))


def _map(
    function: Callable[[scan_search.Found], manifest.Case],
    items: Sequence[scan_search.Found],
    workers: int | None,
) -> Iterator[manifest.Case]:
    """Maps in as many processes as are worth their start."""
    number = workers or workers_lib.suitable_number(path for item in items for path in item.paths)
    if min(number, len(items)) <= 1:
        yield from map(function, items)
        return
    with contextlib.closing(workers_lib.in_processes(function, items, number)) as results:
        for item, row in results:
            if row is None:
                log_killed(item)
            yield row or _row_of(item).model_copy(update={"reason": KILLED})


def log_killed(found: scan_search.Found) -> None:
    """Says that the process which worked on a scan was killed, and what to do."""
    logger.error(
        f"'{found.paths[0]}' is set aside: {KILLED}. Run `eva-coralbay pretrain prepare` again "
        "with fewer --workers, or with an --exclude that fits it."
    )


def _row_of(found: scan_search.Found) -> manifest.Case:
    """Returns the row of a scan that is set aside before it is examined."""
    return manifest.Case(
        case=found.case,
        kind=found.kind,
        identity=found.identity(),
        place=found.place,
        status="quarantined",
    )


def _examine(found: scan_search.Found, *, spacing: Sequence[float]) -> manifest.Case:
    """Looks whether something is a scan that can be resampled to a spacing."""
    row = _row_of(found)
    try:
        volume = scan_search.read(found)
        statistics = quality.measure(volume)
        problem = quality.find_problem(volume, statistics, spacing=spacing) or quality.find_lack(
            grid_lib.Grid.of(volume)
        )
    except Exception as error:  # one file that no check foresaw must not stop the others
        reason = find_reason(error, found)
        if is_tried_again(reason):
            logger.error(f"'{found.paths[0]}' {reason}. The next call tries it again.")
        return row.model_copy(update={"reason": reason})
    doubt = None if problem else quality.find_doubt(volume)
    if doubt is not None:
        logger.warning(f"'{found.paths[0]}' is used, but {doubt}.")
    return row.model_copy(
        update={
            "status": "found" if problem is None else "quarantined",
            "reason": problem,
            "sha256": _hash(volume),
            "source": describe(grid_lib.Grid.of(volume)),
            "hounsfield": statistics,
        }
    )


def find_reason(error: BaseException, found: scan_search.Found) -> str:
    """Returns why something is set aside that an error was raised for.

    Args:
        error: The error.
        found: What was read.
    """
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    for each in causes:
        if isinstance(each, MemoryError) or any(part in str(each) for part in _LACK_OF_MEMORY):
            return f"{FAILED}there is too little memory; use fewer --workers"
        # such an error of a library has no number
        if isinstance(each, OSError) and each.errno and each.errno not in _OF_THE_FILE:
            return f"{FAILED}{os.strerror(each.errno)}"
        if isinstance(each, UnicodeEncodeError):
            return "a name of its path is not in UTF-8: rename it"
    if isinstance(error, DatasetError):
        return without_place(str(error), found.case, found.paths[0])
    return f"unreadable ({type(error).__name__})"


def _hash(volume: eva_tv_tensors.Volume) -> str:
    """Returns the hash of the HU and their grid, whatever the file they come from."""
    # 0 is added so that there is no -0
    affine = np.asarray(volume.affine).round(3) + 0.0
    grid = json.dumps([list(volume.shape), affine.tolist()])
    digest = hashlib.sha256(grid.encode())
    digest.update(volume.as_subclass(torch.Tensor).round().to(torch.int32).numpy().tobytes())
    return digest.hexdigest()


def describe(grid: grid_lib.Grid) -> manifest.Geometry:
    """Returns what a manifest says of a grid."""
    spacing = [round(value, 6) for value in grid_lib.spacing(grid.affine)]
    return manifest.Geometry(shape=grid.shape, spacing=(spacing[0], spacing[1], spacing[2]))


def without_place(message: str, case: str, path: str) -> str:
    """Returns an error message in a line that JSON takes, without the case and the folder."""
    line = message.removeprefix(f"Case '{case}', ")
    file = pathlib.Path(path)
    for place in (path.removesuffix(file.name), f"{file.parent}{os.sep}"):  # "./a/" may be "a/"
        line = line.replace(place, "")
    # the bytes of a name that is not in UTF-8
    printable = line.encode("utf-8", "backslashreplace").decode()
    return " ".join(printable.split())
