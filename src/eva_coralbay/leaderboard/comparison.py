"""Two models on the same cases of a task: the numbers, and a sentence that sums them up."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eva_coralbay import _messages
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.leaderboard import statistics
from eva_coralbay.results import case_values, record, scores
from eva_coralbay.results import folder as results_folder

_ALL = "all classes"
"""What the row over all classes is called."""


@dataclasses.dataclass(frozen=True)
class Row:
    """The two models by all classes together or by one."""

    name: str
    """The class."""

    values: tuple[case_values.CaseValues, case_values.CaseValues]
    """The values of A and B, of the same cases."""

    comparison: statistics.Comparison
    """A less B. Of classes, the p-values are corrected for their number."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two models on a task."""

    task: str
    """The task and its version."""

    protocol: str
    metric: str
    model_a: str
    model_b: str

    total: Row
    """Over all classes."""

    classes: tuple[Row, ...]
    """By class, in the order of the case table."""

    left_out: Mapping[str, str]
    """Why a class cannot be compared."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The row over all classes, then those of the classes."""
        return (self.total, *self.classes)

    @property
    def verdict(self) -> str:
        """Which model is ahead, by how much and how sure, in a sentence."""
        comparison = self.total.comparison
        difference = comparison.difference
        if comparison.reason is not None:
            return f"{self.model_a} and {self.model_b} are {comparison.reason}."
        first, second = self.model_a, self.model_b
        if difference.value < 0:
            first, second = second, first
            difference = statistics.Estimate(-difference.value, -difference.high, -difference.low)
        return (
            f"{first} is ahead of {second} by {format_estimate(difference)}: "
            f"{format_p(comparison.p_value)}, {comparison.n_cases} cases."
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns the numbers as JSON has them."""
        return {
            "task": self.task,
            "protocol": self.protocol,
            "metric": self.metric,
            "model_a": self.model_a,
            "model_b": self.model_b,
            "verdict": self.verdict,
            "rows": [_as_dict(row) for row in self.rows],
            "left_out": dict(self.left_out),
        }


def compare(
    entries: Sequence[results_folder.Entry],
    model_a: str,
    model_b: str,
    *,
    task: str,
    protocol: str = "frozen",
) -> Pair:
    """Compares two models on the cases of a task that both have values of.

    The value of a case is the mean over its classes, and over the seeds of the model. A case
    where a class is absent from the truth and from the prediction of one of the models is left
    out of the comparison by that class.

    Args:
        entries: The results, of any models.
        model_a: The name of a model, as `<organization>/<model>` or
            `<organization>/<model>@<revision>`.
        model_b: The name of the other one.
        task: The id of the task, or `<id>@<version>`.
        protocol: The protocol.

    Returns:
        The comparison.

    Raises:
        EvaCoralbayError: If there is no result of a model, there are several of which one must be
            named, or those of the two cannot be compared.
    """
    runs_a, runs_b = (_select(entries, model, task, protocol) for model in (model_a, model_b))
    _check_comparable(runs_a[0].record, runs_b[0].record, model_a, model_b)
    metric = scores.headline_metric(runs_a[0].record.metrics)
    tables_a, tables_b = case_values.read_tables(runs_a), case_values.read_tables(runs_b)
    total = _compare(_ALL, tables_a, tables_b, metric)
    classes, left_out = [], {}
    for name in dict.fromkeys(row.class_name for row in tables_a[runs_a[0].cases_path].rows):
        try:
            classes.append(_compare(name, tables_a, tables_b, metric, class_name=name))
        except ValueError as error:
            left_out[name] = str(error)
    corrected = statistics.correct([row.comparison for row in classes])
    return Pair(
        task=_task_name(runs_a[0].record),
        protocol=protocol,
        metric=metric,
        model_a=model_a,
        model_b=model_b,
        total=total,
        classes=tuple(
            dataclasses.replace(row, comparison=comparison)
            for row, comparison in zip(classes, corrected, strict=True)
        ),
        left_out=left_out,
    )


def format_estimate(estimate: statistics.Estimate, sign: str = "") -> str:
    """Formats a value with its interval.

    Args:
        estimate: The value.
        sign: `+` to have the sign of positive numbers too.
    """
    value, low, high = (
        format(number, f"{sign}.3f") for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]"


def _select(
    entries: Sequence[results_folder.Entry], model: str, task: str, protocol: str
) -> list[results_folder.Entry]:
    """Returns the seeds of a model on a task."""
    on_task = [e for e in entries if task in (e.record.task.id, _task_name(e.record))]
    of_model = [e for e in on_task if model in (e.record.model.id, _model_name(e.record))]
    found = [e for e in of_model if e.record.protocol == protocol]
    if not found:
        missing = f"There is no result of '{model}' on '{task}' by the protocol '{protocol}'. "
        if of_model:
            others = _list(str(e.record.protocol) for e in of_model)
            raise EvaCoralbayError(f"{missing}There are results by others: {others} (--protocol).")
        known = _list(str(e.record.model.id) for e in on_task if e.record.protocol == protocol)
        raise EvaCoralbayError(f"{missing}There are results of {known or 'no model'}.")
    names = {(_model_name(entry.record), _task_name(entry.record)) for entry in found}
    if len(names) > 1:
        several = _list(f"{name} on {of}" for name, of in names)
        raise EvaCoralbayError(
            f"There are several results of '{model}' on '{task}': {several}. Name the model as "
            "<organization>/<model>@<revision> and the task as <id>@<version>."
        )
    return found


def _check_comparable(first: record.Record, second: record.Record, *models: str) -> None:
    """Checks that two models were evaluated on the same cases, for the same purpose."""
    differences = {
        "the version of the task": (_task_name(first), _task_name(second)),
        "the kind of the result": (first.kind, second.kind),
        "the split": (first.split, second.split),
    }
    for what, (of_a, of_b) in differences.items():
        if of_a != of_b:
            raise EvaCoralbayError(
                f"{' and '.join(models)} cannot be compared, as {what} differs: {of_a}, {of_b}."
            )


def _compare(
    name: str,
    tables_a: case_values.Tables,
    tables_b: case_values.Tables,
    metric: str,
    class_name: str | None = None,
) -> Row:
    """Compares two models by all classes or by one."""
    values = case_values.restrict_to_common_cases(
        {
            "A": case_values.select(tables_a, metric, class_name),
            "B": case_values.select(tables_b, metric, class_name),
        }
    )
    (comparison,) = statistics.compare(values)
    return Row(name, (values["A"], values["B"]), comparison)


def _as_dict(row: Row) -> dict[str, Any]:
    """Returns the numbers of a row as JSON has them."""
    first, second = row.values
    return {
        "class": row.name,
        "mean_a": float(first.by_case.mean()),
        "mean_b": float(second.by_case.mean()),
        "difference": dataclasses.asdict(row.comparison.difference),
        "p_value": row.comparison.p_value,
        "corrected_p_value": row.comparison.corrected_p_value,
        "n_cases": row.comparison.n_cases,
        "n_excluded": len(first.excluded),
        "n_seeds": list(row.comparison.n_seeds),
        "reason": row.comparison.reason,
    }


def _task_name(result: record.Record) -> str:
    return f"{result.task.id}@{result.task.version}"


def _model_name(result: record.Record) -> str:
    revision = (
        results_folder.UNVERSIONED if result.model.revision is None else result.model.revision
    )
    return f"{result.model.id}@{revision}"


def _list(names: Iterable[str]) -> str:
    """Lists names once each, the first few of many."""
    return _messages.list_names(sorted(set(names)))


def format_p(p_value: float) -> str:
    """Formats a p-value.

    Args:
        p_value: The p-value.
    """
    return "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.2g}"
