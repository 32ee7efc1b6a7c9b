"""What the page shows: tracks of tasks and models, with their scores and statistics.

A track is what is ranked together: the tasks of one kind, evaluated by one protocol. Records of
kind `demo` have tracks of their own.
"""

import dataclasses
import datetime
import hashlib
import pathlib
import re
import statistics as stdlib_statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from eva_coralbay.leaderboard import cards as model_cards
from eva_coralbay.leaderboard import reported, statistics
from eva_coralbay.results import case_values
from eva_coralbay.results import folder as results_folder

_SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
"""What can be a file name as it is."""

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Column:
    """A task in a track."""

    slug: str
    """Name of its page, without the ending."""

    label: str
    """The task and, where it has several in the track, its version."""

    task: str
    version: str
    part: str
    split: str | None
    selection: str
    metric: str
    data_license: str | None


@dataclasses.dataclass(frozen=True)
class Cell:
    """A model on a task."""

    entries: list[results_folder.Entry]
    """The runs, one a seed."""

    value: float | None
    """The metric, the mean over the seeds; `None` if it is not defined."""

    cases: case_values.CaseValues | None
    """The values by case, `None` if the metric has none."""

    score: statistics.Mean | None
    """The mean over the cases with its interval, `None` without values by case."""

    overlap: model_cards.Overlap

    classes: dict[str, float | None]
    """The metric by class, the mean over the seeds."""

    robustness: dict[str, float | None]
    """The change of the metric by perturbation, the mean over the seeds."""

    @property
    def n_seeds(self) -> int:
        """The number of runs."""
        return len(self.entries)

    @property
    def date(self) -> datetime.date | None:
        """The day of the newest run, `None` if none is known."""
        return _newest(self.entries)

    @property
    def n_cases(self) -> int:
        """The number of cases that the value is of."""
        return self.score.n_cases if self.score else self.entries[0].record.split.n


@dataclasses.dataclass(frozen=True)
class Row:
    """A model in a track."""

    label: str
    """The id of the model with its revision."""

    model: str
    revision: str | None
    card: model_cards.ModelCard | None

    cells: dict[str, Cell]
    """The cells by the slug of the column."""

    place: statistics.RankedModel | None
    """Its place, `None` if it is not ranked."""

    missing: list[str]
    """The labels of the tasks that it lacks, of those that are ranked by."""

    n_verified: int
    """The number of its records that somebody else has repeated."""

    @property
    def entries(self) -> list[results_folder.Entry]:
        """All runs."""
        return [entry for cell in self.cells.values() for entry in cell.entries]

    @property
    def slug(self) -> str:
        """Name of the model's page, without the ending."""
        return model_slug(self.model)

    @property
    def parameters(self) -> int | None:
        """The number of parameters, as measured or else as published."""
        measured = _first(entry.record.model.parameters for entry in self.entries)
        return measured or (self.card.parameters if self.card else None)

    @property
    def license(self) -> str | None:
        """License of the weights."""
        recorded = _first(entry.record.model.license for entry in self.entries)
        return recorded or (self.card.license if self.card else None)

    @property
    def pretraining(self) -> str:
        """What it was pre-trained on, in a few words."""
        if self.card is not None:
            return describe_pretraining(self.card)
        names = _first(entry.record.model.training_datasets for entry in self.entries)
        return ", ".join(names) if names else "unknown"

    @property
    def hours(self) -> float | None:
        """The time of the training of all runs."""
        seconds = [entry.record.cost.fit_seconds for entry in self.entries]
        known = [value for value in seconds if value is not None]
        return sum(known) / 3600 if known else None

    @property
    def devices(self) -> list[str]:
        """The devices of the runs."""
        return sorted({entry.record.environment.device for entry in self.entries})

    @property
    def has_gpu(self) -> bool:
        """Whether all runs were on a GPU."""
        return not any(device.startswith("cpu") for device in self.devices)

    @property
    def seconds_per_volume(self) -> float | None:
        """The time of scoring a volume, the mean over the runs."""
        return mean(entry.record.cost.seconds_per_volume for entry in self.entries)

    @property
    def date(self) -> datetime.date | None:
        """The day of the newest run, `None` if none is known."""
        return _newest(self.entries)

    @property
    def versions(self) -> list[str]:
        """The versions of this package and of eva."""
        found = {
            f"{name} {version}"
            for entry in self.entries
            for name, version in entry.record.environment.packages.items()
            if name in ("eva-coralbay", "kaiko-eva") and version
        }
        return sorted(found)

    @property
    def worst_overlap(self) -> str:
        """The strongest kind of overlap of its tasks; unknown is stronger than none."""
        order = ("test", "labeled-train", "unlabeled-train", "unknown", "none")
        kinds = {cell.overlap.kind for cell in self.cells.values()}
        return next(kind for kind in order if kind in kinds)


@dataclasses.dataclass(frozen=True)
class Track:
    """What is ranked together."""

    slug: str
    is_demo: bool
    task_kind: str
    """Either "segmentation" or "classification"."""

    protocol: str
    columns: list[Column]

    rows: list[Row]
    """From best to worst, then those that are not ranked."""

    ranked_by: list[Column]
    """The tasks that are ranked by, which every ranked model has; empty if none is ranked."""

    left_out: dict[str, int]
    """The cases by label of the task that do not count, as a ranked model has no value of them."""

    shared: dict[str, str]
    """The label of a task that does not count as it has scans in common with another that does,
    whose label is the value."""

    comparisons: Mapping[str, Sequence[statistics.Comparison]]
    """The comparisons of all pairs of models by the slug of the task."""

    agreement: Mapping[str, float | None]
    """The agreement of the ranking with others: see :class:`statistics.Ranking`."""

    @property
    def title(self) -> str:
        """The kind of the tasks and the protocol."""
        return f"{self.task_kind.capitalize()}, {self.protocol}"

    @property
    def n_ranked(self) -> int:
        """The number of models that are ranked."""
        return sum(row.place is not None for row in self.rows)

    def models(self, column: Column) -> dict[str, Cell]:
        """Returns the cells of a task by the label of the model."""
        return {row.label: row.cells[column.slug] for row in self.rows if column.slug in row.cells}

    def comparable(self, column: Column) -> dict[str, case_values.CaseValues]:
        """Returns the values of the cases that all models on a task have."""
        return restrict_to_common(values(self.rows, column))


@dataclasses.dataclass(frozen=True)
class Board:
    """All that the page shows."""

    tracks: list[Track]
    """Measured ones first; the frozen protocol of the segmentation first of them."""

    cards: Mapping[str, model_cards.ModelCard]
    reported: Sequence[reported.Reported]
    results_root: pathlib.Path

    @property
    def measured(self) -> list[Track]:
        """The tracks of measured records."""
        return [track for track in self.tracks if not track.is_demo]

    @property
    def demos(self) -> list[Track]:
        """The tracks of records that demonstrate the machinery."""
        return [track for track in self.tracks if track.is_demo]

    @property
    def models(self) -> list[str]:
        """The ids of all models that have a page."""
        ids = {row.model for track in self.tracks for row in track.rows}
        return sorted(ids | set(self.cards))

    def rows(self, model: str) -> list[tuple[Track, Row]]:
        """Returns the rows of a model in all tracks."""
        return [(track, row) for track in self.tracks for row in track.rows if row.model == model]


def model_slug(model: str) -> str:
    """Returns the name of a model's page, without the ending.

    Args:
        model: The id of the model.
    """
    return f"model-{slug(model.replace('/', '__'))}"


def describe_pretraining(card: model_cards.ModelCard) -> str:
    """Says in a few words what a model was pre-trained on.

    Args:
        card: The card of the model.
    """
    if card.pretraining is None:
        return "unknown"
    if not card.pretraining:
        return "none (random)"
    uses = sorted({part.use for part in card.pretraining})
    names = [part.name for part in card.pretraining]
    what = names[0] if len(names) == 1 else f"{len(names)} data sets"
    scans = [part.scans for part in card.pretraining]
    known = sum(value for value in scans if value is not None)
    at_least = "at least " if None in scans else ""
    count = f", {at_least}{known:,} scans".replace(",000 scans", " K scans") if known else ""
    return f"{what}{count} ({', '.join(uses)})"


def mean(values: Iterable[float | None]) -> float | None:
    """Returns the mean of the values that are defined, `None` if there is none.

    Args:
        values: The values.
    """
    known = [value for value in values if value is not None]
    return stdlib_statistics.fmean(known) if known else None


def values(rows: Sequence[Row], column: Column) -> dict[str, case_values.CaseValues]:
    """Returns the values by case of the models that have a task, by label."""
    cells = {row.label: row.cells[column.slug] for row in rows if column.slug in row.cells}
    return {label: cell.cases for label, cell in cells.items() if cell.cases}


def restrict_to_common(
    models: Mapping[str, case_values.CaseValues],
) -> dict[str, case_values.CaseValues]:
    """Restricts models to the cases that all of them have; none of them if these are too few."""
    try:
        return case_values.restrict_to_common_cases(models) if models else {}
    except case_values.TooFewCases:
        return {}


def _newest(entries: Iterable[results_folder.Entry]) -> datetime.date | None:
    """Returns the day of the newest run, `None` if none is known."""
    days = (entry.record.date for entry in entries)
    return max((day for day in days if day is not None), default=None)


def _first(values: Iterable[_T | None]) -> _T | None:
    return next((value for value in values if value is not None), None)


def slug(name: str) -> str:
    """Returns a name that can be a file's; two names never have the same."""
    if _SAFE_NAME.fullmatch(name) and len(name) <= 100:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)[:60].strip('-') or 'x'}-{digest}"
