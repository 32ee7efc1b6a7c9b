"""Metrics by case and class.

Those of segmentations are computed from label maps; no one-hot tensor exists anywhere.
"""

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torchmetrics
from torch import distributed
from typing_extensions import override

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import label_maps, lesions, native_grid, surfaces
from eva_coralbay.results import case_table, class_names, scores
from eva_coralbay.tasks import facts

RowT = TypeVar("RowT", case_table.CaseRow, case_table.PredictionRow)
"""The kind of the rows that a metric keeps."""


class CaseMetric(torchmetrics.Metric, Generic[RowT]):
    """Scores whole cases, keeps what each gave, and sums it up.

    The scores are of whole cases on one device: a run over several devices is rejected, as the
    samplers that split it repeat cases.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    def __init__(self, classes: Sequence[str] | None = None) -> None:
        """Initializes the metric.

        Args:
            classes: Class names by label value. If `None`, they are to be set as the attribute
                `classes` before the first update.
        """
        super().__init__()

        self.classes: list[str] = list(classes or [])
        self._rows: list[RowT] = []

    def fresh(self) -> "CaseMetric[RowT]":
        """Returns a metric of the same settings that holds nothing."""
        return type(self)(self.classes)

    @property
    def rows(self) -> list[RowT]:
        """The rows of the case table so far."""
        return list(self._rows)

    @property
    @abc.abstractmethod
    def means(self) -> dict[str, float]:
        """The values over the cases by name; NaN where one is not defined."""

    @override
    def compute(self) -> dict[str, torch.Tensor]:
        """Returns the values over the cases (see :attr:`means`)."""
        return {name: torch.tensor(value) for name, value in self.means.items()}

    @override
    def reset(self) -> None:
        super().reset()
        self._rows = []

    @override
    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise EvaCoralbayError(
            f"{type(self).__name__} scores whole cases, not training crops: list it under the "
            "`evaluation` metrics, not under `common` or `train`."
        )

    def _check_ready(self) -> None:
        """Checks that the classes are known and that there is one device only."""
        if len(self.classes) < 2:
            raise EvaCoralbayError(
                f"{type(self).__name__} needs the class names: set its attribute `classes` "
                f"before the first update (it is {self.classes})."
            )
        is_distributed = distributed.is_available() and distributed.is_initialized()
        if is_distributed and distributed.get_world_size() > 1:
            raise EvaCoralbayError(
                f"{type(self).__name__} scores on one device only, as a distributed sampler "
                "repeats cases. Set the trainer's `devices` to 1."
            )

    def _case_ids(self, n_cases: int, metadata: Mapping[str, Any] | None) -> list[str]:
        """Returns the ids of the batch's cases."""
        n_scored = len({row.case for row in self._rows})
        if metadata is None or "case" not in metadata:
            return [str(n_scored + index) for index in range(n_cases)]

        cases = [str(case) for case in metadata["case"]]
        if len(cases) != n_cases:
            raise EvaCoralbayError(f"Got {len(cases)} case ids for {n_cases} cases: {cases}.")
        known = {row.case for row in self._rows}
        for case in cases:
            if case in known:
                raise EvaCoralbayError(f"Case '{case}' is scored twice: case ids must be unique.")
            known.add(case)
        return cases


class CaseSegmentation(CaseMetric[case_table.CaseRow]):
    """Scores segmentations by case and foreground class; the first class is the background.

    Where a case comes with its own grid (`metadata["native"]`), it is scored there: `dice`, `nsd`
    (normalized surface Dice within a tolerance), `hd95` (95th percentile of the Hausdorff distance
    in mm) and, for classes of lesions, `lesion_sensitivity`, `lesion_false_positives` and
    `lesion_f1`; and `dice_resampled` is the Dice on the resampled, cropped grid, as eva has it.
    Otherwise there is no more than `dice`, on the only grid there is.

    A class that is absent from truth and prediction has no value for that case and is left out
    of the means. One that is absent from only one of the two has Dice and NSD 0, and as HD95 the
    diagonal of the scan. Lesions are counted in every case: without a true lesion there is no
    sensitivity, but there may be false positives. Voxels with `IGNORE_LABEL` in the truth are not
    scored: they count as background in truth and prediction.
    """

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        *,
        tolerances_mm: Mapping[str, float] | None = None,
        lesion_classes: Sequence[str] = (),
    ) -> None:
        """Initializes the metric.

        Args:
            classes: As for :class:`CaseMetric`.
            tolerances_mm: The tolerance of the normalized surface Dice by class, in mm; 2 mm for
                classes that are not named.
            lesion_classes: The classes whose connected components are lesions.
        """
        super().__init__(classes)

        self.tolerances_mm: Mapping[str, float] = tolerances_mm or {}
        self.lesion_classes = tuple(lesion_classes)

    @override
    def fresh(self) -> "CaseSegmentation":
        return CaseSegmentation(
            self.classes,
            tolerances_mm=self.tolerances_mm,
            lesion_classes=self.lesion_classes,
        )

    @property
    @override
    def means(self) -> dict[str, float]:
        """The means over cases, in double precision.

        `<metric>` is the mean over cases of the mean over their defined classes, and
        `<metric>_<class name>` the mean over the cases where the class is defined; NaN where
        nothing is.
        """
        return scores.summarize_segmentation(self._rows, self.classes[1:])

    @override
    def update(
        self,
        preds: torch.Tensor,
        target: torch.Tensor,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Scores a batch of cases.

        Args:
            preds: The predicted labels, of shape [B, D, H, W].
            target: The true labels, of shape [B, 1, D, H, W] or [B, D, H, W].
            metadata: The case ids as `{"case": [...]}`, without which a case is named by its
                position in the epoch, and a :class:`NativeCase` of each case as `native`.

        Raises:
            EvaCoralbayError: If `classes` is not set, the run is distributed, shapes differ, a
                label is unknown or a case is scored twice.
        """
        self._check_ready()
        if target.ndim == preds.ndim + 1 and target.shape[1] == 1:
            target = target[:, 0]
        if preds.ndim != 4 or preds.shape != target.shape:
            raise EvaCoralbayError(
                "Expected labels of shape [B, D, H, W] and targets of [B, 1, D, H, W] or "
                f"[B, D, H, W], got {tuple(preds.shape)} and {tuple(target.shape)}."
            )

        cases = self._case_ids(len(preds), metadata)
        native = (metadata or {}).get("native", [None] * len(preds))
        for case, predicted, truth, own in zip(cases, preds, target, native, strict=True):
            if own is None:
                self._rows += self._score_dice(case, predicted, truth, "dice")
            else:
                self._rows += self._score_native(case, own)
                self._rows += self._score_dice(case, predicted, truth, "dice_resampled")

    def add(self, case: str, native: native_grid.NativeCase) -> None:
        """Scores a case of which there is nothing but its own grid.

        Args:
            case: The id of the case.
            native: Prediction and truth.

        Raises:
            EvaCoralbayError: As for `update`.
        """
        self._check_ready()
        (known,) = self._case_ids(1, {"case": [case]})
        self._rows += self._score_native(known, native)

    def _score_dice(
        self, case: str, predicted: torch.Tensor, truth: torch.Tensor, metric: str
    ) -> Iterator[case_table.CaseRow]:
        """Yields the Dice of the classes of a case, from label maps of shape [D, H, W]."""
        predicted, truth = label_maps.leave_out_ignored(predicted, truth)
        counts = label_maps.count_pairs(predicted, truth, n_classes=len(self.classes), case=case)
        for label, name in enumerate(self.classes[1:], start=1):
            n_truth, n_predicted = int(counts[label].sum()), int(counts[:, label].sum())
            both = n_truth + n_predicted
            value = 2 * int(counts[label, label]) / both if both else None
            yield case_table.CaseRow(case, name, metric, value, n_truth, n_predicted)

    def _score_native(
        self, case: str, native: native_grid.NativeCase
    ) -> Iterator[case_table.CaseRow]:
        """Yields the rows of a case on its own grid."""
        maps = label_maps.leave_out_ignored(native.prediction, native.truth)
        rows = list(self._score_dice(case, *maps, "dice"))
        yield from rows
        predicted, truth = (labels.numpy() for labels in maps)
        boxes = label_maps.find_boxes(predicted, truth, n_classes=len(self.classes))
        diagonal = float(np.linalg.norm(np.multiply(truth.shape, native.spacing_mm)))
        for label, row in enumerate(rows, start=1):
            box = boxes[label - 1]
            if box is None:
                values = dict.fromkeys(("nsd", "hd95"))
                masks = None
            else:
                masks = truth[box] == label, predicted[box] == label
                values = self._measure(row, masks, native.spacing_mm, diagonal)
            if row.class_name in self.lesion_classes:
                values |= _count_lesions(masks)
            for metric, value in values.items():
                yield dataclasses.replace(row, metric=metric, value=value)

    def _measure(
        self,
        row: case_table.CaseRow,
        masks: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
        spacing_mm: tuple[float, float, float],
        diagonal: float,
    ) -> dict[str, float | None]:
        """Returns the metrics of the surfaces of a class that is in truth or prediction."""
        if not row.truth_voxels or not row.predicted_voxels:
            return {"nsd": 0.0, "hd95": diagonal}
        distances = surfaces.measure(*masks, spacing_mm)
        tolerance = self.tolerances_mm.get(row.class_name, facts.NSD_TOLERANCE_MM)
        return {"nsd": distances.nsd(tolerance), "hd95": distances.hausdorff(95.0)}


class CaseClassification(CaseMetric[case_table.PredictionRow]):
    """Predicted probabilities by case, and what they are worth by patient or by case.

    See :func:`eva_coralbay.results.scores.summarize_classification`.
    """

    unit: facts.Unit = "patient"
    """What counts once: see :func:`eva_coralbay.tasks.catalog.scoring_unit`."""

    @override
    def fresh(self) -> "CaseClassification":
        metric = type(self)(self.classes)
        metric.unit = self.unit
        return metric

    @property
    @override
    def means(self) -> dict[str, float]:
        """The values over the units: `balanced_accuracy`, `auroc`, `auprc`, `calibration_error`."""
        return scores.summarize_classification(self._rows, self.classes, self.unit)

    @override
    def update(
        self,
        preds: torch.Tensor,
        target: torch.Tensor,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Keeps a batch of cases.

        Args:
            preds: The predicted probabilities, of shape [B, classes].
            target: The true classes, of shape [B].
            metadata: The ids as `{"case": [...], "patient": [...]}`. Without them a case is named
                by its position in the epoch, and without patients each case is one.

        Raises:
            EvaCoralbayError: If `classes` is not set, the run is distributed, shapes differ, a
                class is unknown, a probability is none, or a case is scored twice.
        """
        self._check_ready()
        _check_predictions(preds, target, n_classes=len(self.classes))
        cases = self._case_ids(len(preds), metadata)
        patients = cases if metadata is None else metadata.get("patient", cases)
        for case, patient, probabilities, truth in zip(
            cases, patients, preds.tolist(), target.tolist(), strict=True
        ):
            self._rows += [
                case_table.PredictionRow(
                    case, name, "probability", value, int(label == truth), patient
                )
                for label, (name, value) in enumerate(zip(self.classes, probabilities, strict=True))
            ]


def configure(metric: CaseMetric[Any], dataset: Any) -> None:
    """Tells a metric what it needs to know of a data set: the classes, and the facts of its task.

    Args:
        metric: The metric.
        dataset: The data set.

    Raises:
        EvaCoralbayError: If the names of the classes of a segmentation cannot be told apart in a
            record.
    """
    metric.classes = list(dataset.classes)
    if isinstance(metric, CaseSegmentation):
        class_names.check(metric.classes)
    task: facts.Task | None = getattr(dataset, "facts", None)
    if task is not None and isinstance(metric, CaseSegmentation):
        metric.tolerances_mm = {name: task.tolerance_of(name) for name in task.classes}
        metric.lesion_classes = task.lesion_classes
    if task is not None and isinstance(metric, CaseClassification):
        metric.unit = task.unit


def find_case_metric(collection: torchmetrics.MetricCollection) -> CaseMetric[Any] | None:
    """Returns the first :class:`CaseMetric` of a collection, or `None` if it has none."""
    metrics = collection.values(copy_state=False)
    return next((metric for metric in metrics if isinstance(metric, CaseMetric)), None)


def _count_lesions(
    masks: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None,
) -> dict[str, float | None]:
    """Returns the metrics of the lesions of a class, whose voxels are None if there are none."""
    found = lesions.Detection(0, 0, 0) if masks is None else lesions.detect(*masks)
    return dict(
        zip(
            scores.LESION_METRICS,
            (found.sensitivity, float(found.false_positives), found.f1),
            strict=True,
        )
    )


def _check_predictions(preds: torch.Tensor, target: torch.Tensor, *, n_classes: int) -> None:
    """Checks that there is a distribution over the classes for each case, and a true class."""
    if preds.shape != (len(target), n_classes) or target.ndim != 1:
        raise EvaCoralbayError(
            f"Expected probabilities of shape [B, {n_classes}] and targets of [B], got "
            f"{tuple(preds.shape)} and {tuple(target.shape)}."
        )
    if len(target) and not 0 <= int(target.min()) <= int(target.max()) < n_classes:
        raise EvaCoralbayError(
            f"The targets {target.tolist()} are not all below {n_classes} classes."
        )
    if not torch.allclose(preds.sum(dim=1), preds.new_ones(()), atol=1e-2):
        raise EvaCoralbayError(
            "The predictions are not probabilities: they do not add up to 1, or contain NaN. If "
            "the model has diverged, lower the learning rate or train in a wider precision."
        )
