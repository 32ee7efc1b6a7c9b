"""Data that the tests of several modules of this folder evaluate on."""

import pathlib
from collections.abc import Iterator

import pytest

from tests.eva_coralbay.data.datasets import classification_layouts
from tests.eva_coralbay.data.datasets.layouts import few_cases


@pytest.fixture(name="nodules", scope="module")
def _nodules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """A few volumes of NoduleMNIST3D, and splits of no others."""
    folder = tmp_path_factory.mktemp("nodules")
    with pytest.MonkeyPatch.context() as patch:
        splits = few_cases("nodule_mnist_3d", patch, count=16)
        classification_layouts.write_nodule_mnist_3d(
            folder, classification_layouts.all_cases(splits)
        )
        yield folder
