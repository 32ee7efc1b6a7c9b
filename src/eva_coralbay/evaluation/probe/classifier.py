"""The linear classifier of a probe: a linear discriminant in closed form, and its strength.

Classes are Gaussians with means of their own and one covariance, that within the classes, which
are weighted equally. Two numbers regularize it:

- `shrinkage` draws the covariance of the standardized features towards the identity, as
  scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=...)` does;
- `prior` is the exponent of the frequencies of the classes, which are those of the voxels of the
  training cases. At 0 a voxel is as likely of a small organ as of the background, which finds
  every organ and much beside it; a linear model needs more than 1 for the best Dice.

Both are chosen by leaving out each training case once: its sums are subtracted from the total, and
the Dice of the case is estimated from its drawn voxels, each of which stands for many.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from eva_coralbay.evaluation.probe import subsets, sums


class Strength(NamedTuple):
    """How a classifier is regularized."""

    shrinkage: float
    """The share of the identity in the covariance, in [0, 1]."""

    prior: float
    """The exponent of the frequencies of the classes."""


STRENGTHS = tuple(
    itertools.starmap(
        Strength,
        itertools.product((0.01, 0.1, 0.3, 0.6, 0.9), (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)),
    )
)
"""The strengths to choose from."""

DEFAULT_STRENGTH = Strength(0.6, 2.0)
"""The strength where there is only one training case, so that none can be left out."""


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A linear classifier on feature maps."""

    weights: torch.Tensor
    """Of shape [classes, E of the maps that count], float64."""

    bias: torch.Tensor
    """Of shape [classes], float64; minus infinity for a class that no training case holds."""

    maps: tuple[int, ...]
    """Which feature maps count."""

    strength: Strength
    """How it was regularized."""

    balanced_bias: torch.Tensor
    """The bias if every class were equally frequent, for the balanced accuracy."""


def fit(
    samples: Sequence[sums.Samples], parts: Sequence[sums.Sums], *, maps: Sequence[int]
) -> Classifier:
    """Fits a classifier to some cases, with the strength that is best for them.

    Args:
        samples: The drawn voxels of each case, with the features of the maps that count.
        parts: The sums of each case, of the same features.
        maps: Which feature maps these are.
    """
    strength = choose_strength(samples, parts)
    weights, biases = solve(_total(parts), [strength, strength._replace(prior=0.0)])
    return Classifier(weights[0], biases[0], tuple(maps), strength, biases[1])


def fit_subsets(
    cases: Mapping[str, sums.Samples], chosen: Sequence[subsets.Subset], *, maps: sums.Maps
) -> list[Classifier]:
    """Fits a classifier to each of some subsets of the training cases.

    Args:
        cases: The drawn voxels of each training case, with the features of all maps.
        chosen: The subsets.
        maps: Which feature maps count.

    Raises:
        EvaCoralbayError: If the encoder has no such maps.
    """
    n_maps = len(next(iter(cases.values())).channels)
    counted = sums.resolve_maps(maps, n_maps)
    selected = {case: samples.select(counted) for case, samples in cases.items()}
    parts = {case: sums.Sums.of(samples) for case, samples in selected.items()}
    return [
        fit(
            [selected[case] for case in subset.cases],
            [parts[case] for case in subset.cases],
            maps=counted,
        )
        for subset in chosen
    ]


def choose_strength(samples: Sequence[sums.Samples], parts: Sequence[sums.Sums]) -> Strength:
    """Chooses the strength by leaving out each case once; see the module.

    Args:
        samples: The drawn voxels of each case.
        parts: The sums of each case.

    Returns:
        The strength with the highest mean Dice, the first of `STRENGTHS` among equal ones.
    """
    if len(parts) < 2:
        return DEFAULT_STRENGTH
    total = _total(parts)
    scores = torch.stack(
        [
            estimate_dice(left_out, *solve(total - part, STRENGTHS))
            for left_out, part in zip(samples, parts, strict=True)
        ]
    )
    return STRENGTHS[int(scores.nanmean(dim=0).nan_to_num(-1.0).argmax())]


def solve(total: sums.Sums, strengths: Sequence[Strength]) -> tuple[torch.Tensor, torch.Tensor]:
    """Solves for the classifiers of several strengths.

    Args:
        total: The sums of the training cases.
        strengths: The strengths.

    Returns:
        The weights [strengths, classes, E] and the biases [strengths, classes], float64.
    """
    present = total.weights > 0.5
    weights = total.weights.where(present, torch.ones_like(total.weights))
    means = total.firsts / weights
    center = (total.firsts.sum(dim=1) / total.weights.sum())[:, None]
    within = (total.seconds - (means * total.weights * present) @ means.T) / total.weights.sum()
    scale = within.diagonal().clamp_min(_TINY).sqrt()[:, None]
    within = within / scale / scale.T
    standardized = (means - center) / scale

    directions = {
        shrinkage: _solve_for(within, standardized, shrinkage)
        for shrinkage in {strength.shrinkage for strength in strengths}
    }
    log_frequencies = (total.totals.clamp_min(_TINY) / total.totals.sum()).log()
    all_weights, all_biases = [], []
    for strength in strengths:
        direction = directions[strength.shrinkage]
        coefficients = direction / scale
        bias = -0.5 * (standardized * direction).sum(dim=0) - (center * coefficients).sum(dim=0)
        bias = bias + strength.prior * log_frequencies
        all_weights.append((coefficients * present).T)
        all_biases.append(bias.masked_fill(~present, -torch.inf))
    return torch.stack(all_weights), torch.stack(all_biases)


def _solve_for(within: torch.Tensor, means: torch.Tensor, shrinkage: float) -> torch.Tensor:
    """Solves for the directions of one shrinkage; of several at once it would take the memory."""
    shrunk = (1.0 - shrinkage) * within
    shrunk.diagonal().add_(shrinkage)
    return torch.cholesky_solve(means, torch.linalg.cholesky(shrunk))


_TINY = 1e-12
"""What a variance or a frequency is at least, so that a constant feature has no infinite weight."""


def _total(parts: Sequence[sums.Sums]) -> sums.Sums:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def estimate_dice(samples: sums.Samples, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Estimates the mean Dice of a case under several classifiers from its drawn voxels.

    Args:
        samples: The drawn voxels, each of which stands for as many as there are a drawn one.
        weights: The weights of the classifiers, of shape [classifiers, classes, E].
        bias: The biases, of shape [classifiers, classes].

    Returns:
        The mean over the foreground classes that it holds, of shape [classifiers].
    """
    n_classifiers, n_classes = bias.shape
    logits = samples.features @ weights.flatten(0, 1).T.float()
    logits = logits.unflatten(1, (n_classifiers, n_classes)) + bias.float()
    predictions = torch.nn.functional.one_hot(logits.argmax(dim=2), n_classes).double()
    counts = torch.bincount(samples.labels, minlength=n_classes)
    stands_for = samples.totals.double() / counts
    truth = torch.nn.functional.one_hot(samples.labels, n_classes).double()
    truth = truth * stands_for[samples.labels][:, None]
    # [classifiers, true class, predicted class]
    confusion = torch.einsum("nt,nkp->ktp", truth, predictions)
    both = confusion.diagonal(dim1=1, dim2=2)
    dice = 2.0 * both / (confusion.sum(dim=1) + confusion.sum(dim=2))
    held = (counts > 0)[1:]
    return dice[:, 1:][:, held].mean(dim=1)
