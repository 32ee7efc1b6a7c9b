"""The tasks of the leaderboard: one entry each, with all that the other rooms need to know of it.

A new task is a :class:`Task` in the file of its kind; it needs to be listed nowhere.
"""

from collections.abc import Mapping

from eva_coralbay.tasks.catalog import classification, decathlon, organs, tumors
from eva_coralbay.tasks.facts import BACKGROUND, Kind, License, Resource, Task, headline_metric

TASKS: Mapping[str, Task] = {
    task.id: task
    for file in (organs, tumors, decathlon, classification)
    for task in vars(file).values()
    if isinstance(task, Task)
}
"""The tasks by id, in the order of the files."""

__all__ = ["BACKGROUND", "TASKS", "Kind", "License", "Resource", "Task", "headline_metric"]
