"""What the rows of a case table add up to. The recorder and the verification both use it."""

import math
import re
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.results import case_table
from eva_coralbay.tasks import catalog

_CALIBRATION_BINS = 15
"""The number of bins of equal width of the calibration error."""

_CLASSIFICATION = ("balanced_accuracy", "auroc", "auprc", "calibration_error")
"""The metrics of a classification."""

LESION_METRICS: Final = ("lesion_sensitivity", "lesion_false_positives", "lesion_f1")
"""The metrics of the lesions of a case: the share of the true ones that were found, the number of
predicted ones that are none, and their F1."""

_ORDER = ("dice", "nsd", "hd95", "dice_resampled", *LESION_METRICS, *_CLASSIFICATION)
"""The metrics over all classes that are known, in the order in which they are shown."""

_OF_FEW_LABELS = re.compile(r"(?P<metric>dice|dice_resampled)_(curve|at_(?P<cases>[1-9]\d*))")
"""The Dice of a probe with a number of labeled training cases, and the area under that curve."""

_Value = TypeVar("_Value")

LOWER_IS_BETTER: Final = ("hd95", "lesion_false_positives")
"""The metrics by case of which lower is better, and which may exceed 1: distances in mm, counts."""


def task_kind(metrics: Collection[str]) -> catalog.Kind:
    """Returns the kind of a record's task.

    Args:
        metrics: The names of the record's metrics.
    """
    return "classification" if "balanced_accuracy" in metrics else "segmentation"


def headline_metric(metrics: Collection[str]) -> str:
    """Returns the metric that ranks the models on a record's task.

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
        `<metric>_<class name>`, the mean over the cases where the class is defined, for the
        classes that have rows of it; NaN where nothing is. Without rows, the metric is `dice`.
    """
    means: dict[str, float] = {}
    for metric in dict.fromkeys(row.metric for row in rows) or ("dice",):
        by_case: dict[str, list[float]] = {}
        scored = {row.class_name for row in rows if row.metric == metric} or set(classes)
        by_class: dict[str, list[float]] = {name: [] for name in classes if name in scored}
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

    The unit is the patient: the probabilities of all cases of a patient are averaged. Where a
    patient has cases of several true classes, as with the nodules of LUNA25, the unit is the case
    throughout the table, as that challenge scores. Of two classes, AUROC and AUPRC are those of the
    second; of more, the means over the classes that are true of some units but not of all. The
    calibration error is the expected one of the predicted class, in 15 bins (Guo et al. 2017).

    Args:
        rows: The rows, each case with all classes in their order.
        classes: The names of the classes, in the order of the label values.

    Returns:
        `balanced_accuracy`, `auroc`, `auprc` and `calibration_error`; NaN where one is not
        defined.

    Raises:
        EvaCoralbayError: If a case lacks a class or its true class.
    """
    from sklearn import metrics as sklearn_metrics  # takes a second

    if not rows:
        return dict.fromkeys(_CLASSIFICATION, float("nan"))
    _, probabilities, truths = _find_units(rows, classes)
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
        return _contributions(predicted, class_name) if metric == "balanced_accuracy" else {}
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.metric == metric and class_name in (None, row.class_name):
            values = found.setdefault(row.case, [])
            values += [] if row.value is None else [row.value]
    return {case: _mean(values) if values else None for case, values in found.items()}


def list_overall(names: Collection[str]) -> list[str]:
    """Lists the metrics over all classes.

    Args:
        names: The names of a record's metrics: those over all classes, such as `dice`, and those
            by class, such as `dice_liver`.

    Returns:
        Those over all classes, the ones that rank first.
    """
    overall = [
        name
        for name in names
        if name in _ORDER
        or _OF_FEW_LABELS.fullmatch(name)
        or not any(name.startswith(f"{other}_") for other in names)
    ]
    known = [name for name in _ORDER if name in overall]
    return known + sorted(set(overall) - set(known))


def find_label_curve(names: Collection[str]) -> dict[int, str]:
    """Finds the metrics that are a label-efficiency curve.

    Args:
        names: The names of a record's metrics.

    Returns:
        The metric by the number of labeled training cases, in ascending order; empty if the record
        has no curve. The point with all training cases is the metric `dice_resampled` or `dice`.
    """
    found = (_OF_FEW_LABELS.fullmatch(name) for name in names)
    points = {int(match["cases"]): match[0] for match in found if match and match["cases"]}
    return dict(sorted(points.items()))


def by_class(metrics: Mapping[str, _Value], metric: str) -> dict[str, _Value]:
    """Returns the values of a metric by class.

    Args:
        metrics: The values by name, of all classes and by class.
        metric: The metric, such as `dice`.

    Returns:
        The value by the name of the class.
    """
    longer = [f"{name}_" for name in list_overall(metrics) if name.startswith(f"{metric}_")]
    return {
        name.removeprefix(f"{metric}_"): value
        for name, value in metrics.items()
        if name.startswith(f"{metric}_")
        and f"{name}_" not in longer
        and not any(name.startswith(prefix) for prefix in longer)
    }


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


def _contributions(
    rows: Sequence[case_table.PredictionRow], class_name: str | None
) -> dict[str, float | None]:
    """Returns by patient what the mean of is the balanced accuracy, or the recall of a class.

    It is the linearized contribution (influence function) of the patient: the recall of each class
    is a ratio, whose numerator and denominator both change when other patients are drawn.
    """
    classes = list(dict.fromkeys(row.class_name for row in rows))
    patients, probabilities, truths = _find_units(rows, classes)
    correct = (probabilities.argmax(axis=1) == truths).astype(np.float64)
    scored = [label for label in np.unique(truths).tolist() if class_name in (None, classes[label])]
    is_scored = np.isin(truths, scored)
    n_units = int(is_scored.sum())
    value, totals = 0.0, dict.fromkeys(np.unique(patients[is_scored]).tolist(), 0.0)
    for label in scored:
        of_class = truths == label
        recall = correct[of_class].mean()
        value += recall / len(scored)
        weight = n_units / int(of_class.sum()) / len(scored)
        for patient, right in zip(patients[of_class].tolist(), correct[of_class], strict=True):
            totals[patient] += weight * (right - recall)
    scale = len(totals) / max(1, n_units)
    return {patient: float(value + scale * total) for patient, total in totals.items()}


def _find_units(
    rows: Sequence[case_table.PredictionRow], classes: Sequence[str]
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Finds what is scored: the patients, or the cases where a patient has several true classes.

    Returns:
        By unit its patient [N], its probabilities [N, classes], of a patient the mean over the
        cases, and its true class [N].
    """
    by_case = [
        _read_case(rows[at : at + len(classes)], classes)
        for at in range(0, len(rows), len(classes))
    ]
    truths: dict[str, set[int]] = {}
    for patient, _, truth in by_case:
        truths.setdefault(patient, set()).add(truth)
    if any(len(of_patient) > 1 for of_patient in truths.values()):
        units = by_case
    else:
        gathered: dict[str, list[list[float]]] = {}
        for patient, probabilities, _ in by_case:
            gathered.setdefault(patient, []).append(probabilities)
        units = [
            (patient, np.mean(of_cases, axis=0).tolist(), *truths[patient])
            for patient, of_cases in gathered.items()
        ]
    patients, probabilities, labels = zip(*units, strict=True)
    return np.array(patients), np.array(probabilities), np.array(labels)


def _read_case(
    rows: Sequence[case_table.PredictionRow], classes: Sequence[str]
) -> tuple[str, list[float], int]:
    """Returns the patient, the probabilities and the true class of a case."""
    truths = [row.truth for row in rows]
    if (
        [row.class_name for row in rows] != list(classes)
        or len({(row.case, row.patient) for row in rows}) > 1
        or sorted(truths) != [0] * (len(classes) - 1) + [1]
    ):
        raise EvaCoralbayError(
            f"Case '{rows[0].case}' does not have the classes {list(classes)} in this order, of "
            "one patient and with one true class."
        )
    return rows[0].patient, [float(row.value or 0.0) for row in rows], truths.index(1)


def _calibration_error(
    confidences: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]
) -> float:
    """Returns the mean over units of |accuracy - confidence| of their bin."""
    edges = np.linspace(0, 1, _CALIBRATION_BINS + 1)
    bins = np.searchsorted(edges[1:-1], confidences, side="right")
    gaps = [
        abs(float((correct[bins == index] - confidences[bins == index]).sum()))
        for index in np.unique(bins)
    ]
    return sum(gaps) / len(confidences)


def _mean(values: Sequence[float]) -> float:
    """Returns the mean, or NaN of nothing."""
    return statistics.fmean(values) if values else float("nan")
