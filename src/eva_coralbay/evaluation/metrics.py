"""Metrics by case and class.

Those of segmentations are computed from label maps; no one-hot tensor exists anywhere.
"""

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import (
    Any,
    Generic,
    NoReturn,
    TypeVar,
)

import torch
import torchmetrics
from torch import distributed
from typing_extensions import override

from eva_coralbay.results import case_table, scores

_CHUNK_VOXELS = 2**18
"""Voxels that are handled at once: few enough to stay in a CPU's cache."""


@torch.no_grad()
def argmax_labels(logits: torch.Tensor) -> torch.Tensor:
    """Turns logits into label maps, in chunks along D.

    Needs next to no memory beyond its result, and on CPU a third of the time of `torch.argmax`.
    Of equal logits the lowest class index wins.

    Args:
        logits: Class scores of shape [B, C, D, H, W].

    Returns:
        The labels, of shape [B, D, H, W]; uint8, or int16 for more than 255 classes.

    Raises:
        ValueError: If the logits have another number of axes, or contain NaN.
    """
    if logits.ndim != 5:
        raise ValueError(f"Expected logits of shape [B, C, D, H, W], got {tuple(logits.shape)}.")

    n_classes = logits.shape[1]
    labels = torch.zeros(
        (logits.shape[0], *logits.shape[2:]),
        dtype=torch.uint8 if n_classes <= 255 else torch.int16,
        device=logits.device,
    )
    has_nan = torch.zeros((), dtype=torch.bool, device=logits.device)
    for index, chunk in _chunks(labels.shape):
        best = logits[index, 0, chunk].clone()
        chosen = labels[index, chunk]
        for label in range(1, n_classes):
            scores = logits[index, label, chunk]
            chosen.masked_fill_(scores > best, label)
            torch.maximum(best, scores, out=best)
        has_nan |= best.isnan().any()

    if has_nan:
        raise ValueError(
            "The logits contain NaN, so they have no labels: the model has diverged. "
            "Lower the learning rate or train in a wider precision."
        )
    return labels


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
        raise NotImplementedError(
            f"{type(self).__name__} scores whole cases, not training crops: list it under the "
            "`evaluation` metrics, not under `common` or `train`."
        )

    def _check_ready(self) -> None:
        """Checks that the classes are known and that there is one device only."""
        if len(self.classes) < 2:
            raise RuntimeError(
                f"{type(self).__name__} needs the class names: set its attribute `classes` "
                f"before the first update (it is {self.classes})."
            )
        is_distributed = distributed.is_available() and distributed.is_initialized()
        if is_distributed and distributed.get_world_size() > 1:
            raise RuntimeError(
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
            raise ValueError(f"Got {len(cases)} case ids for {n_cases} cases: {cases}.")
        known = {row.case for row in self._rows}
        for case in cases:
            if case in known:
                raise ValueError(f"Case '{case}' is scored twice: case ids must be unique.")
            known.add(case)
        return cases


class CaseDice(CaseMetric[case_table.CaseRow]):
    """Dice by case and foreground class, and its means.

    A class that is absent from truth and prediction has no value for that case and is left out
    of the means; one that is absent from only one of the two has Dice 0. The first class is the
    background.
    """

    @property
    @override
    def means(self) -> dict[str, float]:
        """The means over cases, in double precision.

        `dice` is the mean over cases of the mean over their defined classes, and
        `dice_<class name>` the mean over the cases where the class is defined; NaN where
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
            metadata: The case ids as `{"case": [...]}`. Without them a case
                is named by its position in the epoch.

        Raises:
            RuntimeError: If `classes` is not set, or the run is distributed.
            ValueError: If shapes differ, a label is unknown or a case is scored twice.
        """
        self._check_ready()
        if target.ndim == preds.ndim + 1 and target.shape[1] == 1:
            target = target[:, 0]
        if preds.ndim != 4 or preds.shape != target.shape:
            raise ValueError(
                "Expected labels of shape [B, D, H, W] and targets of [B, 1, D, H, W] or "
                f"[B, D, H, W], got {tuple(preds.shape)} and {tuple(target.shape)}."
            )

        cases = self._case_ids(len(preds), metadata)
        confusion = _confusion(preds, target, n_classes=len(self.classes), cases=cases)
        for case, matrix in zip(cases, confusion.tolist(), strict=True):
            self._rows.extend(self._score(case, matrix))

    def _score(self, case: str, confusion: list[list[int]]) -> Iterator[case_table.CaseRow]:
        """Yields the rows of one case from its confusion matrix (truth by prediction)."""
        for label, name in enumerate(self.classes[1:], start=1):
            truth = sum(confusion[label])
            predicted = sum(row[label] for row in confusion)
            both = truth + predicted
            yield case_table.CaseRow(
                case=case,
                class_name=name,
                metric="dice",
                value=2 * confusion[label][label] / both if both else None,
                truth_voxels=truth,
                predicted_voxels=predicted,
            )


class CaseClassification(CaseMetric[case_table.PredictionRow]):
    """Predicted probabilities by case, and what they are worth by patient.

    See :func:`eva_coralbay.results.scores.summarize_classification`.
    """

    @property
    @override
    def means(self) -> dict[str, float]:
        """The values over patients: `balanced_accuracy`, `auroc`, `auprc`, `calibration_error`."""
        return scores.summarize_classification(self._rows, self.classes)

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
            RuntimeError: If `classes` is not set, or the run is distributed.
            ValueError: If shapes differ, a class is unknown, a probability is none, or a case is
                scored twice.
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


def find_case_metric(collection: torchmetrics.MetricCollection) -> CaseMetric[Any] | None:
    """Returns the first :class:`CaseMetric` of a collection, or `None` if it has none."""
    metrics = collection.values(copy_state=False)
    return next((metric for metric in metrics if isinstance(metric, CaseMetric)), None)


def _check_predictions(preds: torch.Tensor, target: torch.Tensor, *, n_classes: int) -> None:
    """Checks that there is a distribution over the classes for each case, and a true class."""
    if preds.shape != (len(target), n_classes) or target.ndim != 1:
        raise ValueError(
            f"Expected probabilities of shape [B, {n_classes}] and targets of [B], got "
            f"{tuple(preds.shape)} and {tuple(target.shape)}."
        )
    if len(target) and not 0 <= int(target.min()) <= int(target.max()) < n_classes:
        raise ValueError(f"The targets {target.tolist()} are not all below {n_classes} classes.")
    if not torch.allclose(preds.sum(dim=1), preds.new_ones(()), atol=1e-2):
        raise ValueError(
            "The predictions are no probabilities: they do not add up to 1, or contain NaN. If "
            "the model has diverged, lower the learning rate or train in a wider precision."
        )


def _chunks(shape: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Yields (case index, slice along D) over label maps of shape [B, D, H, W]."""
    n_cases, depth, height, width = shape
    step = max(1, _CHUNK_VOXELS // max(1, height * width))
    for index in range(n_cases):
        for start in range(0, depth, step):
            yield index, slice(start, start + step)


def _confusion(
    preds: torch.Tensor, target: torch.Tensor, *, n_classes: int, cases: Sequence[str]
) -> torch.Tensor:
    """Counts voxels by (true label, predicted label).

    Args:
        preds: The predicted labels, of shape [B, D, H, W].
        target: The true labels, of shape [B, D, H, W].
        n_classes: The number of classes.
        cases: The case ids, for the error message.

    Returns:
        Counts of shape [B, n_classes, n_classes].
    """
    dtype = torch.uint8 if n_classes**2 <= 256 else torch.int32
    counts = torch.zeros((len(preds), n_classes**2), dtype=torch.int64, device=preds.device)
    for index, chunk in _chunks(preds.shape):
        truth, predicted = target[index, chunk], preds[index, chunk]
        _check_labels(truth, predicted, n_classes=n_classes, case=cases[index])
        pairs = truth.to(dtype) * n_classes + predicted.to(dtype)
        counts[index] += torch.bincount(pairs.flatten(), minlength=n_classes**2)
    return counts.view(-1, n_classes, n_classes)


def _check_labels(
    truth: torch.Tensor, predicted: torch.Tensor, *, n_classes: int, case: str
) -> None:
    """Checks that all labels of a chunk are class indices."""
    for name, labels in (("truth", truth), ("prediction", predicted)):
        low, high = (int(bound) for bound in labels.aminmax())
        if low < 0 or high >= n_classes:
            raise ValueError(
                f"The {name} of case '{case}' has labels from {low} to {high}, but the "
                f"{n_classes} classes have the labels 0 to {n_classes - 1}."
            )
