"""Stores of generated scans."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from eva_coralbay.pretraining import manifest
from eva_coralbay.pretraining.intake import prepare as preparation
from tests.eva_coralbay.pretraining import scans

SPACING = (3.0, 3.0, 3.0)


def prepare(
    source: pathlib.Path | Sequence[pathlib.Path], out: str, **options: Any
) -> manifest.Manifest:
    sources = [source] if isinstance(source, pathlib.Path) else source
    options = {"spacing": SPACING, "workers": 1} | options
    return preparation.prepare([str(path) for path in sources], out, **options)


def statuses(content: manifest.Manifest) -> dict[str, str]:
    return {case.case: case.status for case in content.cases}


def read(content: manifest.Manifest, case: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Returns the HU and the affine of a prepared scan."""
    (row,) = (row for row in content.prepared if row.case == case)
    scan = content.open(row)
    return scan.read_image(scan.whole).numpy()[0], scan.grid.affine


def write_scans(folder: pathlib.Path, number: int) -> None:
    for seed in range(number):
        scans.write_nifti(folder / f"{seed}.nii.gz", scans.hounsfield(seed=seed))
