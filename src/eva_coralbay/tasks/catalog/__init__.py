"""The tasks of the leaderboard: one entry each, with all that the other rooms need to know of it.

A new task is a :class:`Task` in the file of its kind; it needs to be listed nowhere.
"""

from collections.abc import Mapping

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


def scoring_unit(task: str) -> Unit:
    """Returns what counts once in the scores of a task: the patient, unless the task says else.

    Args:
        task: The id of a task, of the catalog or of one's own.
    """
    return TASKS[task].unit if task in TASKS else "patient"


__all__ = [
    "BACKGROUND",
    "TASKS",
    "Kind",
    "License",
    "Resource",
    "Task",
    "Unit",
    "headline_metric",
    "scoring_unit",
]
