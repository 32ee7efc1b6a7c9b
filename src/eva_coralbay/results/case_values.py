"""The values by case of a model on a task: every seed on every case."""

import dataclasses
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from eva_coralbay import _messages
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.results import case_table, folder, scores
from eva_coralbay.tasks import catalog

_Array = npt.NDArray[np.float64]


class Table(NamedTuple):
    """The case table of a run."""

    rows: Sequence[case_table.Row]

    unit: catalog.Unit
    """What counts once in a classification."""


Tables: TypeAlias = Mapping[pathlib.Path, Table]
"""The case table of every seed of a model on a task, by its file."""


class TooFewCases(EvaCoralbayError):
    """There are too few cases with values for any statistics."""


@dataclasses.dataclass(frozen=True)
class Components:
    """Estimates of the variance of one value, by its source; by analysis of variance."""

    cases: float
    """Between cases; of a single seed, including the residual."""

    seeds: float | None
    """Between seeds; `None` of a single one."""

    residual: float | None
    """Of case and seed together; `None` of a single seed."""


@dataclasses.dataclass(frozen=True, eq=False)
class CaseValues:
    """The values of a model on a task: every seed on every case."""

    cases: tuple[str, ...]
    """The case ids."""

    values: _Array
    """Finite values of shape [seeds, cases]; higher is better."""

    excluded: tuple[str, ...] = ()
    """Ids of the cases without a value."""

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.values.ndim != 2 or self.values.shape[1] != len(self.cases):
            raise ValueError(
                f"Expected values of shape [seeds, cases] for {len(self.cases)} cases, got "
                f"{list(self.values.shape)}."
            )
        if self.n_seeds < 1 or len(self.cases) < 2:
            raise TooFewCases(
                f"{self.n_seeds} seeds and {len(self.cases)} cases have values "
                f"({len(self.excluded)} cases are excluded), but statistics take at least one "
                "seed and two cases."
            )
        if len(set(self.cases)) < len(self.cases):
            raise EvaCoralbayError("A case id appears twice.")
        is_infinite = ~np.isfinite(self.values).all(axis=0)
        infinite = [self.cases[index] for index in np.flatnonzero(is_infinite)]
        if infinite:
            raise EvaCoralbayError(
                f"The values of the cases {_messages.list_names(infinite)} are not finite. "
                "A case without a value is to be excluded."
            )

    @classmethod
    def from_runs(cls, runs: Sequence[Mapping[str, float | None]]) -> "CaseValues":
        """Gathers the runs of a model on a task.

        A case that has no value (`None` or NaN) in one of the runs is excluded from all of them.

        Args:
            runs: The value by case id of every run, one for each seed.

        Returns:
            The values, with the cases in the order of their ids.

        Raises:
            EvaCoralbayError: If the runs are of different cases, or a value is infinite, naming the
                cases.
            TooFewCases: If fewer than two cases have values.
        """
        for run in runs:
            check_same_cases(runs[0], run, "Two seeds")
        cases = sorted(runs[0]) if runs else []
        excluded = {case for case in cases if any(_is_missing(run[case]) for run in runs)}
        kept = [case for case in cases if case not in excluded]
        values = np.array([[run[case] for case in kept] for run in runs], dtype=np.float64)
        return cls(tuple(kept), values.reshape(len(runs), len(kept)), tuple(sorted(excluded)))

    @property
    def n_seeds(self) -> int:
        """The number of seeds."""
        return len(self.values)

    @property
    def by_case(self) -> _Array:
        """The mean over the seeds by case."""
        return self.values.mean(axis=0)

    @property
    def components(self) -> Components:
        """The estimated components of the variance."""
        by_case = self.by_case
        if self.n_seeds == 1:
            return Components(float(by_case.var(ddof=1)), None, None)

        by_seed = self.values.mean(axis=1)
        residuals = self.values - by_case - by_seed[:, None] + by_case.mean()
        residual = (residuals**2).sum() / ((self.n_seeds - 1) * (len(self.cases) - 1))
        return Components(
            cases=max(0.0, float(by_case.var(ddof=1) - residual / self.n_seeds)),
            seeds=max(0.0, float(by_seed.var(ddof=1) - residual / len(self.cases))),
            residual=float(residual),
        )


def gather(
    entries: Sequence[folder.Entry], metric: str, class_name: str | None = None
) -> CaseValues:
    """Gathers the values of the cases from the seeds of a model on a task.

    Args:
        entries: The entries of one model, task and protocol, one for each seed.
        metric: The metric of the case table, e.g. `dice`; or `balanced_accuracy` and those of a
            probe with few labels, where the mean of the patients' values is the balanced accuracy.
            Other metrics of a classification have no values by case: they are shown without an
            interval.
        class_name: A class to take the values of. If None, the value of a case is the mean over
            its classes; the mean over the cases is then the record's metric.

    Returns:
        The values; higher is better, so those of a metric of which lower is better are negated.

    Raises:
        EvaCoralbayError: If there are no values of this metric, or the seeds are of different
            cases.
    """
    return select(read_tables(entries), metric, class_name)


def read_tables(entries: Iterable[folder.Entry]) -> Tables:
    """Reads the case tables of the seeds of a model on a task, for several calls of `select`.

    Args:
        entries: The entries of one model, task and protocol, one for each seed.

    Raises:
        EvaCoralbayError: If one of them is not a case table, naming the line.
    """
    return {
        entry.cases_path: Table(entry.rows, catalog.scoring_unit(entry.record.task.id))
        for entry in entries
    }


def select(tables: Tables, metric: str, class_name: str | None = None) -> CaseValues:
    """Selects the values of a metric from tables that are read: see `gather`.

    Args:
        tables: The tables.
        metric: The metric of the case table.
        class_name: A class to take the values of; None for the mean over the classes of a case.

    Raises:
        EvaCoralbayError: If there are no values of this metric, or the seeds are of different
            cases.
    """
    sign = -1.0 if metric in scores.LOWER_IS_BETTER else 1.0
    runs = []
    for path, table in tables.items():
        values = scores.by_case(table.rows, metric, class_name, table.unit)
        if not values:
            of = "" if class_name is None else f" of the class '{class_name}'"
            raise EvaCoralbayError(f"{path} has no values by case of '{metric}'{of}.")
        runs.append(
            {case: None if value is None else sign * value for case, value in values.items()}
        )
    return CaseValues.from_runs(runs)


def restrict_to_common_cases(models: Mapping[str, CaseValues]) -> dict[str, CaseValues]:
    """Restricts models to the cases of which all of them have values.

    Args:
        models: The values by model, of a task.

    Returns:
        The same with fewer cases; those left out count as excluded.

    Raises:
        TooFewCases: If fewer than two cases are left.
    """
    shared = set.intersection(*(set(values.cases) for values in models.values()))
    restricted = {}
    for name, values in models.items():
        kept = [index for index, case in enumerate(values.cases) if case in shared]
        left_out = set(values.cases) - shared
        restricted[name] = CaseValues(
            tuple(values.cases[index] for index in kept),
            values.values[:, kept],
            tuple(sorted(left_out.union(values.excluded))),
        )
    return restricted


def check_same_cases(first: Iterable[str], second: Iterable[str], who: str) -> None:
    """Checks that two sets of cases are the same."""
    different = sorted(set(first) ^ set(second))
    if different:
        raise EvaCoralbayError(
            f"{who} do not have values of the same cases: only one of them has "
            f"{_messages.list_names(different)}. Use the cases that both have."
        )


def _is_missing(value: float | None) -> bool:
    return value is None or math.isnan(value)
