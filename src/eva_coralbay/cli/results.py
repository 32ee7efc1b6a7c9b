"""The command `eva-coralbay results`."""

import argparse
import math
import pathlib
import statistics
from collections.abc import Sequence

from typing_extensions import override

from eva_coralbay.cli import _output, _subcommand
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.results import record


class Results(_subcommand.Subcommand):
    """Prints the records that `eva fit` has left below a folder."""

    name = "results"
    help = "print the results of one or more runs as a table"
    examples = """
        eva-coralbay results logs
        eva-coralbay results logs/radiology/coralbay/nnunet/20260101-120000000000_1a2b3c4d
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", metavar="FOLDER", help="the folder that the runs wrote to")

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Prints a row per metric and a column per record, and where the pictures are."""
        records = _find_records(arguments.folder)
        headings = [_heading(path, entry) for path, entry in records]
        _output.print_table(
            ("metric", *headings, "mean"),
            _rows([entry for _, entry in records]),
            title="Mean over cases",
            numbers=(*headings, "mean"),
        )
        for folder in dict.fromkeys(path.parent for path, _ in records):
            for picture in sorted(folder.glob("cases_*.png")):
                print(f"best and worst case: {picture}")
        return 0


def _find_records(folder: str) -> list[tuple[pathlib.Path, record.Record]]:
    """Reads every record below a folder, sorted by path.

    Raises:
        EvaCoralbayError: If there is none, or one cannot be read.
    """
    paths = sorted(pathlib.Path(folder).rglob("record_*.json"))
    if not paths:
        raise EvaCoralbayError(
            f"There is no record (record_*.json) below {folder}. Name the folder that a finished "
            "`eva fit` wrote to (OUTPUT_ROOT)."
        )
    return [(path, record.Record.read(path)) for path in paths]


def _rows(records: Sequence[record.Record]) -> list[list[str]]:
    """Returns by metric its value in each record, and the mean of them."""
    rows = []
    for name in dict.fromkeys(name for entry in records for name in entry.metrics):
        values = [entry.metrics.get(name) for entry in records]
        rows.append([name, *map(_format, values), _format(_mean(values))])
    return rows


def _heading(path: pathlib.Path, entry: record.Record) -> str:
    """Says what a column holds: run, protocol, seed, cases and checkpoint."""
    return "\n".join(
        (
            path.parent.name,
            f"{entry.protocol}, seed {entry.seed}",
            f"{entry.split.n} {entry.split.part} cases",
            f"{entry.checkpoint.selection} (step {entry.checkpoint.step})",
        )
    )


def _mean(values: Sequence[float | None]) -> float:
    defined = [value for value in values if value is not None]
    return statistics.fmean(defined) if defined else math.nan


def _format(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"
