"""Builds the page: static files in a folder, the same at every build of the same results."""

import collections
import dataclasses
import os
import pathlib
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
import markupsafe

from eva_coralbay import _atomic_files, _messages
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.leaderboard import cards as model_cards
from eva_coralbay.leaderboard import reported, statistics
from eva_coralbay.leaderboard.page import (
    board,
    export,
    figures,
    gathering,
    label_curves,
    standings,
)
from eva_coralbay.results import case_values, curve_metrics, run_config, scores
from eva_coralbay.results import folder as results_folder
from eva_coralbay.tasks import protocols

_ASSETS = ("style.css", "script.js")
"""The files that are copied as they are."""

_MARKER = "leaderboard.json"
"""The file by which a page of ours is known."""

_WORST_CASES = 10
"""The number of worst cases that a task shows."""

_OVERLAPS = {
    "none": "no overlap",
    "unlabeled-train": "train seen, unlabeled",
    "labeled-train": "train seen, labeled",
    "test": "scored cases seen",
    "unknown": "overlap unknown",
}
"""What a badge says of each kind of overlap."""


@dataclasses.dataclass(frozen=True)
class _WorstCase:
    """A case with the values of all models."""

    case: str
    mean: float
    values: list[float]


@dataclasses.dataclass(frozen=True)
class _Published:
    """A number of others, and what else is published of the same model and data."""

    number: reported.Reported

    others: list[float]
    """Other values of the same metric of this model on these data, in other sources."""


@dataclasses.dataclass(frozen=True)
class _ReportedGroup:
    """Numbers of one publication."""

    title: str
    url: str
    where: str
    metric: str

    columns: list[tuple[str, str]]
    """The data sets with their cases, in words."""

    rows: list[tuple[str, str, list[list[_Published]]]]
    """Model, protocol and for each column the numbers that are published of it."""


def build(
    results_root: str | os.PathLike[str],
    models_root: str | os.PathLike[str],
    reported_root: str | os.PathLike[str],
    out: str | os.PathLike[str],
) -> pathlib.Path:
    """Builds the page. It is there as a whole or not at all; an older one is replaced.

    Args:
        results_root: The results folder.
        models_root: The folder of the model cards.
        reported_root: The folder of the numbers of others.
        out: The folder to write.

    Returns:
        The path of the first page.

    Raises:
        EvaCoralbayError: If something cannot be read, or `out` is a folder with other files.
    """
    root = pathlib.Path(results_root)
    content = gathering.gather(
        results_folder.find(root), model_cards.find(models_root), reported.find(reported_root), root
    )
    target = pathlib.Path(out).absolute()
    _check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _atomic_files.remove_leftovers(target.parent)
    with _atomic_files.temporary_folder(target) as folder:
        _write(content, folder / "site")
        _put(folder / "site", target, folder / "old")
    return target / "index.html"


def _put(site: pathlib.Path, target: pathlib.Path, old: pathlib.Path) -> None:
    """Puts a new page in the place of an older one, which stays there if that fails.

    Readers find one of both at every moment, if the file system can exchange two folders.
    """
    if not target.exists():
        site.rename(target)
        return
    if _atomic_files.exchange(site, target):
        return
    target.rename(old)
    try:
        site.rename(target)
    except OSError:
        old.rename(target)
        raise


def _check_target(target: pathlib.Path) -> None:
    """Checks that nothing but a page of ours would be replaced."""
    if target.exists() and not target.is_dir():
        raise EvaCoralbayError(f"{target} is a file: name a folder for the page.")
    if target.is_dir() and any(target.iterdir()) and not (target / _MARKER).is_file():
        raise EvaCoralbayError(
            f"{target} has files that this command did not write: name a new or an empty folder."
        )


def _write(content: board.Board, site: pathlib.Path) -> None:
    """Writes all files into a new folder."""
    site.mkdir()
    for name, text in _pages(content):
        (site / f"{name}.html").write_text(text, encoding="utf-8")
    (site / _MARKER).write_text(export.as_json(content), encoding="utf-8")
    (site / "leaderboard.csv").write_text(export.as_csv(content), encoding="utf-8")
    package = resources.files("eva_coralbay.leaderboard.page")
    for name in _ASSETS:
        (site / name).write_bytes((package / name).read_bytes())
    for track in content.tracks:
        for row in track.rows:
            for entry in row.entries:
                _copy_run(entry, site / _record_path(content, entry))


def _pages(content: board.Board) -> Iterator[tuple[str, str]]:
    """Yields the name and the text of every page."""
    environment = _environment(content)

    def render(template: str, **variables: Any) -> str:
        return environment.get_template(f"{template}.html.j2").render(board=content, **variables)

    shown = content.measured or content.demos
    # a track that ranks nobody yet is no first page
    inline = ([track for track in shown if track.n_ranked] or shown)[:1]
    groups = _group_reported(content.reported)
    yield "index", render("index", inline=inline[0] if inline else None, reported_groups=groups)
    yield "submit", render("submit")
    yield "claims", render("claims")
    for track in content.tracks:
        yield track.slug, render("track", track=track)
        for column in track.columns:
            yield column.slug, render("task", track=track, column=column, **_task(track, column))
    for model in content.models:
        card = content.cards.get(model)
        variables = {"model": model, "card": card, "rows": content.rows(model)}
        yield board.model_slug(model), render("model", **variables)


def _group_reported(numbers: Sequence[reported.Reported]) -> list[_ReportedGroup]:
    """Groups numbers by where they are published."""
    groups: dict[tuple[str, str, str, str], list[reported.Reported]] = collections.defaultdict(list)
    for number in numbers:
        source = number.source
        groups[source.title, source.url, source.where, number.metric].append(number)
    values: dict[tuple[str, str, str], set[float]] = collections.defaultdict(set)
    for number in numbers:
        values[number.model, number.task, number.metric].add(number.value)
    return [_group_of(key, members, values) for key, members in sorted(groups.items())]


def _group_of(
    key: tuple[str, str, str, str],
    numbers: list[reported.Reported],
    values: Mapping[tuple[str, str, str], set[float]],
) -> _ReportedGroup:
    cells: dict[Any, list[_Published]] = collections.defaultdict(list)
    for number in numbers:
        known = values[number.model, number.task, number.metric] - {number.value}
        place = _reported_row(number), _reported_column(number)
        cells[place].append(_Published(number, sorted(known)))
    columns = list(dict.fromkeys(_reported_column(number) for number in numbers))
    rows = list(dict.fromkeys(_reported_row(number) for number in numbers))
    table = [(*row, [cells[row, column] for column in columns]) for row in rows]
    return _ReportedGroup(*key, columns, table)


def _reported_column(number: reported.Reported) -> tuple[str, str]:
    n_cases = f", n = {number.n}" if number.n else ""
    return number.task, f"{number.split}{n_cases}"


def _reported_row(number: reported.Reported) -> tuple[str, str]:
    return number.model, ". ".join(filter(None, (number.protocol, number.note)))


def _task(track: board.Track, column: board.Column) -> dict[str, Any]:
    """Returns what the page of a task shows."""
    cells = track.models(column)
    comparable = track.comparable(column)
    compared = track.comparisons[column.slug]
    is_by_case = track.task_kind == "segmentation"
    return {
        "cells": cells,
        "rows": _sort_by_score(track, column),
        "others": _other_metrics(cells, column.metric),
        "classes": list(dict.fromkeys(name for cell in cells.values() for name in cell.classes)),
        "comparable": list(comparable),
        "n_common": len(next(iter(comparable.values())).cases) if comparable else 0,
        "comparisons": _by_pair(compared),
        "reason": _common_reason(compared),
        "strip_plot": _svg(figures.strip_plot(cells, column.metric) if is_by_case else ""),
        "worst": _worst_cases(comparable) if is_by_case else [],
        "perturbations": sorted({name for cell in cells.values() for name in cell.robustness}),
    }


def _sort_by_score(track: board.Track, column: board.Column) -> list[board.Row]:
    """Returns the rows that have a task, from the best score on it to the worst."""
    scored = [(row, row.cells[column.slug].value) for row in track.rows if column.slug in row.cells]
    return [row for row, value in sorted(scored, key=lambda item: -_or_lowest(item[1]))]


def _or_lowest(value: float | None) -> float:
    return float("-inf") if value is None else value


def _other_metrics(
    cells: Mapping[str, board.Cell], headline: str
) -> dict[str, dict[str, float | None]]:
    """Returns the metrics beside the one that ranks, by their name and the label of the model."""
    recorded = {
        label: [entry.record.metrics for entry in cell.entries] for label, cell in cells.items()
    }
    every = {name for runs in recorded.values() for run in runs for name in run}
    return {
        name: {label: board.mean(run.get(name) for run in runs) for label, runs in recorded.items()}
        for name in scores.list_overall(every)
        if name != headline and not curve_metrics.has_point(name)
    }


def _curve_plot(track: board.Track, column: board.Column) -> markupsafe.Markup:
    """Draws the label-efficiency curves of a task."""
    curves = label_curves.find(track, column)
    return _svg(figures.curve_plot(curves, column.label, label_curves.unit(column.metric)))


def _svg(content: str) -> markupsafe.Markup:
    """Marks a figure as one whose texts are escaped."""
    return markupsafe.Markup(content)  # nosec B704  # ours, not a user's


def _by_pair(
    compared: Sequence[statistics.Comparison],
) -> dict[tuple[str, str], tuple[float, statistics.Comparison]]:
    """Returns the difference of the first to the second model of every ordered pair."""
    pairs = {}
    for comparison in compared:
        first, second = comparison.model_a, comparison.model_b
        pairs[first, second] = (comparison.difference.value, comparison)
        pairs[second, first] = (-comparison.difference.value, comparison)
    return pairs


def _common_reason(compared: Sequence[statistics.Comparison]) -> str | None:
    """Says why no two models are separable, if none are."""
    reasons = [comparison.reason for comparison in compared]
    if not reasons or None in reasons:
        return None
    common, count = collections.Counter(reasons).most_common(1)[0]
    return common if count == len(reasons) else "no pair is separable after correction"


def _worst_cases(models: dict[str, case_values.CaseValues]) -> list[_WorstCase]:
    """Returns the cases with the lowest mean over the models."""
    if not models:
        return []
    by_model = [values.by_case.tolist() for values in models.values()]
    cases = next(iter(models.values())).cases
    scored = [
        _WorstCase(case, sum(values) / len(values), list(values))
        for case, *values in zip(cases, *by_model, strict=True)
    ]
    return sorted(scored, key=lambda case: (case.mean, case.case))[:_WORST_CASES]


def _environment(content: board.Board) -> jinja2.Environment:
    """Returns the templates, with what they use."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("eva_coralbay.leaderboard", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "decimals": _decimals,
        "parameters": _parameters,
        "shade": _shade,
        "signed": _signed,
        "model_slug": board.model_slug,
        "breakable": _breakable,
    }
    environment.globals |= {
        "overlaps": _OVERLAPS,
        "overlap_of": model_cards.overlap,
        "status": export.status,
        "describe_pretraining": board.describe_pretraining,
        "significance": statistics.SIGNIFICANCE,
        "rank_plot": lambda rows: _svg(figures.rank_plot(rows)),
        "size_plot": lambda track: _svg(figures.size_plot(track)),
        # drawn once: each is read from the tables of all runs, and shown on several pages
        "curve_plots": {
            column.slug: _curve_plot(track, column)
            for track in content.tracks
            for column in track.columns
        },
        "cost_plot": lambda track: _svg(figures.cost_plot(track)),
        "standings": lambda track, column: standings.find(
            track.models(column), track.comparisons[column.slug]
        ),
        "record_path": lambda entry: _record_path(content, entry).as_posix(),
        "config_path": lambda entry: _config_path(content, entry),
        "command": lambda track, entry: _command(content, track, entry),
    }
    return environment


def _record_path(content: board.Board, entry: results_folder.Entry) -> pathlib.PurePosixPath:
    """Returns where the page has the record, relative to the page."""
    relative = entry.path.relative_to(content.results_root)
    return pathlib.PurePosixPath("records", *relative.parts)


def _config_path(content: board.Board, entry: results_folder.Entry) -> str | None:
    """Returns where the page has the configuration of a run, `None` if it is not there."""
    if not _is_own_file(entry.config_path):
        return None
    return _record_path(content, entry).with_name(entry.config_path.name).as_posix()


def _command(content: board.Board, track: board.Track, entry: results_folder.Entry) -> str:
    """Returns the command that repeats a run, or the scoring of another program's label maps."""
    config = _config_path(content, entry)
    if config:
        # only a classification can have its embeddings computed first
        is_fit = track.task_kind == "segmentation"
        command = "fit" if is_fit else run_config.command(run_config.read(entry.config_path))
        return shlex.join(["eva", command, "--config", config])
    result = entry.record
    if protocols.is_external(track.protocol):
        words = ["eva-coralbay", "score", "PREDICTIONS", result.task.id, "--root", "DATA"]
        words += ["--model", result.model.id or "", "--seed", str(result.seed)]
        return shlex.join([*words, "--out", "SCORED"])
    variables = {
        "MODEL_NAME": result.model.id or "",
        "PROTOCOL": track.protocol,
        "SEED": str(result.seed),
        "N_RUNS": "1",
    }
    assignments = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    path = f"configs/vision/radiology/online/{track.task_kind}/{result.task.id}.yaml"
    return " ".join([*assignments, shlex.join(["eva", "fit", "--config", path])])


def _copy_run(entry: results_folder.Entry, target: pathlib.PurePath) -> None:
    """Copies a record with its case table and its configuration."""
    record_path = pathlib.Path(target)
    record_path.parent.mkdir(parents=True, exist_ok=True)
    for path in (entry.path, entry.cases_path, entry.config_path):
        if _is_own_file(path):
            shutil.copyfile(path, record_path.with_name(path.name))


def _is_own_file(path: pathlib.Path) -> bool:
    """Returns whether there is a file, and no link that could lead out of the results folder."""
    return path.is_file() and not path.is_symlink()


def _decimals(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _breakable(name: str) -> markupsafe.Markup:
    """Lets a name break after its separators."""
    return markupsafe.Markup("<wbr>").join(re.split("(?<=[/_])", name))


def _parameters(value: int | None) -> str:
    return "unknown" if value is None else _messages.parameters(value)


def _shade(value: float | None) -> str:
    """Returns the class of a cell of a heat map, for a value from 0 to 1."""
    return "none" if value is None else f"h{min(9, max(0, int(value * 10)))}"
