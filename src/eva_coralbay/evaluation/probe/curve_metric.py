"""Dice by case, with all training cases and with few of them."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from typing_extensions import override

from eva_coralbay.evaluation import metrics
from eva_coralbay.results import case_table, label_curves


class CurveSegmentation(metrics.CaseSegmentation):
    """Scores segmentations, and their Dice with fewer training cases.

    Beside what :class:`CaseSegmentation` gives, which is with all training cases, the table has
    the Dice on the resampled grid, where `<dice>` is `dice_resampled`, or `dice` for a case that
    comes without its own grid:

    - `<dice>_at_<n>`, with n training cases, the mean over the draws of these;
    - `<dice>_curve`, the area under the curve over the logarithm of the number of cases, divided by
      its width: the mean Dice from one case to all.
    """

    def __init__(self, classes: Sequence[str] | None = None, **kwargs: Any) -> None:
        """Initializes the metric.

        Args:
            classes: Class names by label value; see :class:`CaseSegmentation`.
            kwargs: Further arguments of it.
        """
        super().__init__(classes, **kwargs)

        self._points: list[label_curves.Point] = []

    @property
    def curve(self) -> label_curves.Curve:
        """The Dice of each case by number of training cases and draw."""
        return label_curves.Curve("dice", list(self._points))

    @override
    def update(
        self,
        preds: torch.Tensor,
        target: torch.Tensor,
        metadata: Mapping[str, Any] | None = None,
        curve: torch.Tensor | None = None,
        labeled_cases: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Scores a batch of cases.

        Args:
            preds: The labels that are predicted with all training cases, of shape [B, D, H, W].
            target: The true labels, of shape [B, 1, D, H, W] or [B, D, H, W].
            metadata: The case ids as `{"case": [...]}`.
            curve: The Dice by classifier and foreground class, of shape [B, classifiers, classes];
                NaN where truth and prediction are empty.
            labeled_cases: The number of training cases and of the draw of each classifier, the
                one with all cases last.
        """
        first = len(self._rows)
        super().update(preds, target, metadata)
        if curve is None:
            return
        names = {row.metric for row in self._rows[first:]}
        resampled = "dice_resampled" if "dice_resampled" in names else "dice"
        by_case: dict[str, list[case_table.CaseRow]] = {}
        for row in self._rows[first:]:
            if row.metric == resampled:
                by_case.setdefault(row.case, []).append(row)
        for (case, rows), values in zip(by_case.items(), curve.double().cpu(), strict=True):
            self._add_points(case, values, labeled_cases)
            for row, column in zip(rows, values.T.tolist(), strict=True):
                self._rows += _curve_rows(row, column, labeled_cases)

    @override
    def reset(self) -> None:
        super().reset()
        self._points = []

    def _add_points(
        self, case: str, values: torch.Tensor, labeled_cases: Sequence[tuple[int, int]]
    ) -> None:
        means = values.nanmean(dim=1).tolist()
        self._points += [
            label_curves.Point(case, size, draw, mean)
            for (size, draw), mean in zip(labeled_cases, means, strict=True)
        ]


def dice(labels: torch.Tensor, truth: torch.Tensor, *, n_classes: int) -> torch.Tensor:
    """Computes the Dice of several predictions of one case.

    Args:
        labels: The predictions, of shape [N, D, H, W].
        truth: The true labels, of shape [D, H, W].
        n_classes: The number of classes, background included.

    Returns:
        The Dice by foreground class, of shape [N, classes], float64; NaN where both are empty.
    """
    pairs = truth.flatten().to(torch.int32) * n_classes
    counts = torch.stack(
        [torch.bincount(pairs + one.flatten(), minlength=n_classes**2) for one in labels]
    )
    confusion = counts.unflatten(1, (n_classes, n_classes)).double()
    both = confusion.diagonal(dim1=1, dim2=2)
    return (2.0 * both / (confusion.sum(dim=1) + confusion.sum(dim=2)))[:, 1:]


def _curve_rows(
    row: case_table.CaseRow, values: Sequence[float], labeled_cases: Sequence[tuple[int, int]]
) -> list[case_table.CaseRow]:
    """Returns the rows of a case and class with fewer training cases, then the area."""
    by_size: dict[int, list[float]] = {}
    for (size, _), value in zip(labeled_cases, values, strict=True):
        by_size.setdefault(size, []).append(value)
    means = {size: _mean(of_size) for size, of_size in by_size.items()}
    named = {f"{row.metric}_at_{size}": mean for size, mean in list(means.items())[:-1]}
    if len(means) > 1:
        named[f"{row.metric}_curve"] = label_curves.area(means)
    return [
        case_table.CaseRow(
            case=row.case,
            class_name=row.class_name,
            metric=name,
            value=None if math.isnan(value) else value,
            truth_voxels=row.truth_voxels,
            predicted_voxels=row.predicted_voxels,
        )
        for name, value in named.items()
    ]


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return statistics.fmean(defined) if defined else math.nan
