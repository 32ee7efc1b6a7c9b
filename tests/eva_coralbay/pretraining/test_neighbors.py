"""Tests of the neighbors of organs."""

import json
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eva_coralbay.pretraining import neighbors
from eva_coralbay.pretraining.samples import AIR
from tests.eva_coralbay.pretraining import scans

_ORGANS = np.tile(np.arange(3), 12)
_CASES = np.repeat(np.arange(4), 9)


def test_tells_what_lies_apart() -> None:
    embeddings = torch.eye(3)[_ORGANS] + 0.01 * torch.randn(36, 3)
    assert neighbors.score(embeddings, _ORGANS, _CASES) == 1.0


def test_does_not_look_at_the_same_case() -> None:
    # an embedding says which case it is of, and nothing of the organ
    embeddings = 10.0 * torch.eye(4)[_CASES] + torch.randn(
        36, 4, generator=torch.Generator().manual_seed(0)
    )
    assert neighbors.score(embeddings, _ORGANS, _CASES) == pytest.approx(1 / 3, abs=0.25)


_SHAPE = (12, 14, 16)
"""The shape (D, H, W) of a scan whose HU tell where a voxel lies."""

_SIZE = 8
"""The edge of the crops."""


def _positions() -> np.ndarray:
    return (np.arange(np.prod(_SHAPE)).reshape(_SHAPE) - 300).astype(np.int16)


def _write_dataset(root: pathlib.Path, organs: list[tuple[int, int, int]]) -> None:
    """Writes a scan with organs of one voxel, and a second one as cases of others are needed."""
    affine = scans.affine(spacing=(3.0, 3.0, 3.0))
    labels = np.zeros(_SHAPE, dtype=np.uint8)
    for label, place in enumerate(organs, start=1):
        labels[place] = label
    for case in ("a", "b"):
        scans.write_nifti(root / f"imagesTr/{case}_0000.nii.gz", _positions(), affine)
        scans.write_nifti(root / f"labelsTr/{case}.nii.gz", labels, affine)
    names = {"background": 0} | {f"organ_{index}": index for index in range(1, len(organs) + 1)}
    description = {
        "channel_names": {"0": "CT"}, "labels": names, "numTraining": 2, "file_ending": ".nii.gz",
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(description))
    (root / "splits_final.json").write_text(json.dumps([{"train": [], "val": ["a", "b"]}]))


def test_crops_lie_around_their_organ_in_air(tmp_path: pathlib.Path) -> None:
    """Whichever sides of the scan they exceed, by however much."""
    organs = [(0, 7, 15), (11, 1, 8), (6, 13, 0), (6, 7, 8), (2, 0, 12)]
    _write_dataset(tmp_path, organs)
    crops: list[np.ndarray] = []

    class Module:
        data = SimpleNamespace(
            manifest=SimpleNamespace(spacing=(3.0, 3.0, 3.0)),
            views=SimpleNamespace(local_size=_SIZE),
        )

        def embed(self, hounsfield: torch.Tensor, window: object) -> torch.Tensor:
            crops.append(hounsfield[0, 0].numpy())
            return torch.eye(5)[len(crops) // 3 % 5][None]

    description = {
        "class_path": "eva_coralbay.data.datasets.NnUNet",
        "init_args": {"root": str(tmp_path), "prepared": False, "unchecked_cases": ["*"]},
    }
    neighbors.measure(Module(), description, window=(0.0, 1.0))
    assert len(crops) == 2 * len(organs) * 3
    around = np.pad(_positions(), _SIZE, constant_values=AIR)
    for index, place in enumerate(organs):
        depth, height, width = (slice(at + _SIZE // 2, at + 3 * _SIZE // 2) for at in place)
        np.testing.assert_array_equal(crops[3 * index], around[depth, height, width])
