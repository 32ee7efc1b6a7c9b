"""What the page shows: tracks of tasks and models, with their scores and statistics.

A track is what is ranked together: the tasks of one kind, evaluated by one protocol. Records of
kind `demo` have tracks of their own.
"""

import collections
import dataclasses
import hashlib
import pathlib
import re
import statistics as stdlib_statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from eva_coralbay.leaderboard import cards as model_cards
from eva_coralbay.leaderboard import reported, statistics
from eva_coralbay.results import case_values, record
from eva_coralbay.results import folder as results_folder

_HEADLINES = ("dice", "balanced_accuracy")
"""The metrics that are ranked by: the first that a record has."""

_SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
"""What can be a file name as it is."""

_T = TypeVar("_T")
_ColumnKey = tuple[str, str, str, str, str]
_RowKey = tuple[str, str]


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
        return _restrict_to_common(_values(self.rows, column))


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


def gather(
    entries: Sequence[results_folder.Entry],
    cards: Mapping[str, model_cards.ModelCard],
    numbers: Sequence[reported.Reported],
    results_root: pathlib.Path,
) -> Board:
    """Gathers what the page shows.

    Args:
        entries: The records.
        cards: The cards by the id of the model.
        numbers: The numbers of others.
        results_root: The folder that the records lie in.

    Raises:
        ValueError: If a case table cannot be read, or the seeds of a cell have different cases.
    """
    verified = results_folder.read_verified(results_root)
    groups: dict[tuple[bool, str, str], list[results_folder.Entry]] = collections.defaultdict(list)
    for entry in entries:
        groups[_track_key(entry.record)].append(entry)
    tracks = [
        _build_track(key, group, cards, verified)
        for key, group in sorted(groups.items(), key=lambda item: _track_order(item[0]))
    ]
    return Board(tracks, cards, numbers, results_root)


def model_slug(model: str) -> str:
    """Returns the name of a model's page, without the ending.

    Args:
        model: The id of the model.
    """
    return f"model-{_slug(model.replace('/', '__'))}"


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


def _track_key(result: record.Record) -> tuple[bool, str, str]:
    kind = "classification" if "balanced_accuracy" in result.metrics else "segmentation"
    return result.kind == "demo", kind, result.protocol or "unknown protocol"


def _track_order(key: tuple[bool, str, str]) -> tuple[bool, bool, bool, str]:
    is_demo, kind, protocol = key
    return is_demo, kind != "segmentation", protocol != "frozen", protocol


def _build_track(
    key: tuple[bool, str, str],
    entries: list[results_folder.Entry],
    cards: Mapping[str, model_cards.ModelCard],
    verified: Mapping[pathlib.Path, str],
) -> Track:
    is_demo, kind, protocol = key
    slug = _slug("-".join(("demo" if is_demo else "track", kind, protocol)))
    by_column: dict[_ColumnKey, list[results_folder.Entry]] = collections.defaultdict(list)
    by_row: dict[_RowKey, list[results_folder.Entry]] = collections.defaultdict(list)
    for entry in entries:
        by_column[_column_key(entry.record)].append(entry)
        by_row[_row_key(entry.record)].append(entry)

    columns = _build_columns(slug, by_column)
    rows = [
        _build_row(row_key, group, columns, cards, verified)
        for row_key, group in sorted(by_row.items())
    ]
    return _rank(Track(slug, is_demo, kind, protocol, list(columns.values()), rows, [], {}, {}))


def _column_key(result: record.Record) -> _ColumnKey:
    """Tells apart what is not compared: another task, version, split or choice of checkpoint."""
    split = result.split
    task = result.task
    return task.id, task.version, split.part, split.ids_sha256, result.checkpoint.selection


def _row_key(result: record.Record) -> _RowKey:
    return result.model.id or "unnamed", result.model.revision or ""


def _build_columns(
    track_slug: str, by_column: Mapping[_ColumnKey, list[results_folder.Entry]]
) -> dict[_ColumnKey, Column]:
    n_versions = collections.Counter(key[0] for key in by_column)
    columns: dict[_ColumnKey, Column] = {}
    slugs: list[str] = []
    for key, entries in sorted(by_column.items()):
        result = entries[0].record
        slug = _slug(f"{track_slug}--{key[0]}-{key[1]}")
        slugs.append(slug)
        repeat = slugs.count(slug)
        label = key[0] if n_versions[key[0]] == 1 else f"{key[0]}@{key[1]}"
        columns[key] = Column(
            slug=slug if repeat == 1 else f"{slug}-{repeat}",
            label=label if repeat == 1 else f"{label} ({repeat})",
            task=key[0],
            version=key[1],
            part=result.split.part,
            split=result.split.name,
            selection=result.checkpoint.selection,
            metric=_headline(result),
            data_license=result.dataset.license,
        )
    return columns


def _build_row(
    key: _RowKey,
    entries: list[results_folder.Entry],
    columns: Mapping[_ColumnKey, Column],
    cards: Mapping[str, model_cards.ModelCard],
    verified: Mapping[pathlib.Path, str],
) -> Row:
    model, revision = key
    card = cards.get(model)
    cells = {}
    for column_key, column in columns.items():
        of_column = [entry for entry in entries if _column_key(entry.record) == column_key]
        if of_column:
            cells[column.slug] = _build_cell(of_column, column, card)
    return Row(
        label=f"{model} ({revision})" if revision else model,
        model=model,
        revision=revision or None,
        card=card,
        cells=cells,
        place=None,
        missing=[],
        n_verified=sum(_is_verified(entry, verified) for entry in entries),
    )


def _build_cell(
    entries: list[results_folder.Entry], column: Column, card: model_cards.ModelCard | None
) -> Cell:
    cases = _case_values(entries, column.metric)
    names = dict.fromkeys(name for entry in entries for name in entry.record.metrics)
    prefix = f"{column.metric}_"
    return Cell(
        entries=entries,
        value=mean(entry.record.metrics.get(column.metric) for entry in entries),
        cases=cases,
        score=_score(cases) if cases else None,
        overlap=model_cards.overlap(card, column.task),
        classes={
            name.removeprefix(prefix): mean(entry.record.metrics.get(name) for entry in entries)
            for name in names
            if name.startswith(prefix)
        },
        robustness=_change(entries, column.metric),
    )


def _score(cases: case_values.CaseValues) -> statistics.Mean:
    """Returns the mean over the cases of a metric in [0, 1]."""
    score = statistics.mean(cases)
    return dataclasses.replace(score, mean=_clip(score.mean))


def _clip(estimate: statistics.Estimate) -> statistics.Estimate:
    """Returns an estimate of what lies in [0, 1] with its interval within."""
    return statistics.Estimate(estimate.value, max(0.0, estimate.low), min(1.0, estimate.high))


def _case_values(entries: list[results_folder.Entry], metric: str) -> case_values.CaseValues | None:
    """Returns the values by case, `None` if there are too few or the metric has none."""
    is_defined = all(entry.record.metrics.get(metric) is not None for entry in entries)
    if metric not in _HEADLINES or not is_defined:
        return None
    try:
        return case_values.gather(entries, metric)
    except case_values.TooFewCases:
        return None
    except ValueError as error:
        raise ValueError(f"{entries[0].path.parent}: {error}") from error


def _change(entries: list[results_folder.Entry], metric: str) -> dict[str, float | None]:
    """Returns the change of a metric by perturbation."""
    changes: dict[str, list[float | None]] = collections.defaultdict(list)
    for entry in entries:
        base = entry.record.metrics.get(metric)
        for name, metrics in (entry.record.robustness or {}).items():
            value = metrics.get(metric)
            changes[name].append(None if base is None or value is None else value - base)
    return {name: mean(values) for name, values in sorted(changes.items())}


def _rank(track: Track) -> Track:
    """Ranks the models that have all tasks that are ranked by, and orders the rows."""
    values = {column.slug: _values(track.rows, column) for column in track.columns}
    slugs = _choose_tasks({slug: set(models) for slug, models in values.items()})
    ranked_by = [column for column in track.columns if column.slug in slugs]
    complete = set.intersection(*(set(values[slug]) for slug in slugs)) if slugs else set()
    tasks, left_out = {}, {}
    for column in ranked_by:
        models = {label: values[column.slug][label] for label in sorted(complete)}
        tasks[column.slug] = common = _restrict_to_common(models)
        n_common = len(next(iter(common.values())).cases) if common else 0
        left_out[column.label] = len({case for each in models.values() for case in each.cases})
        left_out[column.label] -= n_common

    ranking = statistics.rank(tasks)
    places = {
        place.model: dataclasses.replace(
            place, mean=_clip(place.mean), win_rate=_clip(place.win_rate)
        )
        for place in ranking.models
    }
    rows = [
        dataclasses.replace(
            row,
            place=places.get(row.label),
            missing=[
                column.label
                for column in ranked_by or track.columns
                if row.label not in values[column.slug]
            ],
        )
        for row in track.rows
    ]
    return dataclasses.replace(
        track,
        rows=sorted(rows, key=_row_order),
        ranked_by=ranked_by if places else [],
        left_out={label: n_cases for label, n_cases in left_out.items() if n_cases and places},
        agreement=ranking.agreement,
    )


def _choose_tasks(models: Mapping[str, set[str]]) -> list[str]:
    """Returns the tasks to rank by: those of the largest table without a missing cell.

    Tasks are added one by one, those of the most models first; of the tables of the models that
    have all of them, the one with the most cells counts. So a result on one more task ranks nobody
    lower, and takes nobody out of the ranking.

    Args:
        models: The labels of the models by task.

    Returns:
        The tasks; none if no two models share one.
    """
    ordered = sorted(models, key=lambda task: -len(models[task]))
    chosen, n_cells = [], 0
    for n_tasks in range(1, len(ordered) + 1):
        complete = set.intersection(*(models[task] for task in ordered[:n_tasks]))
        if len(complete) > 1 and n_tasks * len(complete) >= n_cells:
            chosen, n_cells = ordered[:n_tasks], n_tasks * len(complete)
    return chosen


def _values(rows: Sequence[Row], column: Column) -> dict[str, case_values.CaseValues]:
    """Returns the values by case of the models that have a task, by label."""
    cells = {row.label: row.cells[column.slug] for row in rows if column.slug in row.cells}
    return {label: cell.cases for label, cell in cells.items() if cell.cases}


def _row_order(row: Row) -> tuple[float, float, str]:
    if row.place:
        return row.place.mean_rank.value, -row.place.mean.value, row.label
    average = mean(cell.value for cell in row.cells.values())
    return float("inf"), -(average or 0.0), row.label


def _restrict_to_common(
    models: Mapping[str, case_values.CaseValues],
) -> dict[str, case_values.CaseValues]:
    """Restricts models to the cases that all of them have; none of them if these are too few."""
    try:
        return case_values.restrict_to_common_cases(models) if models else {}
    except case_values.TooFewCases:
        return {}


def _headline(result: record.Record) -> str:
    return next((name for name in _HEADLINES if name in result.metrics), min(result.metrics))


def _is_verified(entry: results_folder.Entry, verified: Mapping[pathlib.Path, str]) -> bool:
    expected = verified.get(entry.path)
    return expected == hashlib.sha256(entry.path.read_bytes()).hexdigest() if expected else False


def _first(values: Iterable[_T | None]) -> _T | None:
    return next((value for value in values if value is not None), None)


def _slug(name: str) -> str:
    """Returns a name that can be a file's; two names never have the same."""
    if _SAFE_NAME.fullmatch(name) and len(name) <= 100:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)[:60].strip('-') or 'x'}-{digest}"
