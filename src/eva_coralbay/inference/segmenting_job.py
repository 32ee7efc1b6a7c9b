"""The segmentations of many scans, in a folder.

    DIR/labels.json                     the names of the labels, and what has made them
    DIR/<case>.nii.gz                   the label map, on the grid of the scan
    DIR/<case>_probabilities.nii.gz     the probabilities, the classes along a fourth axis
    DIR/<case>.png                      a picture
    DIR/<case>.dcm                      the label map as DICOM SEG

A scan is finished when its label map is there, which is written last and says what it was made of.
"""

import contextlib
import functools
import pathlib
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import NamedTuple

import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from loguru import logger

import eva_coralbay
from eva_coralbay import _atomic_files, _file_locks, _messages, _progress, errors
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.inference import dicom_seg, label_files, overlay, segment, sources
from eva_coralbay.inference import trained as trained_lib
from eva_coralbay.results import bounded_reading

_LABELS = "labels.json"

_MAX_LABELS_BYTES = 1_000_000
"""The most bytes of the names of labels."""


class Wanted(NamedTuple):
    """What is written beside the label map of a scan."""

    overlay: bool = False
    """A picture."""

    probabilities: bool = False
    """The probabilities of all classes."""

    dicom_seg: bool = False
    """The label map as DICOM SEG, of scans that are DICOM series."""


class Report(NamedTuple):
    """What came of the scans."""

    segmented: int
    """The number of scans that were segmented by this call."""

    known: int
    """The number of scans that an earlier call has segmented."""

    failures: dict[str, str]
    """Why scans are left out, by their source."""


def segment_scans(
    named: Sequence[str],
    out: pathlib.Path,
    trained: trained_lib.Trained,
    *,
    wanted: Wanted | None = None,
    exclude: Sequence[str] = (),
) -> Report:
    """Segments scans, and writes label maps on their own grids.

    A call that was interrupted goes on when it is made again; scans that failed are tried again.

    Args:
        named: Folders to search, NIfTI files, and archives (zip or tar).
        out: The folder.
        trained: What a run has trained.
        wanted: What is written beside the label maps.
        exclude: Patterns of paths, relative to their source, to leave out.

    Raises:
        EvaCoralbayError: If there is no scan, the folder has label maps of another run, or another
            process writes to it.
    """
    chosen = wanted or Wanted()
    if chosen.dicom_seg:
        dicom_seg.check_installed()
    with _locked(out), _atomic_files.temporary_folder(out / "unpacked") as unpacked:
        items, unusable = sources.find(
            named,
            exclude=exclude,
            unpack_in=unpacked,
            known=functools.partial(_find_known, out),
        )
        _check_distinct(items, out, chosen)
        _name_others(items, chosen)
        _write_labels(out, trained)
        new = [item for item in items if not _is_done(item, out, chosen)]
        failures: dict[str, str] = {}
        failed = 0
        with _progress.bar(
            total=len(items), initial=len(items) - len(new), unit="scan"
        ) as progress:
            for item, volume in _read_ahead(new):
                problem = _try_segment(item, volume, out, trained, chosen)
                if problem is not None:
                    failed += 1
                    failures[item.source] = problem
                    logger.warning(f"'{item.source}' is left out: {problem}")
                progress.update()
        return Report(len(new) - failed, len(items) - len(new), {**unusable, **failures})


def _try_segment(
    item: sources.Item,
    volume: "futures.Future[eva_tv_tensors.Volume]",
    out: pathlib.Path,
    trained: trained_lib.Trained,
    wanted: Wanted,
) -> str | None:
    """Segments a scan; returns why it is left out, if it is."""
    problem = volume.exception()
    if problem is not None and not isinstance(problem, EvaCoralbayError):
        return f"unreadable ({type(problem).__name__})"
    try:
        _segment(item, volume.result(), out, trained, wanted)
    except OSError:  # the disk is full, or cannot be written
        raise
    except Exception as error:  # of one scan, which must not stop the others
        return errors.in_one_line(error)
    return None


def _segment(
    item: sources.Item,
    volume: eva_tv_tensors.Volume,
    out: pathlib.Path,
    trained: trained_lib.Trained,
    wanted: Wanted,
) -> None:
    """Segments a scan, and writes its label map last."""
    spacing = trained.transform.preparation.spacing
    sources.check_quality(volume, spacing=spacing, place="Scan")
    found = segment.segment_volume(volume, trained, probabilities=wanted.probabilities)
    files = _files(item, out, wanted)
    description = _describe(item, trained)
    grid = grid_lib.Grid.of(volume)
    if "probabilities" in files and found.probabilities is not None:
        label_files.write_probabilities(
            files["probabilities"], found.probabilities, item.found, volume, description=description
        )
    if "overlay" in files:
        image = volume.as_subclass(torch.Tensor)[0].numpy()
        picture = overlay.draw(
            item.case, image, found.labels, grid_lib.spacing(grid.affine), trained.classes
        )
        _atomic_files.write_atomically(files["overlay"], picture)
    if "dicom_seg" in files:
        dicom_seg.write(files["dicom_seg"], found.labels, item.found, grid, trained)
    label_files.write(files["labels"], found.labels, item.found, volume, description=description)


def _read_ahead(
    items: Sequence[sources.Item],
) -> Iterator[tuple[sources.Item, "futures.Future[eva_tv_tensors.Volume]"]]:
    """Yields scans, of which the next one is read while one is segmented."""
    with futures.ThreadPoolExecutor(1) as pool:
        ahead = [pool.submit(item.read) for item in items[:1]]
        for index, item in enumerate(items):
            volume = ahead.pop()
            futures.wait([volume])
            if index + 1 < len(items):
                ahead.append(pool.submit(items[index + 1].read))
            yield item, volume


def _find_known(out: pathlib.Path, case: str) -> sources.Known | None:
    """Returns of what scan there is a label map of a case."""
    path = out / f"{case}.nii.gz"
    if not path.exists():
        return None
    stated = label_files.read_description(path)
    place, state, sha256 = (stated.get(name) for name in ("place", "state", "source_sha256"))
    return sources.Known(place, str(state), str(sha256))


def _is_done(item: sources.Item, out: pathlib.Path, wanted: Wanted) -> bool:
    files = _files(item, out, wanted)
    if not all(path.exists() for path in files.values()):
        return False
    return label_files.read_description(files["labels"]).get("state") == item.state


def _files(item: sources.Item, out: pathlib.Path, wanted: Wanted) -> dict[str, pathlib.Path]:
    """Returns the files of a scan."""
    files = {"labels": out / f"{item.case}.nii.gz"}
    if wanted.probabilities:
        files["probabilities"] = out / f"{item.case}_probabilities.nii.gz"
    if wanted.overlay:
        files["overlay"] = out / f"{item.case}.png"
    if wanted.dicom_seg and item.found.kind == "dicom":
        files["dicom_seg"] = out / f"{item.case}.dcm"
    return files


def _check_distinct(items: Sequence[sources.Item], out: pathlib.Path, wanted: Wanted) -> None:
    """Checks that no file of one scan is that of another, as of `a_probabilities` and `a`."""
    taken: dict[pathlib.Path, str] = {}
    for item in items:
        for path in _files(item, out, wanted).values():
            other = taken.setdefault(path, item.source)
            if other != item.source:
                raise EvaCoralbayError(
                    f"'{other}' and '{item.source}' would both be written to '{path}'. Leave one "
                    "of them out by --exclude, or rename it."
                )


def _name_others(items: Sequence[sources.Item], wanted: Wanted) -> None:
    """Says of which scans no DICOM SEG is written."""
    others = [item.source for item in items if item.found.kind != "dicom"]
    if wanted.dicom_seg and others:
        logger.warning(
            f"There is no DICOM SEG of {_messages.list_names(others)}, which are no DICOM series."
        )


def _describe(item: sources.Item, trained: trained_lib.Trained) -> dict[str, object]:
    """Returns what the header of a label map says."""
    return {
        "labels": {name: value for value, name in enumerate(trained.classes)},
        "state": item.state,
        "place": item.place,
        "source_sha256": item.sha256(),
        "trained_sha256": trained.sha256,
        "version": eva_coralbay.__version__,
    }


def _write_labels(out: pathlib.Path, trained: trained_lib.Trained) -> None:
    """Writes the names of the labels, unless they are there; refuses those of another run."""
    path = out / _LABELS
    settings = {"trained": str(trained.path), "trained_sha256": trained.sha256}
    if path.exists():
        try:
            stated = bounded_reading.read_json(path, max_bytes=_MAX_LABELS_BYTES)["trained_sha256"]
        except (bounded_reading.ForeignFileError, KeyError, TypeError):
            stated = None
        if stated != trained.sha256:
            raise EvaCoralbayError(
                f"'{out}' has label maps of another run or checkpoint ('{path}'). Choose another "
                "--out."
            )
        return
    _atomic_files.write_atomically(path, label_files.labels_json(trained.classes, settings))


@contextlib.contextmanager
def _locked(out: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from writing to the folder, which is made."""

    def refuse() -> None:
        raise EvaCoralbayError(f"Another process writes to '{out}'. Wait until it has ended.")

    if out.exists() and not out.is_dir():
        raise EvaCoralbayError(f"'{out}' is a file: name the folder to write to as --out.")
    out.mkdir(parents=True, exist_ok=True)
    with _file_locks.locked(out / ".lock", on_busy=refuse):
        _atomic_files.remove_leftovers(out)
        yield
