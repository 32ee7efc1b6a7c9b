"""Small stores for the tests of the pre-training."""

import functools
import os
import pathlib

import numpy as np
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from scipy import ndimage

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import preparation, store
from eva_coralbay.pretraining.manifest import Case, Geometry, Manifest
from eva_coralbay.pretraining.views import Views

VIEWS = Views(
    global_size=34, local_size=33, num_locals=1, global_edge=(30, 44), local_edge=(16, 24),
    region_size=44,
)  # fmt: skip
"""The smallest views that the encoder takes."""

SPACING = (3.0, 3.0, 3.0)


def write_store(folder: pathlib.Path, *, cases: int = 3, shape: tuple = (50, 48, 46)) -> str:
    """Writes a store of random scans and returns its path."""
    prepared_store = store.PreparedStore(
        str(folder), name="ct", preparation=preparation.Preparation(SPACING)
    )
    rows = []
    for index in range(cases):
        source_path = folder / f"source_{index}.txt"
        source_path.parent.mkdir(parents=True, exist_ok=True)
        source_path.write_text("")
        load = functools.partial(_load, index, shape)
        source = store.Source(f"case_{index}", (str(source_path),), load)
        prepared_store.prepare([source], workers=1)
        path, key = prepared_store.locate(source)
        rows.append(
            Case(
                case=source.case,
                kind="nifti",
                identity=str(index),
                sha256="0" * 64,
                status="prepared",
                prepared=Geometry(shape=prepared_store.open(source).grid.shape, spacing=SPACING),
                path=os.path.relpath(path, folder),
                key=key,
            )
        )
    Manifest(spacing=SPACING, cases=tuple(rows)).write(str(folder))
    return str(folder)


def _load(seed: int, shape: tuple) -> tuple[eva_tv_tensors.Volume, None]:
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 2.0)
    hounsfield = 400.0 * smooth / smooth.std()
    affine = grid_lib.straight_affine(SPACING, (0.0, 0.0, 0.0))
    tensor = torch.from_numpy(hounsfield[None]).float()
    return eva_tv_tensors.Volume(tensor, affine=torch.from_numpy(affine)), None
