"""The command `eva-coralbay results`."""

import argparse
import csv
import dataclasses
import sys
import textwrap
from collections.abc import Collection, Sequence

from typing_extensions import override

from eva_coralbay import _messages
from eva_coralbay.cli import _output, _subcommand
from eva_coralbay.results import curve_metrics, scores, summary

_GROUP = (
    "model", "task", "protocol", "part", "checkpoint", "settings", "seeds", "weights", "cases",
)  # fmt: skip
"""The columns that say what was run.

What all rows have in common is said above the table. The settings and the weights are parts of
hashes. The settings are shown where a task was run with several, the weights where they differ
between the seeds of a row.
"""

_LARGE = 1e6
"""From where on a value is written with an exponent; no metric of a real run is as large."""


class Results(_subcommand.Subcommand):
    """Prints a table of the results of all runs below a folder.

    Each row shows a model on one task, protocol and part of the split (val or test): the mean over
    the seeds and their standard deviation. If a run has scored several checkpoints, the table shows
    the one that its protocol ranks. Runs whose settings differ (steps, spacing, ...) have separate
    rows, which a hash tells apart. If the weights of the encoder differ between the seeds, as those
    of random encoders do, the column "weights" and a warning say so. The table has the metrics that
    count most; --json and --csv have all, and the values of each class.
    """

    name = "results"
    help = "print the results of one or more runs as a table"
    examples = """
        eva-coralbay results logs
        eva-coralbay results logs/radiology/coralbay/nnunet/20260101-120000000000_1a2b3c4d
        eva-coralbay results logs --csv > results.csv
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", metavar="FOLDER", help="the folder that the runs wrote to")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--json", action="store_true", help="print all values as JSON")
        how.add_argument(
            "--csv", action="store_true", help="print all values as CSV, a line for each metric"
        )

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Prints the table, and where the pictures are; the exit code is 1 if a file is broken."""
        found = summary.find(arguments.folder)
        summaries = summary.summarize([result for _, result in found.records])
        if arguments.json:
            _output.print_json([dataclasses.asdict(each) for each in summaries])
        elif arguments.csv:
            _print_csv(summaries)
        else:
            _print_tables(summaries)
            for folder in dict.fromkeys(path.parent for path, _ in found.records):
                for picture in sorted(folder.glob("cases_*.png")):
                    print(f"best and worst case: {picture}")
        for problem in found.unreadable:
            line = _messages.printable(" ".join(problem.split()))
            print(f"left out: {line}", file=sys.stderr)
        return 1 if found.unreadable else 0


def _print_tables(summaries: Sequence[summary.Summary]) -> None:
    """Prints a table for each kind of task, and of a single summary all metrics, and by class."""
    for kind in ("segmentation", "classification"):
        of_kind = [each for each in summaries if scores.task_kind(each.metrics) == kind]
        if of_kind:
            _print_table(of_kind)
    if len(summaries) == 1:
        _print_others(summaries[0])
        _print_classes(summaries[0])
    elif others := _list_others({name for each in summaries for name in each.metrics}):
        listed = f"--csv and --json have the values by class, and {', '.join(others)}."
        print(_messages.printable_lines("\n".join(textwrap.wrap(listed, width=100))))


def _print_table(summaries: Sequence[summary.Summary]) -> None:
    """Prints what all summaries have in common, and a row for each with its headline metrics."""
    metrics = scores.list_headlines({name for each in summaries for name in each.metrics})
    described = [_describe(each) for each in summaries]
    hidden = set()
    if not _have_several_settings(summaries):
        hidden.add("settings")
    if all(len(set(each.weights)) == 1 for each in summaries):
        hidden.add("weights")
    shown = [name for name in _GROUP if name not in hidden]
    common = [
        name for name in shown if name != "model" and len({row[name] for row in described}) == 1
    ]
    columns = [name for name in shown if name not in common]
    if common:
        print("; ".join(f"{name} {_messages.printable(described[0][name])}" for name in common))
    _output.print_table(
        (*columns, *metrics),
        [
            [
                *(row[name] for name in columns),
                *(_format(each.metrics.get(name)) for name in metrics),
            ]
            for each, row in zip(summaries, described, strict=True)
        ],
        title="Mean over cases and seeds ± standard deviation over seeds",
        numbers=("cases", *metrics),
        whole=("model", "task", "protocol", "settings", "weights", *metrics),
    )


def _print_others(each: summary.Summary) -> None:
    """Prints the metrics of a summary that the table has no column for, a row each."""
    if others := _list_others(each.metrics):
        _output.print_table(
            ("metric", "value"),
            [[name, _format(each.metrics[name])] for name in others],
            title="Other metrics",
            numbers=("value",),
            whole=("metric", "value"),
        )


def _list_others(names: Collection[str]) -> list[str]:
    """Lists the metrics over all classes that are not headlines."""
    headlines = scores.list_headlines(names)
    return [name for name in scores.list_overall(names) if name not in headlines]


def _print_classes(each: summary.Summary) -> None:
    """Prints the values by class of a summary, if it has any, but not with few labeled cases."""
    metrics = [name for name in scores.list_overall(each.metrics) if not curve_metrics.has(name)]
    by_class = {metric: scores.by_class(each.metrics, metric) for metric in metrics}
    names = dict.fromkeys(name for values in by_class.values() for name in values)
    shown = [metric for metric in metrics if by_class[metric]]
    if names:
        _output.print_table(
            ("class", *shown),
            [[name, *(_format(by_class[metric].get(name)) for metric in shown)] for name in names],
            title="By class",
            numbers=shown,
            whole=("class", *shown),
        )


def _print_csv(summaries: Sequence[summary.Summary]) -> None:
    """Prints a line for each summary and metric."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow((*_GROUP, "metric", "mean", "deviation", "runs"))
    for each in summaries:
        for name, value in each.metrics.items():
            line = [*_describe(each).values(), name, value.mean, value.deviation, value.n_runs]
            writer.writerow(map(_messages.csv_text, line))


def _have_several_settings(summaries: Sequence[summary.Summary]) -> bool:
    """Whether two rows would say the same without their settings."""
    rows = {(each.model, each.task, each.protocol, each.part) for each in summaries}
    return len(rows) < len(summaries)


def _describe(each: summary.Summary) -> dict[str, str]:
    """Returns what was run, by the columns in their order."""
    seeds = ", ".join(str(seed) for seed in each.seeds)
    weights = ", ".join(dict.fromkeys(digits or "unknown" for digits in each.weights))
    names = (each.model, each.task, each.protocol, each.part, each.checkpoint)
    values = (*names, each.settings or "-", seeds, weights, str(each.n_cases))
    return dict(zip(_GROUP, values, strict=True))


def _format(value: summary.Value | None) -> str:
    """Writes a value with its deviation, if there is one."""
    if value is None or value.mean is None:
        return "-"
    deviation = "" if value.deviation is None else f" ± {_round(value.deviation)}"
    return f"{_round(value.mean)}{deviation}"


def _round(value: float) -> str:
    """Writes a value with three decimals, but one that would fill the line in short."""
    return f"{value:.3f}" if abs(value) < _LARGE else f"{value:.3g}"
