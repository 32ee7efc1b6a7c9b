"""Folders of good results."""

import pathlib
import shutil

import pytest

from tests.eva_coralbay.leaderboard import result_files


@pytest.fixture(scope="module")
def _good(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A results folder of two models, protocols, kinds and seeds."""
    root = tmp_path_factory.mktemp("good")
    for seed in (0, 1):
        result_files.write(root, seed=seed)
        result_files.write(root, seed=seed, task="openkbp_oar", kind="demo")
    result_files.write(root, seed=3, protocol="frozen-eva")
    result_files.write(root, model="lab/a/b", seed=1)
    (root / "README.md").write_text("What this is.")
    return root


@pytest.fixture
def folder(_good: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the good folder."""
    return pathlib.Path(shutil.copytree(_good, tmp_path / "results"))
