"""Tests the seeding of the random transforms."""

import numpy as np
import torch
from eva.vision.data import transforms as eva_transforms
from monai import transforms as monai_transforms
from torch.utils import data as torch_data
from torchvision.transforms import v2

from eva_coralbay.data import seeding


class _Pair(torch_data.Dataset):
    """Yields what two random transforms draw, as eva's intensity transforms would."""

    def __init__(self) -> None:
        self.scale = monai_transforms.RandScaleIntensity(factors=0.1, prob=0.5)
        self.shift = {"nested": [monai_transforms.RandShiftIntensity(offsets=0.1, prob=0.5)]}

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> torch.Tensor:
        ones = np.ones((1, 2, 2, 2), dtype=np.float32)
        scaled = self.scale(ones).mean()
        shifted = self.shift["nested"][0](ones).mean()
        return torch.tensor([float(scaled), float(shifted)])


def _draw(num_workers: int, seed: int = 3) -> torch.Tensor:
    torch.manual_seed(seed)
    loader = torch_data.DataLoader(
        _Pair(), batch_size=4, num_workers=num_workers, worker_init_fn=seeding.seed_worker
    )
    return torch.cat(list(loader))


def test_two_loaders_with_one_seed_draw_the_same() -> None:
    assert torch.equal(_draw(num_workers=2), _draw(num_workers=2))
    assert not torch.equal(_draw(num_workers=2), _draw(num_workers=2, seed=4))


def test_transforms_of_one_worker_draw_apart() -> None:
    fired = _draw(num_workers=1) != 1.0
    assert fired.any(dim=0).all()
    assert not torch.equal(fired[:, 0], fired[:, 1])


def test_finds_the_transforms_inside_eva_wrappers_once() -> None:
    compose = v2.Compose(
        [
            eva_transforms.RandFlip(spatial_axes=[0, 1, 2]),
            eva_transforms.RandScaleIntensity(factors=0.1),
        ]
    )
    assert seeding.seed_randomizables([compose, compose], seed=0) == 4


def test_nothing_to_seed() -> None:
    assert seeding.seed_randomizables(None, seed=0) == 0
