"""The page's numbers for programs: `leaderboard.json` and `leaderboard.csv`."""

import csv
import io
import json
from typing import Any

from eva_coralbay import _messages
from eva_coralbay.leaderboard import statistics
from eva_coralbay.leaderboard.page import board

_COLUMNS = (
    "kind",
    "task_kind",
    "protocol",
    "model",
    "revision",
    "task",
    "version",
    "part",
    "metric",
    "value",
    "low",
    "high",
    "n_cases",
    "n_excluded",
    "n_seeds",
    "overlap",
    "rank",
    "rank_low",
    "rank_high",
    "hours",
    "device",
    "seconds_per_volume",
    "status",
)
"""The columns of the CSV."""


def as_json(content: board.Board) -> str:
    """Returns all numbers of the page as JSON.

    Args:
        content: What the page shows.
    """
    document = {
        "tracks": [_track(track) for track in content.tracks],
        "reported": [number.model_dump(mode="json") for number in content.reported],
    }
    text = json.dumps(document, allow_nan=False, ensure_ascii=False, indent=1, sort_keys=True)
    return f"{text}\n"


def as_csv(content: board.Board) -> str:
    """Returns a line for each model and task as CSV.

    Args:
        content: What the page shows.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for track in content.tracks:
        for row in track.rows:
            for column in track.columns:
                if column.slug in row.cells:
                    writer.writerow(map(_messages.csv_text, _line(track, row, column)))
    return text.getvalue()


def status(row: board.Row) -> str:
    """Says who has repeated the runs of a row.

    Args:
        row: The row.
    """
    n_entries = len(row.entries)
    if row.n_verified == n_entries:
        return "verified"
    return f"{row.n_verified} of {n_entries} verified" if row.n_verified else "self-reported"


def _track(track: board.Track) -> dict[str, Any]:
    return {
        "id": track.slug,
        "kind": "demo" if track.is_demo else "measured",
        "task_kind": track.task_kind,
        "protocol": track.protocol,
        "tasks": [
            {
                "task": column.task,
                "version": column.version,
                "part": column.part,
                "split": column.split,
                "checkpoint": column.selection,
                "metric": column.metric,
                "data_license": column.data_license,
                "is_ranked_by": column in track.ranked_by,
            }
            for column in track.columns
        ],
        "agreement": dict(track.agreement),
        "models": [_row(track, row) for row in track.rows],
    }


def _row(track: board.Track, row: board.Row) -> dict[str, Any]:
    place = row.place
    return {
        "model": row.model,
        "revision": row.revision,
        "parameters": row.parameters,
        "pretraining": row.pretraining,
        "license": row.license,
        "rank": place.rank if place else None,
        "rank_interval": list(place.rank_interval) if place else None,
        "tie_group": place.tie_group if place else None,
        "mean_rank": _estimate(place.mean_rank) if place else None,
        "win_rate": _estimate(place.win_rate) if place else None,
        "mean": _estimate(place.mean) if place else None,
        "missing": row.missing,
        "hours": row.hours,
        "devices": row.devices,
        "seconds_per_volume": row.seconds_per_volume,
        "status": status(row),
        "versions": row.versions,
        "scores": [
            _cell(column, row.cells[column.slug])
            for column in track.columns
            if column.slug in row.cells
        ],
    }


def _cell(column: board.Column, cell: board.Cell) -> dict[str, Any]:
    return {
        "task": column.task,
        "version": column.version,
        "metric": column.metric,
        "value": cell.value,
        "interval": [cell.score.mean.low, cell.score.mean.high] if cell.score else None,
        "n_cases": cell.n_cases,
        "n_excluded": cell.score.n_excluded if cell.score else None,
        "seeds": [entry.record.seed for entry in cell.entries],
        "overlap": cell.overlap.model_dump(mode="json"),
        "classes": cell.classes,
        "robustness": cell.robustness,
    }


def _estimate(estimate: statistics.Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _line(track: board.Track, row: board.Row, column: board.Column) -> list[Any]:
    """Returns the values of the columns."""
    cell = row.cells[column.slug]
    rank: list[Any] = ["", "", ""]
    if row.place:
        rank = [row.place.rank, *row.place.rank_interval]
    return [
        "demo" if track.is_demo else "measured",
        track.task_kind,
        track.protocol,
        row.model,
        row.revision or "",
        column.task,
        column.version,
        column.part,
        column.metric,
        cell.value,
        cell.score.mean.low if cell.score else None,
        cell.score.mean.high if cell.score else None,
        cell.n_cases,
        cell.score.n_excluded if cell.score else None,
        cell.n_seeds,
        cell.overlap.kind,
        *rank,
        row.hours,
        "; ".join(row.devices),
        row.seconds_per_volume,
        status(row),
    ]
