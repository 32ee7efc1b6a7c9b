"""The label-efficiency curves of a task: the score with few labeled training cases."""

import dataclasses
from collections.abc import Mapping, Sequence

from eva_coralbay.leaderboard import statistics
from eva_coralbay.leaderboard.page import board
from eva_coralbay.results import case_values, curve_metrics
from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import label_curves as curve_files
from eva_coralbay.tasks import catalog
from eva_coralbay.tasks import splits as splits_lib

_RESAMPLES = 2000
"""The bootstrap samples of an interval, which is only drawn."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """The score of a model by the number of labeled training cases."""

    label: str
    """The id of the model with its revision."""

    points: Mapping[int, statistics.Estimate]
    """The score with its interval, by the number of training cases."""


def unit(metric: str) -> str:
    """Returns what is counted along the curves of a task that is ranked by a metric."""
    return curve_files.UNITS[metric]


def find(track: board.Track, column: board.Column) -> list[Curve]:
    """Finds the curves of the models on a task.

    Args:
        track: The track.
        column: The task.

    Returns:
        The curves of the models that have one, in the order of the track.
    """
    curves = (
        Curve(label, _read_points(cell.entries)) for label, cell in track.models(column).items()
    )
    return [curve for curve in curves if len(curve.points) > 1]


def _read_points(
    entries: Sequence[results_folder.Entry],
) -> dict[int, statistics.Estimate]:
    """Returns the points of the runs of a model."""
    first = entries[0].record
    metrics = curve_metrics.find(first.metrics)
    if not metrics:
        return {}
    n_training = _count_training_cases(entries[0])
    if n_training is not None:
        name = next(iter(metrics.values()))
        metrics = {**metrics, n_training: name.rpartition("_at_")[0]}
    tables, points = case_values.read_tables(entries), {}
    for n_cases, metric in metrics.items():
        try:
            values = case_values.select(tables, metric)
        except (case_values.TooFewCases, ValueError):
            continue
        points[n_cases] = statistics.mean(values, resamples=_RESAMPLES).mean
    return points


def _count_training_cases(entry: results_folder.Entry) -> int | None:
    """Returns the number of training cases of a task of the leaderboard, as a curve counts them."""
    result = entry.record
    if result.task.id not in catalog.TASKS or result.split.name is None:
        return None
    splits = splits_lib.read_splits(result.task.id)
    scheme = splits.schemes.get(result.split.name.partition("@")[0])
    if scheme is None:
        return None
    task, n_cases = catalog.TASKS[result.task.id], len(scheme["train"])
    if task.kind == "segmentation":
        return n_cases
    return curve_files.cases_per_class(n_cases, len(task.classes))
