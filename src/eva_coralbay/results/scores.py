"""What the rows of a case table add up to. The recorder and the verification both use it."""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from eva_coralbay.results import case_table
from eva_coralbay.tasks import catalog

_CALIBRATION_BINS = 15
"""The number of bins of equal width of the calibration error."""

_CLASSIFICATION = ("balanced_accuracy", "auroc", "auprc", "calibration_error")
"""The metrics of a classification."""

LOWER_IS_BETTER: Final = ("hd95",)
"""The metrics by case of which lower is better; they are distances in mm."""

_Unit = tuple[str, int]
"""A patient and a true class."""


def task_kind(metrics: Collection[str]) -> catalog.Kind:
    """Returns the kind of the task that a record is of.

    Args:
        metrics: The names of the record's metrics.
    """
    return "classification" if "balanced_accuracy" in metrics else "segmentation"


def headline_metric(metrics: Collection[str]) -> str:
    """Returns the metric by which the models are ranked on the task that a record is of.

    Args:
        metrics: The names of the record's metrics.
    """
    return catalog.headline_metric(task_kind(metrics))


def summarize(rows: Sequence[case_table.Row]) -> dict[str, float]:
    """Computes the metrics of a case table.

    Args:
        rows: The rows, of one kind, in the order of the table. Their classes are in the order of
            the label values in each case.

    Returns:
        What :func:`summarize_segmentation` or :func:`summarize_classification` does.
    """
    classes = list(dict.fromkeys(row.class_name for row in rows))
    segmented = [row for row in rows if isinstance(row, case_table.CaseRow)]
    predicted = [row for row in rows if isinstance(row, case_table.PredictionRow)]
    if predicted:
        return summarize_classification(predicted, classes)
    return summarize_segmentation(segmented, classes)


def summarize_segmentation(
    rows: Sequence[case_table.CaseRow], classes: Sequence[str]
) -> dict[str, float]:
    """Computes the means over cases of each metric, in double precision.

    Args:
        rows: The rows.
        classes: The names of the foreground classes.

    Returns:
        `<metric>`, the mean over cases of the mean over their defined classes, and
        `<metric>_<class name>`, the mean over the cases where the class is defined; NaN where
        nothing is. Without rows, the metric is `dice`.
    """
    means: dict[str, float] = {}
    for metric in dict.fromkeys(row.metric for row in rows) or ("dice",):
        by_case: dict[str, list[float]] = {}
        by_class: dict[str, list[float]] = {name: [] for name in classes}
        for row in rows:
            if row.metric == metric and row.value is not None:
                by_case.setdefault(row.case, []).append(row.value)
                by_class[row.class_name].append(row.value)
        means[metric] = _mean([_mean(values) for values in by_case.values()])
        means |= {f"{metric}_{name}": _mean(values) for name, values in by_class.items()}
    return means


def summarize_classification(
    rows: Sequence[case_table.PredictionRow], classes: Sequence[str]
) -> dict[str, float]:
    """Computes the metrics of a classification, in double precision.

    The unit is the patient: the probabilities of all cases of a patient are averaged, apart for
    each true class if there are several. Of two classes, AUROC and AUPRC are those of the
    second; of more, the means over the classes that are true of some units but not of all. The
    calibration error is the expected one of the predicted class, in 15 bins (Guo et al. 2017).

    Args:
        rows: The rows, each case with all classes in their order.
        classes: The names of the classes, in the order of the label values.

    Returns:
        `balanced_accuracy`, `auroc`, `auprc` and `calibration_error`; NaN where one is not
        defined.

    Raises:
        ValueError: If a case lacks a class or its true class.
    """
    from sklearn import metrics as sklearn_metrics  # takes a second

    if not rows:
        return dict.fromkeys(_CLASSIFICATION, float("nan"))
    probabilities, truths = _stack(_by_unit(rows, classes))
    predicted = probabilities.argmax(axis=1)
    recalls = [float((predicted[truths == k] == k).mean()) for k in np.unique(truths)]
    ranked = [
        (truths == k, probabilities[:, k])
        for k in range(1 if len(classes) == 2 else 0, len(classes))
        if 0 < (truths == k).sum() < len(truths)
    ]
    values = (
        _mean(recalls),
        _mean([float(sklearn_metrics.roc_auc_score(*pair)) for pair in ranked]),
        _mean([float(sklearn_metrics.average_precision_score(*pair)) for pair in ranked]),
        _calibration_error(probabilities.max(axis=1), predicted == truths),
    )
    return dict(zip(_CLASSIFICATION, values, strict=True))


def by_case(
    rows: Sequence[case_table.Row], metric: str, class_name: str | None = None
) -> dict[str, float | None]:
    """Returns the value of a metric by case.

    Args:
        rows: The rows of a case table.
        metric: The metric of a segmentation, or `balanced_accuracy` of a classification: see
            :func:`eva_coralbay.results.case_values.gather`.
        class_name: A class to take the values of, the mean over the defined classes if None. Of a
            classification: to take the patients that are truly of this class, by the class's
            recall.

    Returns:
        The value by case or patient, `None` where it is not defined; empty if the metric or the
        class has no values by case.
    """
    predicted = [row for row in rows if isinstance(row, case_table.PredictionRow)]
    if predicted:
        return _correctness(predicted, class_name) if metric == "balanced_accuracy" else {}
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.metric == metric and class_name in (None, row.class_name):
            values = found.setdefault(row.case, [])
            values += [] if row.value is None else [row.value]
    return {case: _mean(values) if values else None for case, values in found.items()}


def is_close(first: float | None, second: float | None, tolerance: float) -> bool:
    """Whether two values of a metric are the same within a tolerance.

    Args:
        first: A value; `None` or NaN where it is not defined.
        second: The other one.
        tolerance: The most that they may differ by.
    """
    values = [math.nan if value is None else value for value in (first, second)]
    if any(map(math.isnan, values)):
        return all(map(math.isnan, values))
    return abs(values[0] - values[1]) <= tolerance


def _correctness(
    rows: Sequence[case_table.PredictionRow], class_name: str | None
) -> dict[str, float | None]:
    """Returns by patient what the mean of is the balanced accuracy, or the recall of a class."""
    classes = list(dict.fromkeys(row.class_name for row in rows))
    units = _by_unit(rows, classes)
    probabilities, truths = _stack(units)
    names, counts = np.unique(truths, return_counts=True)
    correct = probabilities.argmax(axis=1) == truths
    if class_name is None:
        sizes: Mapping[int, int] = dict(zip(names.tolist(), counts.tolist(), strict=True))
        weights = [len(truths) / (len(names) * sizes[truth]) for truth in truths.tolist()]
    else:
        weights = [1.0] * len(truths)
    patients = [patient for patient, _ in units]
    return {
        patient if patients.count(patient) == 1 else f"{patient} ({classes[truth]})": weight * right
        for (patient, truth), weight, right in zip(units, weights, correct.tolist(), strict=True)
        if class_name in (None, classes[truth])
    }


def _by_unit(
    rows: Sequence[case_table.PredictionRow], classes: Sequence[str]
) -> dict[_Unit, list[list[float]]]:
    """Returns the probabilities of the cases of each unit, of shape [cases, classes]."""
    units: dict[_Unit, list[list[float]]] = {}
    for start in range(0, len(rows), len(classes)):
        of_case = rows[start : start + len(classes)]
        truths = [row.truth for row in of_case]
        if (
            [row.class_name for row in of_case] != list(classes)
            or len({(row.case, row.patient) for row in of_case}) > 1
            or sorted(truths) != [0] * (len(classes) - 1) + [1]
        ):
            raise ValueError(
                f"Case '{of_case[0].case}' does not have the classes {list(classes)} in this "
                "order, of one patient and with one true class."
            )
        units.setdefault((of_case[0].patient, truths.index(1)), []).append(
            [float(row.value or 0.0) for row in of_case]
        )
    return units


def _stack(
    units: Mapping[_Unit, list[list[float]]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Returns the mean probabilities [N, classes] and the true class [N] of units."""
    probabilities = np.array([np.mean(cases, axis=0) for cases in units.values()])
    return probabilities, np.array([truth for _, truth in units])


def _calibration_error(
    confidences: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]
) -> float:
    """Returns the mean over units of |accuracy - confidence| of their bin."""
    edges = np.linspace(0, 1, _CALIBRATION_BINS + 1)
    bins = np.searchsorted(edges, confidences, side="right") - 1
    gaps = [
        abs(float((correct[bins == index] - confidences[bins == index]).sum()))
        for index in np.unique(bins)
    ]
    return sum(gaps) / len(confidences)


def _mean(values: Sequence[float]) -> float:
    """Returns the mean, or NaN of nothing."""
    return statistics.fmean(values) if values else float("nan")
