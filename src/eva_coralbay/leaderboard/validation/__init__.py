"""Checks a results folder, as a submission is: everything that can be known without the data.

Nothing in a submitted file is executed, and no link is followed. A file is read only if it is
where and as large as a result's files are.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.leaderboard import cards as model_cards
from eva_coralbay.leaderboard.validation import across, encoder, fault, files, table, task
from eva_coralbay.leaderboard.validation.fault import Fault
from eva_coralbay.leaderboard.validation.table import TOLERANCE
from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import record, run_config
from eva_coralbay.tasks import protocols

__all__ = ["TOLERANCE", "Fault", "validate"]


def validate(
    path: str | os.PathLike[str], *, cards: Mapping[str, model_cards.ModelCard] | None = None
) -> list[Fault]:
    """Checks a results folder, a part of it, or one record with its files.

    Of a results folder, the model cards and the reported numbers beside it are checked too.

    Args:
        path: The folder or the record.
        cards: The cards by the id of the model; if None, those beside the results folder.

    Returns:
        All faults, sorted by path; empty if there are none.

    Raises:
        EvaCoralbayError: If there is no such file or folder.
    """
    root = pathlib.Path(os.path.abspath(path))
    if not root.exists():
        raise EvaCoralbayError(f"There is no file or folder {path}.")
    found = files.walk(root) if root.is_dir() else files.list_files_of(root)
    faults: list[Fault] = []
    readable: set[pathlib.Path] = set()
    for file in found:
        problem = files.find_problem(file, root)
        if problem is None:
            readable.add(file)
        else:
            faults.append(Fault(file, "", problem))

    entries = []
    for file in sorted(readable):
        if file.suffix == ".json":
            try:
                entries.append(results_folder.Entry(file, record.Record.read(file)))
            except ValueError as error:
                faults += fault.explain(file, error)
    if not any(file.suffix == ".json" for file in found):
        faults.append(Fault(root, "", "there is no record (seed_<s>.json) in it."))

    known_cards = files.read_cards(root) if cards is None else cards
    for entry in entries:
        faults += task.check_names(entry, root)
        faults += task.check_task(entry)
        config, problems = _read_config(entry, readable)
        faults += problems
        faults += task.check_config(entry, config) if config is not None else ()
        faults += encoder.check_encoder(entry, config, known_cards)
        faults += table.check_table(entry, readable)
    faults += across.check_cells(entries)
    faults += across.check_models(entries)
    faults += files.check_orphans(readable)
    faults += across.check_versions(entries)
    if root.is_dir():
        faults += files.check_verified(root)
        faults += files.check_facts(root)
    return sorted(faults, key=lambda fault: str(fault.path))


def _read_config(
    entry: results_folder.Entry, readable: set[pathlib.Path]
) -> tuple[dict[str, Any] | None, list[Fault]]:
    """Reads the configuration of a record, `None` if it cannot be read, with what is wrong."""
    path, stated = entry.config_path, entry.record.config
    if stated is None and protocols.is_external(entry.record.protocol):
        return None, []
    if stated is None:
        message = "there is none, but without it nobody can repeat the run."
        return None, [Fault(entry.path, "config", message)]
    faults = list(files.check_file(entry, "config", path, stated.file, stated.sha256, readable))
    if path not in readable:
        return None, faults
    try:
        return run_config.read(path), faults
    except ValueError as error:
        return None, [*faults, Fault(path, "", fault.without_path(error, path))]
