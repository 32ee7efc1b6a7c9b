"""The embeddings of many scans: found, read in processes, encoded on devices, kept in a table."""

import contextlib
import functools
import io
import json
import pathlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple
from urllib import parse

import numpy as np
import torch
from loguru import logger
from torch import nn

import eva_coralbay
from eva_coralbay import _atomic_files, _messages, _progress, errors
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import nifti, scan_search
from eva_coralbay.data import workers as workers_lib
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.inference import devices as places
from eva_coralbay.inference import embed as embed_lib
from eva_coralbay.inference import feature_table, model_input, region_work, regions, sources
from eva_coralbay.models import checkpoints, description, recorded_name
from eva_coralbay.models.preprocessing import Preprocessing

_MAX_REGION_BYTES = 40
"""How much of a region's name is in the name of a file."""

_MASK_LABELS = range(2**16)
"""The label values that a mask may have."""


class Regions(NamedTuple):
    """Which parts of the scans are embedded; whole scans if nothing is given."""

    of_case: Mapping[str, Sequence[regions.Point | regions.Box]] = {}
    """Points and boxes by what a scan is called, or under "" where there is one scan."""

    masks: pathlib.Path | None = None
    """A label map, or a folder with one label map per scan, named after its file or id."""


class Report(NamedTuple):
    """What came of the scans."""

    rows: int
    """The number of rows of the table."""

    embedded: int
    """The number of scans that were embedded by this call."""

    known: int
    """The number of scans that an earlier call has embedded."""

    failures: dict[str, str]
    """Why scans, or regions of them, are left out, by their source."""


class _Made(NamedTuple):
    """What a scan became in a worker."""

    sha256: str
    inputs: list[tuple[str, model_input.ModelInput]]
    """The name of each region, "" for the whole scan, and its input."""
    problem: str | None = None
    """Why there is none, or why regions lack, if any does."""


def embed_scans(
    named: Sequence[str],
    out: pathlib.Path,
    build: Callable[[], nn.Module],
    *,
    model: str,
    parts: Regions | None = None,
    exclude: Sequence[str] = (),
    pool: embed_lib.Pool = "mean",
    num_maps: int = 0,
    spacing: Sequence[float] | None = None,
    hu_window: Sequence[float] | None = None,
    window: Sequence[int] | None = None,
    workers: int | None = None,
    devices: Sequence[str] = ("cpu",),
) -> Report:
    """Embeds scans, and writes a table with a row a scan or region.

    A call that was interrupted goes on when it is made again, and so does one to which scans were
    added; scans that failed are tried again.

    Args:
        named: Folders to search, NIfTI files, and archives (zip or tar).
        out: The Parquet file.
        build: Builds the encoder; it is called once a device and always gives the same weights.
        model: The name of the encoder. The table has it, or, where the weights are others than the
            name stands for, one that follows from them.
        parts: Which parts of the scans are embedded; whole scans if None.
        exclude: Patterns of paths, relative to their source, to leave out.
        pool: How feature maps and windows are pooled.
        num_maps: How many of the coarsest feature maps are kept too, in the folder
            `<name of out>_maps`, one `.npz` file per row.
        spacing: Another voxel spacing than the encoder's, in mm, along the axes of its tensor.
        hu_window: Another HU window than the encoder's.
        window: Another size of windows than the encoder's, in voxels.
        workers: The number of processes that read scans; as many as are worth it if None.
        devices: Where to compute, as PyTorch names devices: a copy of the encoder on each.

    Raises:
        EvaCoralbayError: If there is no scan, the encoder cannot take the windows, the table was
            made with other settings or cannot be written, another process writes it, or a region
            names no scan.
    """
    feature_table.check_path(out)
    encoders = [build().to(name).eval() for name in map(places.check, devices)]
    network = getattr(encoders[0], "model", encoders[0])
    preprocessing = model_input.choose(
        getattr(network, "preprocessing", None),
        spacing=spacing,
        hu_window=hu_window,
        window=window,
    )
    parts = parts or Regions()
    settings = {
        "model": recorded_name.find_recorded_name(network, model).id,
        "weights_sha256": checkpoints.state_dict_sha256(network.state_dict()),
        "preprocessing": preprocessing.as_dict(),
        "pool": pool,
        "encoder": description.describe_encoder(network)["sha256"],
        "regions": "masks" if parts.masks else "points and boxes" if parts.of_case else "scans",
        "maps": num_maps,
    }
    with feature_table.locked(out) as folder:
        table = feature_table.FeatureTable(out, settings)
        search = sources.find(
            named, exclude=exclude, unpack_in=folder / "unpacked", known=table.find
        )
        work, failures = _assign(search.items, parts)
        new = [one for one in work if table.done.get(one.item.case) != one.state]
        if new and (window is not None or num_maps):
            _try_window(encoders[0], preprocessing.window or (), num_maps)
        progress = _progress.ScanBar(len(work), done=len(work) - len(new))
        maps_folder = out.with_name(f"{out.stem}_maps")
        run = _Run(encoders, preprocessing, pool, num_maps, maps_folder, progress)
        failed = 0
        try:
            for one, rows, problem in run.go(new, workers):
                if problem is not None:
                    failed += 1
                    failures[one.item.source] = problem
                    what = "is embedded without some regions" if rows else "is left out"
                    logger.warning(f"'{one.item.source}' {what}: {problem}")
                    # not the state that `done` is asked for, so that it is tried again
                    rows = [{**row, "source_state": f"{one.state} in part"} for row in rows]
                table.add([{**_constants(settings), **row} for row in rows])
                progress.finish(one.item.case)
        finally:
            progress.close()
            table.save()
        return Report(
            table.finish(),
            len(new) - failed,
            len(work) - len(new),
            {**search.failures, **failures},
        )


def _try_window(encoder: nn.Module, window: Sequence[int], num_maps: int) -> None:
    """Checks that an encoder takes windows of a size, and has as many maps as are wanted."""
    size = " x ".join(map(str, window))
    empty = model_input.ModelInput(np.zeros((1, *window), np.float32), np.eye(4))
    try:
        embed_lib.encode(empty, encoder, window=window, num_maps=num_maps)
    except EvaCoralbayError:
        raise
    except torch.OutOfMemoryError as error:
        raise EvaCoralbayError(
            f"Windows of {size} voxels do not fit into the memory ({errors.in_one_line(error)}). "
            "Choose a smaller --window."
        ) from error
    except (RuntimeError, ValueError) as error:
        raise EvaCoralbayError(
            f"The encoder cannot take windows of {size} voxels ({errors.in_one_line(error)}). "
            "Choose a larger --window, or leave it out for that of its training."
        ) from error


class _Run:
    """Reads scans in processes and encodes them on devices."""

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        preprocessing: Preprocessing,
        pool: embed_lib.Pool,
        num_maps: int,
        maps_folder: pathlib.Path,
        progress: _progress.ScanBar,
    ) -> None:
        self._free = list(encoders)
        self._preprocessing = preprocessing
        self._pool: embed_lib.Pool = pool
        self._num_maps = num_maps
        self._maps_folder = maps_folder
        self._progress = progress

    def go(
        self, work: Sequence[region_work.Work], workers: int | None
    ) -> Iterator[tuple[region_work.Work, list[dict[str, Any]], str | None]]:
        """Yields each scan with its rows, and the reason why any is missing, in any order."""
        number = len(self._free)
        running: dict[
            futures.Future[list[dict[str, Any]]], tuple[region_work.Work, str | None]
        ] = {}
        with (
            futures.ThreadPoolExecutor(number) as pool,
            contextlib.closing(_make(work, self._preprocessing, workers)) as made,
        ):
            for one, result in made:
                if not result.inputs:
                    yield one, [], result.problem
                    continue
                running[pool.submit(self._encode, one, result)] = one, result.problem
                # one more than there are devices, so that none waits for the next scan
                while len(running) > number:
                    yield from _collect(running, futures.FIRST_COMPLETED)
            while running:
                yield from _collect(running, futures.FIRST_COMPLETED)

    def _encode(self, work: region_work.Work, made: _Made) -> list[dict[str, Any]]:
        """Returns the rows of a scan."""
        encoder = self._free.pop()
        try:
            return [self._row(work, made, number, encoder) for number in range(len(made.inputs))]
        finally:
            self._free.append(encoder)

    def _row(
        self,
        work: region_work.Work,
        made: _Made,
        number: int,
        encoder: nn.Module,
    ) -> dict[str, Any]:
        """Returns the row of one of the inputs of a scan."""
        region, image = made.inputs[number]

        def say(done: int, total: int) -> None:
            part = (number + done / total) / len(made.inputs)
            self._progress.move(work.item.case, part, f"window {done} of {total}")

        features = embed_lib.encode(
            image,
            encoder,
            window=self._preprocessing.window or (),
            pool=self._pool,
            num_maps=self._num_maps,
            on_windows=say,
        )
        if self._num_maps:
            path = self._maps_folder / f"{_name_maps(work.item.case, region)}.npz"
            _write_maps(path, features, image.affine)
        return {
            "case": work.item.case,
            "region": region,
            "source": work.item.source,
            "source_sha256": made.sha256,
            "source_state": work.state,
            "windows": features.num_windows,
            "embedding": features.embedding,
        }


def _collect(
    running: dict[futures.Future[list[dict[str, Any]]], tuple[region_work.Work, str | None]],
    when: str,
) -> Iterator[tuple[region_work.Work, list[dict[str, Any]], str | None]]:
    done, _ = futures.wait(running, return_when=when)
    for future in done:
        one, problem = running.pop(future)
        try:
            yield one, future.result(), problem
        except OSError:  # the disk is full, or cannot be written
            raise
        except Exception as error:  # of one scan, which must not stop the others
            yield one, [], errors.in_one_line(error)


def _make(
    work: Sequence[region_work.Work], preprocessing: Preprocessing, workers: int | None
) -> Generator[tuple[region_work.Work, _Made], None, None]:
    """Yields each scan with what its encoder takes."""
    function = functools.partial(_make_inputs, preprocessing=preprocessing)
    number = workers
    if number is None:
        number = workers_lib.suitable_number(path for one in work for path in one.item.found.paths)
    if min(number, len(work)) <= 1:
        for one in work:
            yield one, function(one)
        return
    with contextlib.closing(workers_lib.in_processes(function, work, number)) as results:
        for one, made in results:
            problem = f"{workers_lib.KILLED}, perhaps for lack of memory; use fewer --workers"
            yield one, made or _Made("", [], problem)


def _make_inputs(work: region_work.Work, *, preprocessing: Preprocessing) -> _Made:
    """Reads a scan, checks it, and makes the input of each region."""
    try:
        volume = work.item.read()
        spacing = model_input.spacing_of(volume, preprocessing)
        sources.check_quality(volume, spacing=spacing, place="Scan")
        wanted: list[regions.Region] = list(work.points)
        if work.mask is not None:
            grid = grid_lib.Grid.of(volume)
            labels = nifti.read_mask(work.mask, case=work.item.case, like=grid, labels=_MASK_LABELS)
            wanted += regions.of_labels(labels)
            if not wanted:
                raise EvaCoralbayError(f"Mask '{work.mask}' is empty.")
        if not wanted:
            inputs = [("", model_input.of_scan(volume, preprocessing))]
            return _Made(work.item.sha256(), inputs)
        return _of_regions(work.item, model_input.Parts(volume, preprocessing), wanted)
    except EvaCoralbayError as error:
        return _Made("", [], errors.in_one_line(error))
    except Exception as error:  # one file that no check foresaw must not stop the others
        return _Made("", [], f"unreadable ({type(error).__name__})")


def _of_regions(
    item: sources.Item, parts: model_input.Parts, wanted: Sequence[regions.Region]
) -> _Made:
    """Makes the input of each region that is in the scan, and says which are not."""
    inputs, problems, left_out = [], [], []
    for region in wanted:
        try:
            inputs.append((region.name, parts.make(region)))
        except EvaCoralbayError as error:
            left_out.append(region.name)
            problems.append(errors.in_one_line(error))
    if not problems:
        return _Made(item.sha256(), inputs)
    which = f"{len(left_out)} of {len(wanted)} regions ({_messages.list_names(left_out)})"
    return _Made(item.sha256(), inputs, f"{which} are left out: {problems[0]}")


def _assign(
    items: Sequence[sources.Item], parts: Regions
) -> tuple[list[region_work.Work], dict[str, str]]:
    """Returns what of each scan is embedded, and why scans are left out, by their source."""
    if parts.masks is not None:
        return region_work.assign_masks(items, parts.masks)
    if parts.of_case:
        return region_work.assign(items, parts.of_case), {}
    return [region_work.Work(item, (), None) for item in items], {}


def _constants(settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns the columns that are the same in all rows."""
    return {
        "model": settings["model"],
        "weights_sha256": settings["weights_sha256"],
        "preprocessing": json.dumps(settings["preprocessing"]),
        "pool": settings["pool"],
        "version": eva_coralbay.__version__,
    }


def _name_maps(case: str, region: str) -> str:
    """Returns the name of the file of maps without its suffix.

    Whoever wrote the regions chose their names: a slash would lead elsewhere, and a long name would
    be none of a file.
    """
    quoted = parse.quote(region, safe=" ")
    if len(quoted) > _MAX_REGION_BYTES:
        quoted = f"{quoted[:_MAX_REGION_BYTES]}-{scan_search.digest(region)}"
    return "__".join(filter(None, (case, quoted)))


def _write_maps(path: pathlib.Path, features: embed_lib.Features, affine: Any) -> None:
    """Writes the maps of all windows: `map_<i>` of shape [windows, C, d, h, w], fine to coarse."""
    stacked = zip(*(window.maps for window in features.windows), strict=True)
    arrays: dict[str, Any] = {
        **{f"map_{i}": torch.stack(maps).numpy() for i, maps in enumerate(stacked)},
        "starts": np.array([window.start for window in features.windows]),
        "affine": np.asarray(affine),
    }
    content = io.BytesIO()
    np.savez(content, **arrays)
    _atomic_files.write_atomically(path, content.getvalue())
