"""Embeds generated scans by a small network."""

import pathlib
from typing import Any

import pandas as pd

from eva_coralbay.inference import embedding_job
from tests.eva_coralbay.inference import toy
from tests.eva_coralbay.pretraining import scans


def build() -> toy.ToyPyramid:
    """Builds the network."""
    return toy.ToyPyramid(preprocessing=toy.small_input())


def embed(named: list[str], out: pathlib.Path, **options: Any) -> embedding_job.Report:
    """Embeds scans by the network, or by what `build` gives."""
    return embedding_job.embed_scans(
        named, out, options.pop("build", build), model="toy/encoder", **options
    )


def write(folder: pathlib.Path, count: int = 3, *, first: int = 0) -> pathlib.Path:
    """Writes scans, and returns their folder."""
    for seed in range(first, first + count):
        scans.write_nifti(folder / f"scan_{seed}.nii.gz", scans.hounsfield(seed=seed))
    return folder


def read(path: pathlib.Path) -> pd.DataFrame:
    """Reads a table."""
    return pd.read_parquet(path).set_index("case")
