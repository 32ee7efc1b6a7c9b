"""Scans in memory in the place of a store, where preparing one would take the time of a GPU."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from eva_coralbay.data import preparation
from eva_coralbay.pretraining import PretrainingData, views


class _Case(NamedTuple):
    case: str
    sha256: str = ""


class _Manifest:
    """What the samples of a training ask of the manifest of a store."""

    def __init__(self, scans: Mapping[str, torch.Tensor], spacing: Sequence[float]) -> None:
        affine = np.diag([*spacing, 1.0])
        self.sha256 = ""
        self.spacing = tuple(spacing)
        self.prepared = tuple(_Case(name) for name in scans)
        self._scans = {
            name: preparation.LoadedScan(scan, None, affine) for name, scan in scans.items()
        }

    def open(self, case: _Case) -> preparation.LoadedScan:
        """Returns the prepared scan of a case."""
        return self._scans[case.case]


def data_of(
    scans: Mapping[str, torch.Tensor], sizes: views.Views, spacing: Sequence[float], **options: Any
) -> PretrainingData:
    """Returns the data of a training whose scans are in memory.

    Args:
        scans: The HU, int16, of shape [1, D, H, W], by name.
        sizes: The views.
        spacing: The spacing in mm, as (D, H, W).
        options: Further options of the data module.
    """
    data = PretrainingData(store="in memory", views=sizes, **options)
    manifest: Any = _Manifest(scans, spacing)
    data._manifest = manifest
    return data
