"""The tasks of the leaderboard: one entry each, with all that the other rooms need to know of it.

A new task is a :class:`Task` in the file of its kind; it needs to be listed nowhere.
"""

from collections.abc import Mapping

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.tasks.catalog import classification, decathlon, organs, tumors
from eva_coralbay.tasks.facts import (
    BACKGROUND,
    Kind,
    License,
    Resource,
    Task,
    Unit,
    headline_metric,
)

TASKS: Mapping[str, Task] = {
    task.id: task
    for file in (organs, tumors, decathlon, classification)
    for task in vars(file).values()
    if isinstance(task, Task)
}
"""The tasks by id, in the order of the files."""

OWN_DATA: Mapping[str, str] = {
    "nnunet": "eva_coralbay.data.datasets.NnUNet",
    "msd": "eva_coralbay.data.datasets.MSD",
}
"""The class of the data set for own scans, by the name of their layout."""


def find_dataset(name: str) -> str:
    """Returns the path of the class that reads the data of a task, or own scans.

    Args:
        name: The id of the task, or the name of the layout of own scans.

    Raises:
        EvaCoralbayError: If there is neither such a task nor such a layout.
    """
    if name in OWN_DATA:
        return OWN_DATA[name]
    if name not in TASKS:
        known = ", ".join((*TASKS, *OWN_DATA))
        raise EvaCoralbayError(f"There is no task '{name}': choose one of {known}.")
    return TASKS[name].dataset


def scoring_unit(task: str) -> Unit:
    """Returns what counts once in the scores of a task: the patient, unless the task says else.

    Args:
        task: The id of a task, of the catalog or of one's own.
    """
    return TASKS[task].unit if task in TASKS else "patient"


__all__ = [
    "BACKGROUND",
    "OWN_DATA",
    "TASKS",
    "Kind",
    "License",
    "Resource",
    "Task",
    "Unit",
    "find_dataset",
    "headline_metric",
    "scoring_unit",
]
