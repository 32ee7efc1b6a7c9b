"""Computes the metrics of a run from its case table, for the recorder and the verification."""

import math
import re
import statistics
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.results import case_table, curve_metrics
from eva_coralbay.tasks import catalog

_CALIBRATION_BINS = 15
"""The number of bins of equal width of the calibration error."""

_CLASSIFICATION = ("balanced_accuracy", "auroc", "auprc", "calibration_error")
"""The metrics of a classification."""

LESION_METRICS: Final = ("lesion_sensitivity", "lesion_false_positives", "lesion_f1")
"""The metrics of the lesions of a case: the share of the true ones that were found, the number of
false positives, and the F1 of the two."""

_ORDER = ("dice", "nsd", "hd95", "dice_resampled", *LESION_METRICS, *_CLASSIFICATION)
"""The metrics over all classes that are known, in the order in which they are shown."""

_HEADLINES = ("dice", "nsd", "hd95", "balanced_accuracy", "auroc")
"""The metrics over all classes that a short report shows, the one that ranks first."""

_BALANCED_ACCURACY = re.compile(
    r"(?P<classifier>(knn_)?)balanced_accuracy(_(?P<point>curve|at_[1-9]\d*))?"
)
"""The balanced accuracies of a classification, those of a probe with few labels included."""

_SHARES = re.compile(r"(?P<classifier>(knn_)?)prediction_(?P<point>curve|at_[1-9]\d*)")
"""The rows of a case table that these follow from: how often each class is predicted."""

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


def summarize(rows: Sequence[case_table.Row], unit: catalog.Unit = "patient") -> dict[str, float]:
    """Computes the metrics of a case table.

    Args:
        rows: The rows, of one kind, in the order of the table. Their classes are in the order of
            the label values in each case.
        unit: What counts once in a classification, see :func:`catalog.scoring_unit`.

    Returns:
        What :func:`summarize_segmentation` or :func:`summarize_classification` does.
    """
    classes = list(dict.fromkeys(row.class_name for row in rows))
    segmented = [row for row in rows if isinstance(row, case_table.CaseRow)]
    predicted = [row for row in rows if isinstance(row, case_table.PredictionRow)]
    if predicted:
        return summarize_classification(predicted, classes, unit)
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
    rows: Sequence[case_table.PredictionRow],
    classes: Sequence[str],
    unit: catalog.Unit = "patient",
) -> dict[str, float]:
    """Computes the metrics of a classification, in double precision.

    `balanced_accuracy`, `auroc`, `auprc` and `calibration_error` are of the rows of the metric
    `probability`. Those of a probe (see
    :mod:`eva_coralbay.evaluation.probe.curve_classification`) give `knn_balanced_accuracy` and
    `knn_auroc`, and the balanced accuracies with few labeled cases, such as
    `balanced_accuracy_at_5`.

    If the unit is the patient, the probabilities of all cases of a patient are averaged. Of two
    classes, AUROC and AUPRC are those of the second; of more, the means over the classes that are
    true of some units but not of all. The calibration error is the expected one of the predicted
    class, in 15 bins (Guo et al. 2017).

    Args:
        rows: The rows, each case with all classes in their order.
        classes: The names of the classes, in the order of the label values.
        unit: What counts once, the patient or the case; a fact of the task.

    Returns:
        The values by name; NaN where one is not defined.

    Raises:
        EvaCoralbayError: If a case lacks a class or its true class, a patient that counts once
            has several, or there are rows of another metric.
    """
    by_metric: dict[str, list[case_table.PredictionRow]] = {}
    for row in rows:
        by_metric.setdefault(row.metric, []).append(row)
    values = _summarize_probabilities(by_metric.pop("probability", []), classes, unit)
    for metric, of_metric in by_metric.items():
        match = _SHARES.fullmatch(metric)
        if metric == "knn_probability":
            found = _summarize_probabilities(of_metric, classes, unit)
            values |= {f"knn_{name}": found[name] for name in ("balanced_accuracy", "auroc")}
        elif match is not None:
            _, shares, truths = _find_units(of_metric, classes, unit)
            name = f"{match['classifier']}balanced_accuracy_{match['point']}"
            values[name] = _mean(_recalls(shares, truths))
        else:
            raise EvaCoralbayError(f"a classification has no metric '{metric}'.")
    return values


def _summarize_probabilities(
    rows: Sequence[case_table.PredictionRow], classes: Sequence[str], unit: catalog.Unit
) -> dict[str, float]:
    """Computes the metrics of predicted probabilities."""
    from sklearn import metrics as sklearn_metrics  # takes a second

    if not rows:
        return dict.fromkeys(_CLASSIFICATION, float("nan"))
    _, probabilities, truths = _find_units(rows, classes, unit)
    predicted = probabilities.argmax(axis=1)
    recalls = _recalls(decide(probabilities), truths)
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
    rows: Sequence[case_table.Row],
    metric: str,
    class_name: str | None = None,
    unit: catalog.Unit = "patient",
) -> dict[str, float | None]:
    """Returns the value of a metric by case.

    Args:
        rows: The rows of a case table.
        metric: The metric of a segmentation, or a balanced accuracy of a classification.
        class_name: A class to take the values of, the mean over the defined classes if None. Of a
            classification: to take the patients that are truly of this class, by the class's
            recall.
        unit: What counts once in a classification; the values are by patient all the same.

    Returns:
        The value by case or patient, `None` where it is not defined; empty if there are none.
    """
    predicted = [row for row in rows if isinstance(row, case_table.PredictionRow)]
    if predicted:
        return _contributions(predicted, metric, class_name, unit)
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
        or curve_metrics.has(name)
        or not any(name.startswith(f"{other}_") for other in names)
    ]
    known = [name for name in _ORDER if name in overall]
    return known + sorted(set(overall) - set(known), key=_by_number)


def list_headlines(names: Collection[str]) -> list[str]:
    """Lists the few metrics that a short report shows.

    Args:
        names: The names of a record's metrics.

    Returns:
        Those that there are, the one that ranks first.
    """
    return [name for name in _HEADLINES if name in names]


def _by_number(name: str) -> list[tuple[int, str]]:
    """The order in which 2 comes before 10, and a number before a word."""
    return [
        (int(part), "") if part.isdecimal() else (sys.maxsize, part) for part in name.split("_")
    ]


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


def contributions(
    patients: npt.NDArray[np.str_],
    truths: npt.NDArray[np.int64],
    correct: npt.NDArray[np.float64],
    scored: Sequence[int] | None = None,
) -> dict[str, float]:
    """Returns by patient what the mean of is the balanced accuracy, or the recall of some classes.

    It is the linearized contribution (influence function) of the patient: the recall of each class
    is a ratio, whose numerator and denominator both change when other patients are drawn.

    Args:
        patients: The patient of each unit that is scored, of shape [N].
        truths: The true class of each unit, of shape [N].
        correct: How far the truth of each unit is predicted, in [0, 1], of shape [N].
        scored: The classes that count, all if None.
    """
    labels = [k for k in np.unique(truths).tolist() if scored is None or k in scored]
    is_scored = np.isin(truths, labels)
    n_units = int(is_scored.sum())
    value, totals = 0.0, dict.fromkeys(np.unique(patients[is_scored]).tolist(), 0.0)
    for label in labels:
        of_class = truths == label
        recall = correct[of_class].mean()
        value += recall / len(labels)
        weight = n_units / int(of_class.sum()) / len(labels)
        for patient, right in zip(patients[of_class].tolist(), correct[of_class], strict=True):
            totals[patient] += weight * (right - recall)
    scale = len(totals) / max(1, n_units)
    return {patient: float(value + scale * total) for patient, total in totals.items()}


def group_units(
    patients: Sequence[str], truths: Sequence[int], unit: catalog.Unit
) -> list[list[int]]:
    """Returns the positions of the cases of each unit.

    Args:
        patients: The patient of each case.
        truths: The true class of each case.
        unit: What counts once.

    Raises:
        EvaCoralbayError: If a patient that counts once has several true classes.
    """
    if unit == "case":
        return [[index] for index in range(len(patients))]
    units: dict[str, list[int]] = {}
    for index, patient in enumerate(patients):
        units.setdefault(patient, []).append(index)
    for patient, cases in units.items():
        if len({truths[case] for case in cases}) > 1:
            raise EvaCoralbayError(
                f"Patient '{patient}' has cases of several true classes, but this task is scored "
                "by patient: correct the classes or the ids of the patients."
            )
    return list(units.values())


def decide(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns 1 for the class with the highest probability along the last axis, 0 for others."""
    decided = np.zeros_like(probabilities)
    np.put_along_axis(decided, probabilities.argmax(axis=-1)[..., None], 1.0, axis=-1)
    return decided


def _contributions(
    rows: Sequence[case_table.PredictionRow],
    metric: str,
    class_name: str | None,
    unit: catalog.Unit,
) -> dict[str, float | None]:
    """Returns the contributions of the patients to a balanced accuracy; empty for other metrics."""
    match = _BALANCED_ACCURACY.fullmatch(metric)
    if match is None:
        return {}
    point = match["point"]
    name = f"{match['classifier']}{f'prediction_{point}' if point else 'probability'}"
    of_metric = [row for row in rows if row.metric == name]
    if not of_metric:
        return {}
    classes = list(dict.fromkeys(row.class_name for row in of_metric))
    patients, values, truths = _find_units(of_metric, classes, unit)
    shares = values if point else decide(values)
    correct = np.take_along_axis(shares, truths[:, None], axis=1)[:, 0]
    scored = None if class_name is None else [classes.index(class_name)]
    return {**contributions(patients, truths, correct, scored)}


def _recalls(shares: npt.NDArray[np.float64], truths: npt.NDArray[np.int64]) -> list[float]:
    """Returns the recall of each true class, from the share of each class in the predictions."""
    return [float(shares[truths == label, label].mean()) for label in np.unique(truths)]


def _find_units(
    rows: Sequence[case_table.PredictionRow], classes: Sequence[str], unit: catalog.Unit
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Finds what is scored, the patients or the cases.

    Returns:
        By unit its patient [N], its values [N, classes], of a patient the mean over the cases,
        and its true class [N].
    """
    n = len(classes)
    read = (_read_case(rows[at : at + n], classes) for at in range(0, len(rows), n))
    patients, values, truths = zip(*read, strict=True)
    units = group_units(patients, truths, unit)
    firsts = [cases[0] for cases in units]
    means = [np.mean([values[index] for index in cases], axis=0) for cases in units]
    return np.array(patients)[firsts], np.array(means), np.array(truths)[firsts]


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
