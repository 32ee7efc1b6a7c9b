"""Gathers what runs have left into the results folder, and writes the text of a pull request."""

import dataclasses
import hashlib
import os
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from eva_coralbay import _atomic_files, _messages
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.leaderboard import cards as model_cards
from eva_coralbay.leaderboard import private_text, validation
from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import record, run_config
from eva_coralbay.tasks import protocols

_METRICS = ("dice", "nsd", "hd95", "balanced_accuracy", "auroc")
"""The metrics that the text of a pull request shows, in this order."""

_CARD = """\
# What is known of this model. Replace null by what is published, with its source; what is not known
# stays null. `overlap` says, by task, what of its cases the model was pre-trained on.
id: {id}
name: {id}
revision: null              # of the published weights
weights: null               # {{url: https://..., sha256: ... or null}}
license: null               # of the weights
parameters: null
pretraining: null           # [] for random weights, or a list of
                            # {{name: ..., scans: 1000, use: unlabeled, source: https://...}}
overlap: {{}}                 # btcv: {{kind: none, source: https://...}}
sources: []
"""
"""The card of a model of which nothing is known."""


@dataclasses.dataclass(frozen=True)
class Submission:
    """What was written."""

    entries: list[results_folder.Entry]
    """The results, sorted by path."""

    templates: list[pathlib.Path]
    """Model cards to fill in, of models that had none."""

    warnings: list[validation.Fault]
    """What the validation warns of."""

    pull_request: str
    """The text of the pull request, in Markdown."""


@dataclasses.dataclass(frozen=True)
class _Result:
    """A record with the contents of the files beside it, as they are submitted."""

    record: record.Record
    cases: bytes

    config: bytes | None
    """The configuration, None of what another program has predicted."""

    def write(self, root: pathlib.Path) -> results_folder.Entry:
        """Writes the files, the record as the last; returns where it is."""
        entry = results_folder.Entry(root / results_folder.relative_path(self.record), self.record)
        _atomic_files.write_atomically(entry.cases_path, self.cases)
        if self.config is not None:
            _atomic_files.write_atomically(entry.config_path, self.config)
        self.record.write(entry.path)
        return entry


def submit(
    folders: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model_id: str | None = None,
    is_demo: bool = False,
) -> Submission:
    """Gathers the results of runs into the results folder.

    Of each run it takes the record that its protocol ranks, with the case table and the
    configuration, which is made one of this run alone, without paths of this machine. Revision,
    license and pre-training data are those of the model's card in `models/` beside the results
    folder; if there is none, a card to fill in is written there. If anything is wrong, nothing is
    written.

    Args:
        folders: Folders that runs wrote to.
        out: The results folder.
        model_id: The name of the model, `<organization>/<model>`; that of the runs if None.
        is_demo: Whether the results are to show the machinery, not the model.

    Returns:
        What was written.

    Raises:
        EvaCoralbayError: If there is no record, a cell appears twice or with other values in the
            results folder, a name is missing, or the validation finds a fault.
    """
    root = pathlib.Path(out)
    cards_folder = root.absolute().parent / "models"
    entries = find_ranked(folders)
    if not entries:
        raise EvaCoralbayError(
            f"There is no record below {', '.join(map(str, folders))}. Name the folders that a "
            "finished `eva fit` wrote to (OUTPUT_ROOT)."
        )
    names = {entry.record.model.id for entry in entries}
    if model_id is not None and len(names) > 1:
        known = ", ".join(sorted(map(str, names)))
        raise EvaCoralbayError(f"The runs are of several models ({known}): submit each by itself.")
    cards = model_cards.find(cards_folder)
    adapted = [_adapt(entry, cards, model_id=model_id, is_demo=is_demo) for entry in entries]
    _check_distinct(entries, adapted)
    warnings = _validate(adapted, cards)
    _check_new(adapted, root)

    written = sorted((result.write(root) for result in adapted), key=lambda entry: entry.path)
    models = list(dict.fromkeys(str(entry.record.model.id) for entry in written))
    templates = [_write_template(cards_folder, name) for name in models if name not in cards]
    return Submission(written, templates, warnings, draw_pull_request(written, cards))


def find_ranked(folders: Sequence[str | os.PathLike[str]]) -> list[results_folder.Entry]:
    """Finds the record of each run that its protocol ranks.

    Of a run that was repeated because it had been interrupted, only the repetition counts.

    Args:
        folders: Folders that runs wrote to.

    Returns:
        The records that the protocols rank, sorted by path.

    Raises:
        EvaCoralbayError: If a record cannot be read, naming the file.
    """
    paths = {path for folder in folders for path in pathlib.Path(folder).rglob("record_*.json")}
    ranked = []
    for folder in sorted({path.parent for path in paths}):
        found = [
            results_folder.Entry(path, record.Record.read(path))
            for path in folder.glob("record_*.json")
        ]
        ranked += _choose(found)
    finished = {_cell(entry.record) for entry in ranked if is_finished(entry)}
    return [entry for entry in ranked if is_finished(entry) or _cell(entry.record) not in finished]


def is_finished(entry: results_folder.Entry) -> bool:
    """Whether the session of a run has come to its end, when eva writes its summary."""
    return (entry.path.parent.parent / "results.json").is_file()


def _choose(entries: Sequence[results_folder.Entry]) -> list[results_folder.Entry]:
    """Returns the record of a run that its protocol ranks: of the test cases if there are any."""
    ranked = {}
    for entry in entries:
        protocol = protocols.PROTOCOLS.get(str(entry.record.protocol))
        if protocol is not None and entry.record.checkpoint.selection == protocol.checkpoint:
            ranked[entry.record.split.part] = (entry, protocol)
    if not ranked:
        return []
    # a checkpoint that the validation cases select is reported on them
    is_validated = "val" in ranked and ranked["val"][1].checkpoint == "best"
    return [ranked["val" if is_validated or "test" not in ranked else "test"][0]]


def _cell(result: record.Record) -> tuple[Any, ...]:
    """Returns what identifies a result: no two results may share it."""
    model, task = result.model.id, result.task
    return model, task.id, task.version, result.protocol, result.seed


def _adapt(
    entry: results_folder.Entry,
    cards: Mapping[str, model_cards.ModelCard],
    *,
    model_id: str | None,
    is_demo: bool,
) -> _Result:
    """Makes the result of a run one of the results folder."""
    result = entry.record
    config = {} if protocols.is_external(result.protocol) else _read_config(entry)
    name = model_id or _name(entry, config)
    stem = f"seed_{result.seed}"
    changes: dict[str, Any] = {
        "kind": "demo" if is_demo else result.kind,
        "model": result.model.model_copy(update={"id": name, **_facts(cards.get(name))}),
        "cases": result.cases.model_copy(update={"file": f"{stem}.cases.csv"}),
    }
    content = None
    if config:
        config["trainer"]["init_args"] |= {"model": name, "n_runs": 1}
        config["model"]["init_args"]["seed"] = result.seed
        config = private_text.clean(config)
        content = yaml.safe_dump(config, sort_keys=False).encode()
        changes |= {
            "task": result.task.model_copy(update={"config_sha256": run_config.sha256(config)}),
            "config": record.ConfigFile(
                file=f"{stem}.config.yaml", sha256=hashlib.sha256(content).hexdigest()
            ),
        }
    adapted = result.model_copy(update=changes)
    cases = _read_bytes(_find_beside(entry, result.cases.file))
    return _Result(record.Record.model_validate(adapted.model_dump()), cases, content)


def _read_config(entry: results_folder.Entry) -> dict[str, Any]:
    """Reads the configuration of a run."""
    stated = entry.record.config
    if stated is None:
        raise EvaCoralbayError(
            f"{entry.path} states no configuration, without which nobody can repeat the run: "
            "start it by `eva fit --config ...` with this version of eva-coralbay."
        )
    path = _find_beside(entry, stated.file)
    if hashlib.sha256(_read_bytes(path)).hexdigest() != stated.sha256:
        raise EvaCoralbayError(
            f"{path} was changed after the run: its hash is not the one in the record. Restore it."
        )
    return run_config.read(path)


def _find_beside(entry: results_folder.Entry, name: str) -> pathlib.Path:
    """Returns the path of a file beside a record, by the name that the record states."""
    if not name.strip(".") or pathlib.PurePath(name).name != name or not name.isprintable():
        raise EvaCoralbayError(
            f"{entry.path} states a file that is not beside it, {name!a:.100}: take the record as "
            "the run has written it."
        )
    return entry.path.with_name(name)


def _read_bytes(path: pathlib.Path) -> bytes:
    """Reads a file that a run has written."""
    if path.exists() and not path.is_file():
        raise EvaCoralbayError(f"{path} is a folder, a pipe or a device, and no file of a run.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvaCoralbayError(
            f"{path} cannot be read ({error.strerror}): put the file that the run has written "
            "there, beside its record."
        ) from error


def _name(entry: results_folder.Entry, config: Mapping[str, Any]) -> str:
    """Returns the name of the model of a run.

    Raises:
        EvaCoralbayError: If it has none, or other weights than the name stands for.
    """
    problem = results_folder.find_bad_names(entry.record).get("model.id")
    if problem is not None:
        raise EvaCoralbayError(f"{entry.path}: `model.id` {problem} Give it by --model-id.")
    encoder = config["model"]["init_args"].get("encoder") or {} if config else {}
    arguments = encoder.get("init_args") or {}
    checkpoint = (arguments.get("model_kwargs") or {}).get("checkpoint")
    name = str(entry.record.model.id)
    if checkpoint is not None and arguments.get("model_name") == name:
        raise EvaCoralbayError(
            f"{entry.path} is of own weights (CHECKPOINT={checkpoint}) under the name of the "
            f"published ones, {name}: give your model a name of its own by --model-id."
        )
    return name


def _facts(card: model_cards.ModelCard | None) -> dict[str, Any]:
    """Returns what the card of a model says that a run cannot know."""
    if card is None:
        return {}
    sets = card.pretraining
    return {
        "revision": card.revision,
        "license": card.license,
        "training_datasets": None if sets is None else [each.name for each in sets],
    }


def _check_distinct(entries: Sequence[results_folder.Entry], adapted: Sequence[_Result]) -> None:
    """Checks that there is one run a cell."""
    paths: dict[pathlib.PurePosixPath, pathlib.Path] = {}
    for entry, result in zip(entries, adapted, strict=True):
        try:
            place = results_folder.relative_path(result.record)
        except ValueError as error:
            raise EvaCoralbayError(f"{entry.path}: {error}") from error
        if place in paths:
            raise EvaCoralbayError(
                f"{paths[place]} and {entry.path} are of the same model, task, protocol and seed: "
                "name only the folder of the run that counts."
            )
        paths[place] = entry.path


def _validate(
    adapted: Sequence[_Result], cards: Mapping[str, model_cards.ModelCard]
) -> list[validation.Fault]:
    """Validates results in a temporary folder, and returns the warnings.

    Raises:
        EvaCoralbayError: If there is more than warnings, listing all.
    """
    with _atomic_files.private_folder() as temporary:
        folder = temporary.absolute()
        for result in adapted:
            result.write(folder)
        faults = [
            dataclasses.replace(fault, path=fault.path.relative_to(folder))
            for fault in validation.validate(folder, cards=cards)
        ]
    errors = [str(fault) for fault in faults if not fault.is_warning]
    if errors:
        raise EvaCoralbayError(
            "\n  ".join(["The results are not valid; nothing was written.", *errors])
        )
    return faults


def _check_new(adapted: Sequence[_Result], root: pathlib.Path) -> None:
    """Checks that no other run's result lies where one is to be written; the same one's may."""
    for result in adapted:
        path = root / results_folder.relative_path(result.record)
        if path.exists() and _measured(record.Record.read(path)) != _measured(result.record):
            raise EvaCoralbayError(
                f"{path} already exists with other values; nothing was written. To replace it with "
                "this run, first remove it and the two files beside it."
            )


def _measured(result: record.Record) -> record.Record:
    """Returns a record without its day and what is from the card of the model."""
    model = result.model.model_copy(update={"license": None, "training_datasets": None})
    return result.model_copy(update={"model": model, "date": None})


def _write_template(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Writes the card of a model of which nothing is known."""
    path = folder / f"{name.replace('/', '__')}.yaml"
    _atomic_files.write_atomically(path, _CARD.format(id=name).encode())
    return path


def draw_pull_request(
    entries: Sequence[results_folder.Entry], cards: Mapping[str, model_cards.ModelCard]
) -> str:
    """Writes the text of a pull request.

    Args:
        entries: The results.
        cards: The cards of the models, by id.

    Returns:
        The text, in Markdown.
    """
    by_model: dict[str, list[record.Record]] = {}
    for entry in entries:
        by_model.setdefault(str(entry.record.model.id), []).append(entry.record)
    parts = [f"# Results of {', '.join(by_model)}"]
    for name, found in by_model.items():
        parts += [f"## {name}", "\n".join(_describe(found[0], cards.get(name))), _draw_table(found)]
    parts.append(
        "The value is the mean over the seeds, with their standard deviation. Case tables and "
        "configurations are beside the records; paths of the machine were removed.\n\n"
        "- [ ] The model card says what the model was pre-trained on.\n"
        "- [ ] No scored case was used in the pre-training, or the card says so.\n"
        "- [ ] The licenses of the weights and of the data allow to publish these results."
    )
    return _messages.printable_lines("\n\n".join(parts)) + "\n"


def _describe(result: record.Record, card: model_cards.ModelCard | None) -> Iterator[str]:
    """Yields what is known of a model, as a list."""
    model, sets = result.model, result.model.training_datasets
    parameters = model.parameters or (card and card.parameters)
    facts = {
        "revision": model.revision,
        "license": model.license,
        "parameters": parameters and f"{parameters:,}",
        "pre-training": None if sets is None else ", ".join(sets) or "none",
        "weights": None if card is None or card.weights is None else card.weights.url,
    }
    for fact, value in facts.items():
        yield f"- {fact}: {value or 'unknown'}"
    if result.kind == "demo":
        yield "- kind: demo, which shows the machinery and is never ranked"


def _draw_table(found: Sequence[record.Record]) -> str:
    """Draws the results of a model: one row a task and protocol."""
    metrics = [name for name in _METRICS if any(name in result.metrics for result in found)]
    groups: dict[tuple[str, str], list[record.Record]] = {}
    for result in found:
        key = (f"{result.task.id}@{result.task.version}", str(result.protocol))
        groups.setdefault(key, []).append(result)
    header = ["task", "protocol", "seeds", "cases", *metrics]
    rows = [header, ["---"] * 2 + ["---:"] * (len(header) - 2)]
    for (task, protocol), group in groups.items():
        seeds = ", ".join(str(result.seed) for result in group)
        cases = f"{group[0].split.n} {group[0].split.part}"
        values = [_mean([result.metrics.get(name) for result in group]) for name in metrics]
        rows.append([task, protocol, seeds, cases, *values])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _mean(values: Sequence[float | None]) -> str:
    """Returns the mean over seeds, with their standard deviation if there are several."""
    defined = [value for value in values if value is not None]
    if not defined:
        return "-"
    spread = f" ± {statistics.stdev(defined):.3f}" if len(defined) > 1 else ""
    return f"{statistics.fmean(defined):.3f}{spread}"
