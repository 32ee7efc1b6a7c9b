"""The predictions of the probe of a classification, with all labeled cases and with few of them."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import override

from eva_coralbay.evaluation import metrics
from eva_coralbay.results import case_table, label_curves, scores

_PREFIXES = ("", "knn_")
"""The beginning of the metrics of each classifier: logistic regression, nearest neighbors."""


class CurveClassification(metrics.CaseClassification):
    """Scores predictions of two classifiers, and those with fewer labeled cases.

    Beside what :class:`CaseClassification` gives, which is of the logistic regression with all
    labeled cases, the table has these metrics, those of the nearest neighbors with `knn_` first:

    - `knn_probability`, with all labeled cases;
    - `prediction_at_<n>` with n labeled cases of each class: the share of the draws of these in
      which the class is predicted of the patient or case;
    - `prediction_curve`, the mean of these along the curve, by which the balanced accuracy is the
      area under the curve over the logarithm of n, divided by its width.
    """

    def __init__(self, classes: Sequence[str] | None = None) -> None:
        """Initializes the metric.

        Args:
            classes: Class names by label value; see :class:`CaseClassification`.
        """
        super().__init__(classes)

        self._probabilities: list[npt.NDArray[np.float64]] = []
        self._labeled_cases: list[tuple[int, int]] = []

    @property
    @override
    def rows(self) -> list[case_table.PredictionRow]:
        return [*self._rows, *self._rows_of_curves()]

    @property
    @override
    def means(self) -> dict[str, float]:
        return scores.summarize_classification(self.rows, self.classes, self.unit)

    @property
    def curve(self) -> label_curves.Curve:
        """The label-efficiency curve of the logistic regression."""
        if not self._probabilities:
            return label_curves.Curve("balanced_accuracy", [])
        units = self._units()
        firsts = [unit[0] for unit in units]
        patients = np.array([row.patient for row in self._first_rows])[firsts]
        truths = self._truths[firsts]
        decided = scores.decide(self._by_unit(units))[:, 0]
        return label_curves.Curve(
            "balanced_accuracy",
            [
                label_curves.Point(patient, size, draw, part)
                for index, (size, draw) in enumerate(self._labeled_cases)
                for patient, part in scores.contributions(
                    patients, truths, decided[np.arange(len(truths)), index, truths]
                ).items()
            ],
        )

    @override
    def update(
        self,
        preds: torch.Tensor,
        target: torch.Tensor,
        metadata: Mapping[str, Any] | None = None,
        curve: torch.Tensor | None = None,
        labeled_cases: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Keeps a batch of cases.

        Args:
            preds: The probabilities by the logistic regression with all labeled cases, of shape
                [B, classes].
            target: The true classes, of shape [B].
            metadata: The ids; see :class:`CaseClassification`.
            curve: The probabilities by classifier and subset of the labeled cases, of shape
                [B, 2, subsets, classes].
            labeled_cases: The number of labeled cases of each class and of the draw of each
                subset, the one with all cases last.
        """
        super().update(preds, target, metadata)
        if curve is not None:
            self._probabilities += list(curve.double().cpu().numpy())
            self._labeled_cases = [(int(size), int(draw)) for size, draw in labeled_cases]

    @override
    def reset(self) -> None:
        super().reset()
        self._probabilities = []

    @property
    def _first_rows(self) -> list[case_table.PredictionRow]:
        """The first row of each case."""
        return self._rows[:: len(self.classes)]

    @property
    def _truths(self) -> npt.NDArray[np.int64]:
        """The true class of each case."""
        truths = [row.truth for row in self._rows]
        return np.array(truths).reshape(-1, len(self.classes)).argmax(axis=1)

    def _units(self) -> list[list[int]]:
        patients = [row.patient for row in self._first_rows]
        return scores.group_units(patients, self._truths.tolist(), self.unit)

    def _by_unit(self, units: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
        """Returns the mean probabilities of each unit, [units, 2, subsets, classes]."""
        known = np.stack(self._probabilities)
        return np.stack([known[unit].mean(axis=0) for unit in map(list, units)])

    def _rows_of_curves(self) -> Iterator[case_table.PredictionRow]:
        """Yields the rows that are not those of the logistic regression with all labeled cases."""
        if not self._probabilities:
            return
        known = np.stack(self._probabilities)
        yield from self._rows_of("knn_probability", known[:, 1, -1])
        units = self._units()
        decided = scores.decide(self._by_unit(units))
        unit_of = {case: number for number, unit in enumerate(units) for case in unit}
        order = [unit_of[case] for case in range(len(known))]
        for classifier, prefix in enumerate(_PREFIXES):
            for name, shares in self._share(decided[:, classifier]).items():
                yield from self._rows_of(f"{prefix}prediction_{name}", shares[order])

    def _share(self, decided: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
        """Returns by point of the curve how often each class is predicted, [units, classes].

        Args:
            decided: 1 for the class that is predicted with each subset, of shape
                [units, subsets, classes].
        """
        sizes = [size for size, _ in self._labeled_cases]
        by_size = {
            size: decided[:, [index for index, other in enumerate(sizes) if other == size]]
            for size in dict.fromkeys(sizes)
        }
        means = {size: of_size.mean(axis=1) for size, of_size in by_size.items()}
        named = {f"at_{size}": mean for size, mean in list(means.items())[:-1]}
        if named:
            weights = {
                size: label_curves.area({other: float(other == size) for other in means})
                for size in means
            }
            named["curve"] = np.sum([weights[size] * means[size] for size in means], axis=0)
        return named

    def _rows_of(
        self, metric: str, values: npt.NDArray[np.float64]
    ) -> Iterator[case_table.PredictionRow]:
        """Yields the rows of a metric, of values [cases, classes]."""
        # of shares that add up to 1, the sum of some may be more by rounding
        bounded = values.clip(max=1.0).ravel().tolist()
        for row, value in zip(self._rows, bounded, strict=True):
            yield dataclasses.replace(row, metric=metric, value=value)
