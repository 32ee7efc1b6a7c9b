"""Checks a results folder, as a submission is: everything that can be known without the data.

Nothing in a submitted file is executed, and no link is followed. A file is read only if it is
where and as large as a result's files are.
"""

import os
import pathlib

from eva_coralbay.leaderboard.validation import across, fault, files, table, task
from eva_coralbay.leaderboard.validation.fault import Fault, printable
from eva_coralbay.leaderboard.validation.table import TOLERANCE
from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import record

__all__ = ["TOLERANCE", "Fault", "printable", "validate"]


def validate(path: str | os.PathLike[str]) -> list[Fault]:
    """Checks a results folder, a part of it, or one record with its files.

    Of a results folder, the model cards and the reported numbers beside it are checked too.

    Args:
        path: The folder or the record.

    Returns:
        All faults, sorted by path; empty if there are none.

    Raises:
        ValueError: If there is no such file or folder.
    """
    root = pathlib.Path(os.path.abspath(path))
    if not root.exists():
        raise ValueError(f"There is no file or folder {path}.")
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

    for entry in entries:
        faults += task.check_names(entry, root)
        faults += task.check_task(entry)
        faults += task.check_config(entry, readable)
        faults += table.check_table(entry, readable)
    faults += across.check_cells(entries)
    faults += across.check_weights(entries)
    faults += files.check_orphans(readable)
    faults += across.check_versions(entries)
    if root.is_dir():
        faults += files.check_verified(root)
        faults += files.check_facts(root)
    return sorted(faults, key=lambda fault: str(fault.path))
