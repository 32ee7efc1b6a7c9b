"""Data sets in the raw layout of nnU-Net."""

import pathlib
from typing import Any

from eva_coralbay.data import datasets

CASES = [f"case_{index:02d}" for index in range(10)]


SPLITS = [
    {"train": ["case_02", "case_00"], "val": ["case_01"]},
    {"train": ["case_01"], "val": ["case_00", "case_02"]},
]


def make(root: pathlib.Path, split: Any = None, **kwargs: Any) -> datasets.NnUNet:
    dataset = datasets.NnUNet(str(root), split, **kwargs)
    dataset.setup()
    return dataset
