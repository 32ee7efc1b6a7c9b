"""Scans for the store."""

import multiprocessing
import pathlib

import numpy as np
import pytest

from tests.eva_coralbay.data import stores
from tests.eva_coralbay.data.datasets import layouts


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The files of eight scans with a body of noise in air, and two labels."""
    folder = tmp_path_factory.mktemp("scans")
    for seed in range(8):
        generator = np.random.default_rng(seed)
        hounsfield = np.full((44, 36, 28 + seed), -1000, dtype=np.int16)
        body = hounsfield[4:-4, 3:-3, 2:-2]
        body[:] = generator.normal(40, 60, body.shape)
        labels = np.zeros(hounsfield.shape, dtype=np.uint8)
        labels[8:20, 8:20, 8:20] = 1
        labels[25:30, 8:20, 8:12] = 2
        layouts.write_volume(folder / f"image_{seed}.nii.gz", hounsfield)
        layouts.write_volume(folder / f"label_{seed}.nii.gz", labels)
    return folder


@pytest.fixture(scope="module")
def undisturbed(scans: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a store that nothing happened to."""
    root = tmp_path_factory.mktemp("undisturbed")
    stores.make(root).prepare(stores.sources(scans))
    return stores.contents(root)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the workers forked instead of started anew, which takes long."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: stores.FORK)
