"""The command `eva-coralbay results`."""

import argparse
import csv
import dataclasses
import sys
from collections.abc import Sequence

from typing_extensions import override

from eva_coralbay import _messages
from eva_coralbay.cli import _output, _subcommand
from eva_coralbay.results import scores, summary

_GROUP = (
    "model", "task", "protocol", "part", "checkpoint", "settings", "seeds", "weights", "cases",
)  # fmt: skip
"""The columns that say what was run.

The settings and the weights are parts of hashes. The settings are shown where a task was run with
several, the weights where they differ between the seeds of a row.
"""

_LARGE = 1e6
"""From where on a value is written with an exponent; no metric of a real run is as large."""


class Results(_subcommand.Subcommand):
    """Prints a table of the results of all runs below a folder.

    Each row shows a model on one task, protocol and part of the split (val or test): the mean over
    the seeds and their standard deviation. If a run has scored several checkpoints, the table shows
    the one that its protocol ranks. Runs whose settings differ (steps, spacing, ...) have separate
    rows, which a hash tells apart. If the weights of the encoder differ between the seeds, as those
    of random encoders do, the column "weights" and a warning say so. --json and --csv also have the
    values of each class.
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
    """Prints a row for each summary, and of a single one the values by class."""
    if not summaries:
        return
    metrics = scores.list_overall({name for each in summaries for name in each.metrics})
    hidden = set()
    if not _have_several_settings(summaries):
        hidden.add("settings")
    if all(len(set(each.weights)) == 1 for each in summaries):
        hidden.add("weights")
    shown = [name for name in _GROUP if name not in hidden]
    _output.print_table(
        (*shown, *metrics),
        [
            [
                *(_describe(each)[name] for name in shown),
                *(_format(each.metrics.get(name)) for name in metrics),
            ]
            for each in summaries
        ],
        title="Mean over cases and seeds ± standard deviation over seeds",
        numbers=("seeds", "cases", *metrics),
        whole=("model", "task", "protocol", "settings", "weights", *metrics),
    )
    if len(summaries) == 1:
        _print_classes(summaries[0], metrics)


def _print_classes(each: summary.Summary, metrics: Sequence[str]) -> None:
    """Prints the values by class of a summary, if it has any."""
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
