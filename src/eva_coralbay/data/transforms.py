"""Train and evaluation pipelines of the volumetric segmentation protocol.

The protocol is eva's (`configs/vision/radiology/online/segmentation/btcv.yaml` of kaiko-eva
0.4.5): isotropic resampling, one HU window scaled to [0, 1], crop to the foreground, class-wise
crops with mild augmentation. Here a crop is read first and only then augmented, every crop
draws its own augmentation, and one random stream a pipeline decides all of it.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from monai import transforms as monai_transforms
from torch.nn import functional
from typing_extensions import override

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import preparation
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.tasks import facts

MirrorPairs = Sequence[tuple[int, int]]
"""The label values of the left and the right one of each pair of organs."""


class EvalTransform:
    """Applies the HU window to a whole prepared scan.

    Its `preparation` says how the scans are to be prepared: resampled, and cropped to the body,
    which is what lies above the lower end of the window. The crop holds every labeled voxel,
    so that none escapes the scoring.
    """

    def __init__(
        self,
        *,
        spacing: Sequence[float] = facts.SPACING_MM,
        hu_window: tuple[float, float] = facts.SOFT_TISSUE_HU,
        mirror_pairs: MirrorPairs | None = None,
    ) -> None:
        """Initializes the transform.

        Args:
            spacing: The voxel spacing to resample to, in mm, as (D, H, W).
            hu_window: The lowest and the highest HU, which become 0 and 1.
            mirror_pairs: The pairs of label values that trade places in the mirror image of a
                scan, such as left and right kidney; None if a mirror image has no labels.

        Raises:
            EvaCoralbayError: If the spacing cannot be.
            EvaCoralbayError: If the window is empty.
        """
        if hu_window[0] >= hu_window[1]:
            raise EvaCoralbayError(f"`hu_window` must be (lowest, highest) in HU, got {hu_window}.")

        self.preparation = preparation.Preparation(
            grid_lib.check_spacing(spacing), float(hu_window[0])
        )
        self.mirror_pairs = mirror_pairs
        self._hu_window = hu_window

    def __call__(self, scan: preparation.PreparedScan) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns a scan and its mask.

        Args:
            scan: The scan, prepared as `preparation` says.

        Returns:
            The image in [0, 1] and the label map, both of shape [1, D, H, W] and float32 and
            integer respectively.
        """
        return self.image_of(scan), scan.read_mask(scan.whole)

    def image_of(self, scan: preparation.PreparedScan) -> torch.Tensor:
        """Returns the image in [0, 1] of a scan that need not have a mask, of shape [1, D, H, W].

        Args:
            scan: The scan, prepared as `preparation` says.
        """
        return self._scale_window(scan.read_image(scan.whole))

    def _scale_window(self, hounsfield: torch.Tensor) -> torch.Tensor:
        lowest, highest = self._hu_window
        return (hounsfield - lowest).div_(highest - lowest).clamp_(0.0, 1.0)


class TrainTransform(EvalTransform, monai_transforms.Randomizable):
    """Draws augmented crops, centered on voxels of classes drawn with equal chance.

    Each crop of size `roi_size` draws a class among those present (background included, equal
    chances unless `class_ratios` says otherwise) and one of its voxels as center; then flips
    along each axis, a rotation by a multiple of 90 degrees in the axial plane, and a scale and
    a shift of the intensities, each with probability 0.1.

    Flips along one or three axes make the mirror image of a body, whose left kidney is a right
    one: the labels of `mirror_pairs` are swapped. Flips along two axes are rotations, as the turns
    are, and change no label. Where a mirror image has no labels, one flip less is done.
    """

    _PROBABILITY = 0.1
    """The probability of each augmentation."""

    _INTENSITY_RANGE = 0.1
    """The largest relative scale and the largest shift of the intensities."""

    def __init__(
        self,
        *,
        roi_size: Sequence[int] = facts.CROP,
        num_samples: int = 4,
        class_ratios: Sequence[float] | None = None,
        spacing: Sequence[float] = facts.SPACING_MM,
        hu_window: tuple[float, float] = facts.SOFT_TISSUE_HU,
        mirror_pairs: MirrorPairs | None = None,
    ) -> None:
        """Initializes the transform.

        Args:
            roi_size: The size of a crop in voxels, as (D, H, W).
            num_samples: The number of crops a scan.
            class_ratios: The chance of each label value to be drawn, background first. Equal
                chances if None.
            spacing: The voxel spacing to resample to, in mm, as (D, H, W).
            hu_window: The lowest and the highest HU, which become 0 and 1.
            mirror_pairs: As for :class:`EvalTransform`. Without any pair, labels keep their values
                in mirror images, which is eva's way.
        """
        super().__init__(spacing=spacing, hu_window=hu_window, mirror_pairs=mirror_pairs)

        self.roi_size = grid_lib.check_window(roi_size)
        self.num_samples = num_samples
        self.class_ratios = class_ratios

    @override
    def __call__(  # type: ignore[reportIncompatibleMethodOverride]  # MONAI's transforms take any arguments
        self, scan: preparation.PreparedScan
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Draws the crops of one scan and reads no more than them.

        Args:
            scan: The scan, prepared as `preparation` says.

        Returns:
            The crops in [0, 1] (float32) and their label maps (int64), `num_samples` of each, of
            shape [1, *roi_size]. Where the scan is smaller than a crop there are zeros around it.
        """
        crops = [self._augment(*self._read(scan, center)) for center in self._draw_centers(scan)]
        images, targets = zip(*crops, strict=True)
        return list(images), list(targets)

    def _read(
        self, scan: preparation.PreparedScan, center: tuple[int, int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads the crop around a voxel, moved inside the scan where it sticks out."""
        depth, height, width = (
            _extent_around(index, size, length)
            for index, size, length in zip(center, self.roi_size, scan.grid.shape, strict=True)
        )
        box = depth, height, width
        image = self._scale_window(scan.read_image(box))
        return _pad(image, self.roi_size), _pad(scan.read_mask(box), self.roi_size)

    def _draw_centers(self, scan: preparation.PreparedScan) -> list[tuple[int, int, int]]:
        """Draws the centers of the crops by the classes in the label map."""
        counts = scan.label_counts
        classes, probabilities = self._class_probabilities(counts)
        return [
            scan.locate(int(drawn), int(self.R.randint(counts[drawn])))
            for drawn in self.R.choice(classes, size=self.num_samples, p=probabilities)
        ]

    def _class_probabilities(
        self, counts: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Returns the label values that are present and the chance of each."""
        ratios = np.ones(len(counts)) if self.class_ratios is None else self._ratios(len(counts))
        ratios = np.where(counts > 0, ratios, 0.0)
        if not ratios.any():
            ratios = (counts > 0).astype(np.float64)
        classes = np.flatnonzero(ratios)
        return classes, ratios[classes] / ratios.sum()

    def _ratios(self, num_labels: int) -> npt.NDArray[np.float64]:
        ratios = np.asarray(self.class_ratios, dtype=np.float64)
        if len(ratios) < num_labels:
            raise EvaCoralbayError(
                f"`class_ratios` has {len(ratios)} entries but the label map holds the value "
                f"{num_labels - 1}: give one ratio per class, background first."
            )
        return ratios[:num_labels]

    def _augment(
        self, image: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Flips, rotates and changes the intensities of one crop."""
        axes = [axis for axis in (1, 2, 3) if self._happens()]
        if len(axes) % 2 and self.mirror_pairs is None:
            axes.pop()
        turns = self._draw_turns() if self._happens() else 0
        scale = 1.0 + self._draw_intensity() if self._happens() else 1.0
        shift = self._draw_intensity() if self._happens() else 0.0
        # most crops draw nothing, and even a flip of no axis copies
        if axes or turns:
            image, target = (
                torch.rot90(tensor.flip(axes), turns, dims=(2, 3)) for tensor in (image, target)
            )
        if len(axes) % 2:
            target = swap_labels(target, self.mirror_pairs or ())
        if scale != 1.0 or shift != 0.0:
            image = image * scale + shift
        return image.contiguous(), target.long().contiguous()

    def _happens(self) -> bool:
        return self.R.random_sample() < self._PROBABILITY

    def _draw_turns(self) -> int:
        """Draws a number of quarter turns that keeps the shape of the crop."""
        return int(self.R.randint(1, 4)) if self.roi_size[1] == self.roi_size[2] else 2

    def _draw_intensity(self) -> float:
        return self.R.uniform(-self._INTENSITY_RANGE, self._INTENSITY_RANGE)


def swap_labels(mask: torch.Tensor, pairs: MirrorPairs) -> torch.Tensor:
    """Swaps the label values of pairs.

    Args:
        mask: A label map of any shape.
        pairs: The pairs; a value is in one of them at the most.

    Returns:
        The label map with the values swapped.
    """
    swapped = mask.clone()
    for first, second in pairs:
        swapped[mask == first] = second
        swapped[mask == second] = first
    return swapped


def unflip(logits: torch.Tensor, axis: int, pairs: MirrorPairs) -> torch.Tensor:
    """Returns the logits of a scan from those of its mirror image.

    Args:
        logits: The logits, of shape [classes, D, H, W].
        axis: The axis that the scan was flipped along, 0 to 2 of (D, H, W).
        pairs: The pairs of label values that trade places.
    """
    if not pairs:
        return logits.flip(axis + 1)
    classes = list(range(len(logits)))
    for first, second in pairs:
        classes[first], classes[second] = second, first
    return logits[classes].flip(axis + 1)


def _extent_around(index: int, size: int, length: int) -> slice:
    """Returns `size` voxels around one of an axis, moved inside it; all of a shorter axis."""
    start = max(min(index - size // 2, length - size), 0)
    return slice(start, min(start + size, length))


def _pad(tensor: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Pads a volume of shape [1, D, H, W] with zeros on both sides to at least `size`."""
    missing = [
        max(wanted - length, 0) for wanted, length in zip(size, tensor.shape[1:], strict=True)
    ]
    padding = [side for total in reversed(missing) for side in (total // 2, math.ceil(total / 2))]
    return functional.pad(tensor, padding) if any(missing) else tensor
