"""Checks the case table of a record, and that its metrics follow from it."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Final

from eva_coralbay import _messages
from eva_coralbay.leaderboard.validation import fault, files, task
from eva_coralbay.leaderboard.validation.fault import Fault
from eva_coralbay.results import case_table, record, scores
from eva_coralbay.results import folder as results_folder
from eva_coralbay.tasks import catalog

TOLERANCE: Final = 1e-9
"""How far a metric may be from that of the case table."""

_ROUNDING = 1e-3
"""How far a number of voxels that follows from a Dice value may be from a whole one."""


def check_table(entry: results_folder.Entry, readable: set[pathlib.Path]) -> Iterator[Fault]:
    """Checks the case table, and the metrics by it."""
    path, stated = entry.cases_path, entry.record.cases
    yield from files.check_file(entry, "cases", path, stated.file, stated.sha256, readable)
    if path not in readable:
        return
    try:
        rows = entry.rows
    except ValueError as error:
        yield Fault(path, "", fault.without_path(error, path))
        return
    counts = {"rows": len(rows), "excluded": sum(row.value is None for row in rows)}
    for field, count in counts.items():
        if getattr(stated, field) != count:
            yield Fault(
                entry.path,
                f"cases.{field}",
                f"is {getattr(stated, field)}, but the case table has {count}.",
            )
    yield from _check_cases(entry, rows)
    yield from _check_values(path, rows)
    yield from _check_metrics(entry, rows)


def _check_cases(entry: results_folder.Entry, rows: Sequence[case_table.Row]) -> Iterator[Fault]:
    """Checks that the rows are of all cases of the split, each with all classes."""
    path, split = entry.cases_path, entry.record.split
    registered = catalog.TASKS.get(entry.record.task.id)
    cases = list(dict.fromkeys(row.case for row in rows))
    known = task.cases_of(entry.record)
    if known is not None:
        missing, surplus = sorted(set(known) - set(cases)), sorted(set(cases) - set(known))
        if missing:
            yield Fault(path, "", f"lacks cases of the split: {_messages.list_names(missing)}.")
        if surplus:
            yield Fault(
                path, "", f"has cases that are not in the split: {_messages.list_names(surplus)}."
            )
    elif len(cases) != split.n or record.ids_sha256(cases) != split.ids_sha256:
        yield Fault(
            path,
            "",
            f"has {len(cases)} cases, which are not the {split.n} of the split: their ids have "
            "another hash than `split.ids_sha256`.",
        )

    classes = list(dict.fromkeys(row.class_name for row in rows))
    if registered is not None and classes != list(registered.classes):
        yield Fault(
            path,
            "column class",
            f"has the classes {classes[:200]}, but the {registered.kind} {entry.record.task.id} "
            f"has {list(registered.classes)}.",
        )
        return
    # some metrics are of some classes only, e.g. those of lesions
    ranked = "dice" if rows and isinstance(rows[0], case_table.CaseRow) else "probability"
    wanted = {(row.class_name, row.metric) for row in rows} | {(name, ranked) for name in classes}
    by_case: dict[str, set[tuple[str, str]]] = {case: set() for case in cases}
    for row in rows:
        by_case[row.case].add((row.class_name, row.metric))
    for case, found in by_case.items():
        for name, metric in sorted(wanted - found):
            yield Fault(path, f"case {case}", f"has no {metric} of {name}, but other cases have.")


def _check_values(path: pathlib.Path, rows: Sequence[case_table.Row]) -> Iterator[Fault]:
    """Checks that each row has values that can be."""
    for line, row in enumerate(rows, start=2):
        problem = _find_bad_value(row)
        if problem is not None:
            yield Fault(
                path, f"line {line}", f"{row.metric} of {row.class_name} in {row.case} {problem}"
            )


def _find_bad_value(row: case_table.Row) -> str | None:
    """Returns what is wrong with a row, `None` if nothing is."""
    is_bounded = _is_bounded(row.metric)
    if row.value is not None and (row.value < 0 or (is_bounded and row.value > 1)):
        return f"is {row.value}, but lies {'in 0 to 1' if is_bounded else 'at 0 or above'}."
    if isinstance(row, case_table.PredictionRow):
        return "is empty, but every class has a probability." if row.value is None else None

    both = row.truth_voxels + row.predicted_voxels
    if row.truth_voxels < 0 or row.predicted_voxels < 0:
        return "is of a negative number of voxels."
    if row.metric not in scores.LESION_METRICS and (row.value is None) != (both == 0):
        return (
            f"is {'empty' if row.value is None else row.value} with {both} voxels in truth and "
            "prediction, but it is empty exactly if there are none."
        )
    if row.metric == "dice" and row.value is not None:
        common = row.value * both / 2
        is_whole = abs(common - round(common)) <= _ROUNDING
        if not is_whole or round(common) > min(row.truth_voxels, row.predicted_voxels):
            return (
                f"is {row.value}, which {row.truth_voxels} voxels of the truth and "
                f"{row.predicted_voxels} of the prediction cannot give."
            )
    return None


def _is_bounded(metric: str) -> bool:
    """Whether a metric, over all classes or of one, lies in 0 to 1."""
    return not metric.startswith(scores.LOWER_IS_BETTER)


def _check_metrics(entry: results_folder.Entry, rows: Sequence[case_table.Row]) -> Iterator[Fault]:
    """Checks that the metrics are those of the case table."""
    try:
        found = scores.summarize(rows, catalog.scoring_unit(entry.record.task.id))
    except ValueError as error:
        yield Fault(entry.cases_path, "", str(error))
        return
    stated = entry.record.metrics
    for name in sorted(found.keys() | stated.keys()):
        if name not in found:
            yield Fault(entry.path, f"metrics.{name}", "does not follow from the case table.")
        elif name not in stated:
            yield Fault(entry.path, f"metrics.{name}", f"is missing: it is {found[name]}.")
        elif not scores.is_close(stated[name], found[name], TOLERANCE):
            yield Fault(
                entry.path,
                f"metrics.{name}",
                f"is {stated[name]}, but the case table gives {found[name]}.",
            )
    for perturbation, values in (entry.record.robustness or {}).items():
        for name, value in values.items():
            where = f"robustness.{perturbation}.{name}"
            if name not in found:
                yield Fault(entry.path, where, "is not a metric of this task.")
            elif value is not None and (value < 0 or (value > 1 and _is_bounded(name))):
                yield Fault(entry.path, where, f"is {value}, which no {name} can be.")
