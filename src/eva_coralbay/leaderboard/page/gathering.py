"""Gathers the records of a results folder into the tracks of the page, and ranks them."""

import collections
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from eva_coralbay import _hashes
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.leaderboard import cards as model_cards
from eva_coralbay.leaderboard import reported, statistics
from eva_coralbay.leaderboard.page import board
from eva_coralbay.results import case_values, record, scores
from eva_coralbay.results import folder as results_folder
from eva_coralbay.tasks import catalog

_ColumnKey = tuple[str, str, str, str, str]


_RowKey = tuple[str, str]


def gather(
    entries: Sequence[results_folder.Entry],
    cards: Mapping[str, model_cards.ModelCard],
    numbers: Sequence[reported.Reported],
    results_root: pathlib.Path,
) -> board.Board:
    """Gathers what the page shows.

    Args:
        entries: The records.
        cards: The cards by the id of the model.
        numbers: The numbers of others.
        results_root: The folder that the records lie in.

    Raises:
        EvaCoralbayError: If a case table cannot be read, or the seeds of a cell have different
            cases.
    """
    verified = results_folder.read_verified(results_root)
    groups: dict[tuple[bool, str, str], list[results_folder.Entry]] = collections.defaultdict(list)
    for entry in entries:
        groups[_track_key(entry.record)].append(entry)
    tracks = [
        _build_track(key, group, cards, verified)
        for key, group in sorted(groups.items(), key=lambda item: _track_order(item[0]))
    ]
    return board.Board(tracks, cards, numbers, results_root)


def _track_key(result: record.Record) -> tuple[bool, str, str]:
    return (
        result.kind == "demo",
        scores.task_kind(result.metrics),
        result.protocol or "unknown protocol",
    )


def _track_order(key: tuple[bool, str, str]) -> tuple[bool, bool, bool, str]:
    is_demo, kind, protocol = key
    return is_demo, kind != "segmentation", protocol != "frozen", protocol


def _build_track(
    key: tuple[bool, str, str],
    entries: list[results_folder.Entry],
    cards: Mapping[str, model_cards.ModelCard],
    verified: Mapping[pathlib.Path, str],
) -> board.Track:
    is_demo, kind, protocol = key
    slug = board.slug("-".join(("demo" if is_demo else "track", kind, protocol)))
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
    return _rank(
        board.Track(slug, is_demo, kind, protocol, list(columns.values()), rows, [], {}, {}, {}, {})
    )


def _column_key(result: record.Record) -> _ColumnKey:
    """Tells apart what is not compared: another task, version, split or choice of checkpoint."""
    split = result.split
    task = result.task
    return task.id, task.version, split.part, split.ids_sha256, result.checkpoint.selection


def _row_key(result: record.Record) -> _RowKey:
    return result.model.id or "unnamed", result.model.revision or ""


def _build_columns(
    track_slug: str, by_column: Mapping[_ColumnKey, list[results_folder.Entry]]
) -> dict[_ColumnKey, board.Column]:
    n_versions = collections.Counter(key[0] for key in by_column)
    columns: dict[_ColumnKey, board.Column] = {}
    slugs: list[str] = []
    for key, entries in sorted(by_column.items()):
        result = entries[0].record
        slug = board.slug(f"{track_slug}--{key[0]}-{key[1]}")
        slugs.append(slug)
        repeat = slugs.count(slug)
        label = key[0] if n_versions[key[0]] == 1 else f"{key[0]}@{key[1]}"
        columns[key] = board.Column(
            slug=slug if repeat == 1 else f"{slug}-{repeat}",
            label=label if repeat == 1 else f"{label} ({repeat})",
            task=key[0],
            version=key[1],
            part=result.split.part,
            split=result.split.name,
            selection=result.checkpoint.selection,
            metric=scores.headline_metric(result.metrics),
            data_license=result.dataset.license,
        )
    return columns


def _build_row(
    key: _RowKey,
    entries: list[results_folder.Entry],
    columns: Mapping[_ColumnKey, board.Column],
    cards: Mapping[str, model_cards.ModelCard],
    verified: Mapping[pathlib.Path, str],
) -> board.Row:
    model, revision = key
    card = cards.get(model)
    cells = {}
    for column_key, column in columns.items():
        of_column = [entry for entry in entries if _column_key(entry.record) == column_key]
        if of_column:
            cells[column.slug] = _build_cell(of_column, column, card)
    return board.Row(
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
    entries: list[results_folder.Entry], column: board.Column, card: model_cards.ModelCard | None
) -> board.Cell:
    cases = _case_values(entries, column.metric)
    by_class = [scores.by_class(entry.record.metrics, column.metric) for entry in entries]
    return board.Cell(
        entries=entries,
        value=board.mean(entry.record.metrics.get(column.metric) for entry in entries),
        cases=cases,
        score=_score(cases) if cases else None,
        overlap=model_cards.overlap(card, column.task),
        classes={
            name: board.mean(values.get(name) for values in by_class)
            for name in dict.fromkeys(name for values in by_class for name in values)
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
    if metric != scores.headline_metric(entries[0].record.metrics) or not is_defined:
        return None
    try:
        return case_values.gather(entries, metric)
    except case_values.TooFewCases:
        return None
    except ValueError as error:
        raise EvaCoralbayError(f"{entries[0].path.parent}: {error}") from error


def _change(entries: list[results_folder.Entry], metric: str) -> dict[str, float | None]:
    """Returns the change of a metric by perturbation."""
    changes: dict[str, list[float | None]] = collections.defaultdict(list)
    for entry in entries:
        base = entry.record.metrics.get(metric)
        for name, metrics in (entry.record.robustness or {}).items():
            value = metrics.get(metric)
            changes[name].append(None if base is None or value is None else value - base)
    return {name: board.mean(values) for name, values in sorted(changes.items())}


def _rank(track: board.Track) -> board.Track:
    """Ranks the models that have all tasks that are ranked by, and orders the rows."""
    values = {column.slug: board.values(track.rows, column) for column in track.columns}
    shared = _find_shared({column: len(values[column.slug]) for column in track.columns})
    slugs = _choose_tasks(
        {
            column.slug: set(values[column.slug])
            for column in track.columns
            if column.label not in shared
        }
    )
    ranked_by = [column for column in track.columns if column.slug in slugs]
    complete = set.intersection(*(set(values[slug]) for slug in slugs)) if slugs else set()
    tasks, left_out = {}, {}
    for column in ranked_by:
        models = {label: values[column.slug][label] for label in sorted(complete)}
        tasks[column.slug] = common = board.restrict_to_common(models)
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
        shared=shared if places else {},
        comparisons={
            column.slug: statistics.compare(track.comparable(column)) for column in track.columns
        },
        agreement=ranking.agreement,
    )


def _find_shared(columns: Mapping[board.Column, int]) -> dict[str, str]:
    """Finds the tasks that have scans in common with one that counts.

    Their cases are not independent: counted twice, equal models would be told apart too often. Of
    two such tasks the one that more models have counts, then that of the newer version.

    Args:
        columns: The number of models by task.

    Returns:
        By the label of a task that does not count that of the one that counts in its place.
    """
    kept: list[board.Column] = []
    shared = {}
    newest_first = sorted(columns, key=lambda column: column.version, reverse=True)
    for column in sorted(newest_first, key=lambda column: -columns[column]):
        other = next((each for each in kept if _have_common_scans(each, column)), None)
        if other is None:
            kept.append(column)
        else:
            shared[column.label] = other.label
    return shared


def _have_common_scans(first: board.Column, second: board.Column) -> bool:
    """Whether two tasks are of the same scans, as far as the catalog knows."""
    known = catalog.TASKS.get(first.task)
    return first.task == second.task or (
        known is not None and second.task in known.shares_scans_with
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


def _row_order(row: board.Row) -> tuple[float, float, str]:
    if row.place:
        return row.place.mean_rank.value, -row.place.mean.value, row.label
    average = board.mean(cell.value for cell in row.cells.values())
    return float("inf"), -(average or 0.0), row.label


def _is_verified(entry: results_folder.Entry, verified: Mapping[pathlib.Path, str]) -> bool:
    expected = verified.get(entry.path)
    return expected == _hashes.hash_file(entry.path) if expected else False
