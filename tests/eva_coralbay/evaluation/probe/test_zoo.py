"""Probes every encoder that is known by name, with random weights, on three cases."""

import os
from typing import Any

import pytest
import torch

from eva_coralbay.evaluation.probe import classifier, scans, subsets, sums
from eva_coralbay.models import loading, zoo

_EDGE = 64
"""The edge of scans and windows, in voxels."""

_NUM_CLASSES = 3

_GIB = {"radiology/fmcib": 32}
"""The memory that an encoder of very many channels takes, in GiB; others take less than 8."""


def _case(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A scan [1, D, H, W] of two bright boxes in noise, and its labels [D, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(_EDGE, _EDGE, _EDGE, dtype=torch.uint8)
    mask[8:36, 8 + seed : 40, 6:40] = 1
    mask[40:60, 20:60, 30 + seed : 60] = 2
    noise = 0.1 * torch.rand(mask.shape, generator=generator)
    return (0.3 * mask + noise)[None], mask


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.ENTRIES)
def test_every_encoder_can_be_probed(name: str) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if memory < _GIB.get(name, 8):
        pytest.skip(f"needs {_GIB.get(name, 8)} GiB of memory")
    entry = zoo.ENTRIES[name]
    torch.manual_seed(0)
    encoder: Any = loading.build(entry, random_weights=True, out_indices=len(entry.maps) or 6)
    sliding = scans.Sliding(size=(_EDGE, _EDGE, _EDGE))
    samples = {}
    for seed in range(3):
        image, mask = _case(seed)
        draw = sums.draw_voxels(mask, str(seed), n_classes=_NUM_CLASSES)
        samples[str(seed)] = scans.sample_case(encoder, image, draw, sliding=sliding)

    fitted = classifier.fit_subsets(samples, subsets.draw("task", list(samples)), maps="all")
    image, mask = _case(0)
    labels = scans.label_scan(encoder, image, fitted, sliding=sliding)[-1]

    assert labels.shape == mask.shape and int(labels.max()) < _NUM_CLASSES
    assert all(torch.isfinite(one.weights).all() for one in fitted)
    # a case that it was fitted to: better than the background everywhere
    agreement = (labels == mask).float().mean()
    assert agreement > (mask == 0).float().mean()
