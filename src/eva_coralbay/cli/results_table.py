"""The table of the results that `eva fit` has left under a folder."""

import math
import os
import pathlib
import statistics

from rich import table as rich_table

from eva_coralbay.results import record


def find_records(folder: str | os.PathLike[str]) -> list[tuple[pathlib.Path, record.Record]]:
    """Reads every record below a folder.

    Args:
        folder: The output folder of one or more runs.

    Returns:
        The path of each record and the record, sorted by path.

    Raises:
        ValueError: If there is none, or one cannot be read.
    """
    paths = sorted(pathlib.Path(folder).rglob("record_*.json"))
    if not paths:
        raise ValueError(
            f"There is no record (record_*.json) below {folder}. Name the folder that a finished "
            "`eva fit` wrote to (OUTPUT_ROOT)."
        )
    return [(path, record.Record.read(path)) for path in paths]


def draw_table(records: list[tuple[pathlib.Path, record.Record]]) -> rich_table.Table:
    """Draws the metrics of several records side by side.

    Args:
        records: The path of each record and the record.

    Returns:
        A table with a row a metric, a column a record and the mean over the records.
    """
    table = rich_table.Table(title="Mean over cases")
    table.add_column("metric", style="bold")
    for path, entry in records:
        table.add_column(_heading(path, entry), justify="right")
    table.add_column("mean", justify="right", style="bold")
    for name in dict.fromkeys(name for _, entry in records for name in entry.metrics):
        values = [entry.metrics.get(name) for _, entry in records]
        table.add_row(name, *map(_format, values), _format(_mean(values)))
    return table


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


def _mean(values: list[float | None]) -> float:
    defined = [value for value in values if value is not None]
    return statistics.fmean(defined) if defined else math.nan


def _format(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"
