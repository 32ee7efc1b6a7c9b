"""MONAI's side of the data path: cached scans, and its random transforms.

See `pretraining.py` for what is compared.
"""

from collections.abc import Sequence
from typing import Any

import torch
from monai import data as monai_data
from monai import transforms as monai_transforms
from torch.utils import data as torch_data

from eva_coralbay.pretraining import views

WORKERS = 2
"""The data workers of both sides."""

SPACING = (1.5, 1.5, 1.5)
"""The voxel spacing of both sides, in mm."""

_AIR = -1024.0
"""The HU around a scan that is smaller than a region."""

_BODY_ABOVE = -500.0
"""The HU above which both sides keep a scan."""

_WINDOWS = ((-1000, 1000), (-1350, 150), (-160, 240), (-40, 160), (-500, 1300), (-125, 225))
"""The HU windows (lower, upper) that MONAI's side chooses from."""

_ENDLESS = 10**9
"""More samples than are drawn."""


class _MultiCrop(monai_transforms.Randomizable, monai_transforms.Transform):
    """Makes the views of a region with MONAI's transforms."""

    def __init__(self, sizes: views.Views) -> None:
        self._num_locals = sizes.num_locals
        self._global: Any = _view_transform(sizes.global_edge, sizes.global_size)
        self._local: Any = _view_transform(sizes.local_edge, sizes.local_size)

    def set_random_state(self, seed: int | None = None, state: Any = None) -> "_MultiCrop":
        super().set_random_state(seed, state)
        self._global.set_random_state(state=self.R)
        self._local.set_random_state(state=self.R)
        return self

    def __call__(self, data: dict[str, Any]) -> dict[str, torch.Tensor]:
        region = data["image"]
        return {
            "globals": torch.stack([self._global(region) for _ in range(views.NUM_GLOBALS)]),
            "locals": torch.stack([self._local(region) for _ in range(self._num_locals)]),
        }


def _view_transform(edges: tuple[int, int], size: int) -> monai_transforms.Compose:
    """Returns what makes a view of a region [1, R, R, R]."""
    windows = [
        monai_transforms.ScaleIntensityRange(lower, upper, 0.0, 1.0, clip=True)
        for lower, upper in _WINDOWS
    ]
    sigma = (0.25, 1.0)
    return monai_transforms.Compose(
        [
            monai_transforms.RandSpatialCrop(edges[0], max_roi_size=edges[1], random_size=True),
            monai_transforms.Resize((size, size, size), mode="trilinear"),
            *(monai_transforms.RandFlip(prob=0.5, spatial_axis=axis) for axis in range(3)),
            monai_transforms.RandRotate90(prob=0.3, spatial_axes=(1, 2)),
            monai_transforms.OneOf(windows),
            monai_transforms.RandAdjustContrast(prob=0.3, gamma=(0.5, 2.0)),
            monai_transforms.RandGaussianSmooth(
                sigma_x=sigma, sigma_y=sigma, sigma_z=sigma, prob=0.3
            ),
            monai_transforms.RandGaussianNoise(prob=0.3, std=0.05),
        ]
    )


def loader(
    paths: Sequence[str], cache: str, sizes: views.Views, *, batch_size: int, renders: bool
) -> monai_data.DataLoader:
    """Returns a loader that yields regions or, if it renders, the views of them."""
    keys, region = ["image"], (sizes.region_size,) * 3
    transform = monai_transforms.Compose(
        [
            monai_transforms.LoadImaged(keys),
            monai_transforms.EnsureChannelFirstd(keys),
            monai_transforms.Orientationd(keys, axcodes="RAS"),
            monai_transforms.Spacingd(keys, pixdim=SPACING, mode="bilinear"),
            monai_transforms.CropForegroundd(keys, source_key="image", select_fn=_is_body),
            monai_transforms.SpatialPadd(keys, spatial_size=region, value=_AIR),
            # what is above is cached
            monai_transforms.RandSpatialCropd(keys, roi_size=region, random_size=False),
            *([_MultiCrop(sizes)] if renders else []),
        ]
    )
    dataset = monai_data.PersistentDataset([{"image": path} for path in paths], transform, cache)
    sampler = torch_data.RandomSampler(dataset, replacement=True, num_samples=_ENDLESS)
    return monai_data.DataLoader(
        dataset, num_workers=WORKERS, batch_size=batch_size, sampler=sampler
    )


def _is_body(hounsfield: torch.Tensor) -> torch.Tensor:
    return hounsfield > _BODY_ABOVE
