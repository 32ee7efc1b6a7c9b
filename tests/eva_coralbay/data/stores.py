"""Stores of prepared scans."""

import functools
import multiprocessing
import pathlib
from typing import Any

from eva.vision.data import tv_tensors as eva_tv_tensors
from torchvision import tv_tensors

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import nifti, preparation, store

PREPARATION = preparation.Preparation(spacing=(2.0, 2.0, 2.0))

FORK = multiprocessing.get_context("fork")
"""A forked process need not import torch anew."""


def load(
    image: pathlib.Path, label: pathlib.Path | None
) -> tuple[eva_tv_tensors.Volume, tv_tensors.Mask | None]:
    volume = nifti.read_scan(str(image), case="case")
    if label is None:
        return volume, None
    grid = grid_lib.Grid.of(volume)
    return volume, nifti.read_mask(str(label), case="case", like=grid, labels=range(3))


def source(folder: pathlib.Path, number: int) -> store.Source:
    image, label = folder / f"image_{number}.nii.gz", folder / f"label_{number}.nii.gz"
    return store.Source(
        f"case_{number}", (str(image), str(label)), functools.partial(load, image, label)
    )


def sources(folder: pathlib.Path) -> list[store.Source]:
    return [source(folder, number) for number in range(8)]


def make(root: pathlib.Path, **changes: Any) -> store.PreparedStore:
    arguments = {"name": "toy", "preparation": PREPARATION, "labels": ["background", "a", "b"]}
    return store.PreparedStore(str(root), **{**arguments, **changes})


def contents(root: pathlib.Path) -> dict[str, bytes]:
    """Returns all files below a folder."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def entries(root: pathlib.Path) -> list[pathlib.Path]:
    return sorted(root.rglob("*.scan"))
