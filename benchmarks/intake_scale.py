"""Measures how the intake of scans for pre-training grows with their number.

Tiny scans are generated, each with voxels of its own, and a store is made of them as `eva-coralbay
pretrain prepare` makes it, on one core. Each number of scans has a process of its own, so that its
memory is its own. If both are linear, the CPU time and the memory of a scan are the same in all
rows. The files lie in TMPDIR: about 16 KiB a scan.
"""

import argparse
import multiprocessing
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import _machine
import numpy as np
import psutil
import torch
from loguru import logger

from eva_coralbay.data import nifti_image, phantom, scan_search
from eva_coralbay.pretraining import manifest as manifest_lib
from eva_coralbay.pretraining import samples
from eva_coralbay.pretraining.intake import prepare

_SHAPE, _SPACING_MM = (10, 16, 16), (20.0, 14.0, 14.0)
"""A scan: as few voxels as the check of a scan's size lets through, but the extent of a body."""

_PER_FOLDER = 1000
"""How many scans lie in a folder."""

_SAMPLES = 200
"""How many regions are read of the store."""


class _Stage(NamedTuple):
    """A part of the work."""

    name: str
    """What it is."""

    work: Callable[[], object]
    """The work."""


def _write_scans(folder: pathlib.Path, count: int) -> None:
    """Writes scans that differ in their noise, as `.nii`."""
    generated = phantom.generate(0, shape=_SHAPE, spacing_mm=_SPACING_MM)
    file = nifti_image.as_nifti(generated.hounsfield, generated.affine).to_bytes()
    header, voxels = file[: -2 * generated.hounsfield.size], np.frombuffer(file, np.int16)
    voxels = voxels[-generated.hounsfield.size :]
    generator = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // _PER_FOLDER:04d}" / f"scan_{number:07d}.nii"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = generator.integers(-20, 20, len(voxels), dtype=np.int16)
        path.write_bytes(header + (voxels + noise).tobytes())


def _read_samples(store: str) -> None:
    """Reads regions as a training does."""
    data = samples.PretrainingData(store=store, num_workers=0)
    regions = data.regions()
    for number in range(_SAMPLES):
        regions.read(number)


def _measure(count: int, folder: pathlib.Path) -> None:
    """Prints what each part of the work takes for a number of scans."""
    scans, store = folder / "scans", str(folder / "store")
    _write_scans(scans, count)

    def make() -> None:
        made = prepare.prepare([str(scans)], store, spacing=(10.0, 10.0, 10.0), workers=1)
        if len(made.prepared) != count:
            raise RuntimeError(f"Scans were set aside: {prepare.count_reasons(made)}")

    stages = (
        _Stage("search", lambda: scan_search.find([str(scans)], ())),
        _Stage("whole intake", make),
        _Stage("intake again, nothing new", make),
        _Stage("read the manifest", lambda: manifest_lib.Manifest.read(store)),
        _Stage(f"start and read {_SAMPLES} samples", lambda: _read_samples(store)),
    )
    before = psutil.Process().memory_info().rss
    for stage in stages:
        started, busy = time.perf_counter(), time.process_time()
        stage.work()
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        print(
            f"{count:9,d} | {stage.name:29} | {seconds:9.2f} s | {busy:9.2f} s of CPU | "
            f"{1e3 * busy / count:7.3f} ms of CPU a scan | {peak / 2**20:7.0f} MiB so far",
            flush=True,
        )
    size = pathlib.Path(store, manifest_lib.NAME).stat().st_size
    print(f"{count:9,d} | manifest: {size / 1e6:.1f} MB", flush=True)


def _measure_alone(count: int) -> None:
    """Measures one number of scans, in a process of its own."""
    logger.remove()
    with tempfile.TemporaryDirectory() as folder:
        _measure(count, pathlib.Path(folder))


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, nargs="+", default=[1_000, 10_000])
    arguments = parser.parse_args()
    print(f"{_machine.processor()}, {torch.get_num_threads()} threads", flush=True)
    for count in arguments.scans:
        process = multiprocessing.get_context("spawn").Process(target=_measure_alone, args=(count,))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
