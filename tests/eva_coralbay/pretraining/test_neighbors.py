"""Tests of the neighbors of organs."""

import numpy as np
import pytest
import torch

from eva_coralbay.pretraining import neighbors

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
