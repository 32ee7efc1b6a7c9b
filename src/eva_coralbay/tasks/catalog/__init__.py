"""The tasks of the leaderboard: one entry each, with all that the other rooms need to know of it.

A new task is a :class:`Task` in the file of its kind and a file with its splits beside it.
"""

from collections.abc import Mapping

from eva_coralbay.tasks.catalog import classification, decathlon, organs, tumors
from eva_coralbay.tasks.facts import BACKGROUND, Kind, License, Resource, Task, headline_metric

TASKS: Mapping[str, Task] = {
    task.id: task
    for task in (
        organs.BTCV,
        tumors.LITS17,
        decathlon.PANCREAS,
        organs.FLARE22,
        tumors.KITS23,
        organs.WORD,
        organs.AMOS22,
        organs.CHAOS,
        organs.TOTALSEGMENTATOR,
        decathlon.LIVER,
        decathlon.LUNG,
        decathlon.HEPATIC_VESSEL,
        decathlon.SPLEEN,
        decathlon.COLON,
        classification.ORGAN_MNIST_3D,
        classification.NODULE_MNIST_3D,
        classification.LUNA25,
        classification.CC_CCII,
    )
}
"""The tasks by id, in the order of the tables."""

__all__ = ["BACKGROUND", "TASKS", "Kind", "License", "Resource", "Task", "headline_metric"]
