"""How a trained model does on scans that are a little unlike those of its task.

The same weights score every case again under perturbations of the scan: another HU window,
thicker slices, flips. A flip moves the labels with the scan. A scan that is flipped along one axis
is the mirror image of a body, whose left kidney is a right one, so the labels of paired organs are
swapped, and a perfect prediction scores 1 on them. Where a task has organs of one side only, a
mirror image has no labels: then there are no flips.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch.nn import functional
from torch.utils import data as torch_data
from typing_extensions import override

from eva_coralbay.data import preparation, transforms
from eva_coralbay.errors import EvaCoralbayError


@dataclasses.dataclass(frozen=True)
class Perturbation:
    """What is done to a scan; the default is nothing."""

    window_shift: float = 0.0
    """By how much the HU window moves, in HU."""

    window_scale: float = 1.0
    """By what the width of the HU window is multiplied, about its center."""

    has_thick_slices: bool = False
    """Whether two axial slices each are averaged, and the scan is resampled to its grid."""

    flipped_axis: int | None = None
    """The axis that is flipped, 0 to 2 of (D, H, W)."""


PERTURBATIONS: Final[Mapping[str, Perturbation]] = {
    "window_plus_50_hu": Perturbation(window_shift=50.0),
    "window_x_0.8": Perturbation(window_scale=0.8),
    "window_x_1.25": Perturbation(window_scale=1.25),
    "slice_thickness_x_2": Perturbation(has_thick_slices=True),
    "flip_superior_inferior": Perturbation(flipped_axis=0),
    "flip_anterior_posterior": Perturbation(flipped_axis=1),
    "flip_left_right": Perturbation(flipped_axis=2),
}
"""The perturbations by name. Slices are those of the task's grid, not of the scanner's."""


class PerturbedTransform(transforms.EvalTransform):
    """Makes of a prepared scan what another transform makes of it, but perturbed."""

    def __init__(self, scoring: transforms.EvalTransform, perturbation: Perturbation) -> None:
        """Initializes the transform.

        Args:
            scoring: The transform of the task. The scans are prepared as for it.
            perturbation: What is done to each scan.
        """
        low, high = scoring._hu_window
        center = (low + high) / 2 + perturbation.window_shift
        half = (high - low) / 2 * perturbation.window_scale
        super().__init__(
            spacing=scoring.preparation.spacing,
            hu_window=(center - half, center + half),
            mirror_pairs=scoring.mirror_pairs,
        )

        self.preparation = scoring.preparation
        self._perturbation = perturbation

    @override
    def __call__(self, scan: preparation.PreparedScan) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = scan.read_image(scan.whole), scan.read_mask(scan.whole)
        if self._perturbation.has_thick_slices:
            image = thicken_slices(image)
        image, axis = self._scale_window(image), self._perturbation.flipped_axis
        if axis is None:
            return image, mask
        swapped = transforms.swap_labels(mask, self.mirror_pairs or ())
        return image.flip(axis + 1), swapped.flip(axis + 1)


class _PerturbedDataset(torch_data.Dataset):
    """The cases of a data set, perturbed; the metadata say along which axis they are flipped."""

    def __init__(self, source: Any, perturbation: Perturbation) -> None:
        self._source = source.with_transforms(PerturbedTransform(source.transforms, perturbation))
        axis = perturbation.flipped_axis
        self._flipped_axis = -1 if axis is None else axis

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        image, target, metadata = self._source[index]
        return image, target, {**metadata, "flipped_axis": self._flipped_axis}


def thicken_slices(image: torch.Tensor) -> torch.Tensor:
    """Averages two axial slices each, and resamples the result linearly to the grid it had.

    Args:
        image: The scan, of shape [1, D, H, W]; of an odd D, the last slice counts twice.

    Returns:
        The scan, of the same shape.
    """
    n_slices = image.shape[1]
    even = torch.cat([image, image[:, -1:]], dim=1) if n_slices % 2 else image
    thick = functional.avg_pool3d(even[None], kernel_size=(2, 1, 1))
    resampled = functional.interpolate(
        thick, size=even.shape[1:], mode="trilinear", align_corners=False
    )
    return resampled[0, :, :n_slices]


def check(dataset: Any) -> None:
    """Checks that the scans of a data set can be perturbed.

    Args:
        dataset: The data set that is scored.

    Raises:
        EvaCoralbayError: If they do not come from an `EvalTransform`.
    """
    if not isinstance(getattr(dataset, "transforms", None), transforms.EvalTransform):
        raise EvaCoralbayError(
            "ROBUSTNESS perturbs the scans of a segmentation task, which come from "
            f"eva_coralbay.data.transforms.EvalTransform, but those of {type(dataset).__name__} do "
            "not: turn it off."
        )


def perturb(loader: torch_data.DataLoader[Any]) -> Iterator[tuple[str, torch_data.DataLoader[Any]]]:
    """Yields the loaders of the perturbed scans, one a perturbation that labels can be given for.

    Args:
        loader: The loader of the cases that are scored.

    Yields:
        The name of the perturbation, and a loader of the same cases in the same batches.
    """
    for name, perturbation in PERTURBATIONS.items():
        source: Any = loader.dataset
        if perturbation.flipped_axis is not None and source.transforms.mirror_pairs is None:
            continue
        dataset = _PerturbedDataset(source, perturbation)
        yield (
            name,
            torch_data.DataLoader(
                dataset,
                batch_size=loader.batch_size,
                num_workers=loader.num_workers,
                collate_fn=loader.collate_fn,
            ),
        )
