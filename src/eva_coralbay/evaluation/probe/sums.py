"""The features of drawn voxels of a case, and their sums, of which classifiers are made."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation.probe import subsets

Maps = Literal["all", "swin", "last"] | Sequence[int]
"""Which feature maps count, from fine to coarse: all; `swin`, those from the third on, which in a
Swin encoder are more than convolutions of the scan and of its patches; the last; or given ones."""

VOXELS_PER_CLASS = 256
"""How many voxels of each foreground class are drawn from a case."""

BACKGROUND_VOXELS = 2048
"""How many voxels of the background are drawn: it is most of a scan, and looks like anything."""


def resolve_maps(maps: Maps, n_maps: int) -> tuple[int, ...]:
    """Returns the numbers of the feature maps that count.

    Args:
        maps: The choice.
        n_maps: The number of maps of the encoder.

    Raises:
        EvaCoralbayError: If the encoder has no such maps.
    """
    named = {"all": range(n_maps), "swin": range(2, n_maps), "last": range(n_maps - 1, n_maps)}
    chosen = tuple(named[maps]) if isinstance(maps, str) else tuple(maps)
    if not chosen or not all(0 <= index < n_maps for index in chosen):
        raise EvaCoralbayError(
            f"`maps` is {maps!r}, but the encoder has {n_maps} feature maps: give 'all', 'swin' "
            f"(from the third on), 'last', or numbers from 0 to {n_maps - 1}."
        )
    return chosen


class Draw(NamedTuple):
    """Voxels that are drawn from a case."""

    voxels: torch.Tensor
    """Their positions, of shape [N, 3] as (D, H, W)."""

    labels: torch.Tensor
    """Their labels, of shape [N]."""

    totals: torch.Tensor
    """How many voxels of each class the case has, of shape [classes]."""


def draw_voxels(
    mask: torch.Tensor,
    case: str,
    *,
    n_classes: int,
    per_class: int = VOXELS_PER_CLASS,
    background: int = BACKGROUND_VOXELS,
) -> Draw:
    """Draws voxels of each class, by the id of the case.

    Args:
        mask: The label map, of shape [D, H, W].
        case: The id of the case.
        n_classes: The number of classes, background included.
        per_class: The number of voxels of each foreground class; all where there are fewer.
        background: The number of voxels of the background.

    Raises:
        EvaCoralbayError: If a label is not below `n_classes`.
    """
    stream = subsets.random_state(f"voxels/{case}")
    labels = mask.cpu().numpy()
    flat = labels.ravel()
    totals = np.bincount(flat, minlength=n_classes)
    if len(totals) > n_classes:
        raise EvaCoralbayError(
            f"Case '{case}' has the label {len(totals) - 1}, but its task has the labels 0 to "
            f"{n_classes - 1}. Correct the label map, or name the class."
        )
    drawn = [
        _choose(np.flatnonzero(flat == label), per_class if label else background, stream)
        for label in range(n_classes)
        if totals[label]
    ]
    chosen = np.concatenate(drawn) if drawn else np.zeros(0, dtype=np.intp)
    positions = np.stack(np.unravel_index(chosen, labels.shape), axis=1)
    return Draw(
        torch.from_numpy(positions.astype(np.int64)),
        torch.from_numpy(flat[chosen].astype(np.int64)),
        torch.from_numpy(totals.astype(np.int64)),
    )


def _choose(
    candidates: npt.NDArray[np.intp], number: int, stream: np.random.RandomState
) -> npt.NDArray[np.intp]:
    if len(candidates) <= number:
        return candidates
    return np.sort(candidates[stream.permutation(len(candidates))[:number]])


@dataclasses.dataclass(frozen=True)
class Samples:
    """The features of the drawn voxels of a case."""

    features: torch.Tensor
    """Of shape [N, E], float32, the maps from fine to coarse."""

    labels: torch.Tensor
    """Of shape [N]."""

    totals: torch.Tensor
    """How many voxels of each class the case has, of shape [classes]."""

    channels: tuple[int, ...]
    """The number of channels of each map."""

    def select(self, maps: Sequence[int]) -> "Samples":
        """Returns the samples with the features of some of the maps only."""
        blocks = self.features.split(self.channels, dim=1)
        return dataclasses.replace(
            self,
            features=torch.cat([blocks[index] for index in maps], dim=1),
            channels=tuple(self.channels[index] for index in maps),
        )


@dataclasses.dataclass(frozen=True)
class Sums:
    """The weighted sums of voxels of one or more cases, in float64. They add up.

    The voxels of a class that a case holds have the weight 1 together.
    """

    weights: torch.Tensor
    """The weight of each class, of shape [classes]: the number of cases that hold it."""

    firsts: torch.Tensor
    """X'Y, the weighted sums of the features by class, of shape [E, classes]."""

    seconds: torch.Tensor
    """X'X, the weighted sums of the products of features, of shape [E, E]."""

    totals: torch.Tensor
    """How many voxels of each class the cases have, of shape [classes]."""

    @staticmethod
    def of(samples: Samples) -> "Sums":
        """Returns the sums of a case: each class that it holds has the weight 1."""
        n_classes = len(samples.totals)
        counts = torch.bincount(samples.labels, minlength=n_classes)
        weights = (1.0 / counts.double())[samples.labels]
        features = samples.features.double()
        weighted = features * weights[:, None]
        one_hot = torch.nn.functional.one_hot(samples.labels, n_classes).double()
        return Sums(
            weights=(counts > 0).double(),
            firsts=weighted.T @ one_hot,
            seconds=weighted.T @ features,
            totals=samples.totals.double(),
        )

    def __add__(self, other: "Sums") -> "Sums":
        """Returns the sums of the cases of both."""
        return Sums(*(a + b for a, b in zip(self._parts, other._parts, strict=True)))

    def __sub__(self, other: "Sums") -> "Sums":
        """Returns the sums without those of some of the cases."""
        return Sums(*(a - b for a, b in zip(self._parts, other._parts, strict=True)))

    def select(self, channels: Sequence[int], maps: Sequence[int]) -> "Sums":
        """Returns the sums of some of the maps only.

        Args:
            channels: The number of channels of every map.
            maps: The maps that count.
        """
        blocks = torch.arange(sum(channels)).split(list(channels))
        columns = torch.cat([blocks[index] for index in maps]).to(self.seconds.device)
        return dataclasses.replace(
            self, firsts=self.firsts[columns], seconds=self.seconds[columns][:, columns]
        )

    @property
    def _parts(self) -> tuple[torch.Tensor, ...]:
        return self.weights, self.firsts, self.seconds, self.totals
