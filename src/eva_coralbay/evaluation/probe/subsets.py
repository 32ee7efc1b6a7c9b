"""The labeled cases of each point of a label-efficiency curve."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SIZES = (1, 2, 5, 10, 25)
"""The numbers of labeled cases of a curve, beside all of them."""

DRAWS = 10
"""How many sets of cases there are of each size."""

VERSION = "1"
"""The version of how subsets are drawn: scores of two versions are not compared."""


class Subset(NamedTuple):
    """Some of the training cases."""

    size: int
    """The number of cases."""

    draw: int
    """Which of the sets of this size it is, from 0."""

    cases: tuple[str, ...]
    """The ids of the cases, in the order in which they were drawn."""


def draw(task: str, cases: Sequence[str]) -> list[Subset]:
    """Draws the subsets of the training cases of a task.

    Those of one draw are nested. They depend on the ids of the cases and of the task, and not on
    the order of the cases, the machine, or the version of a library.

    Args:
        task: The id of the task.
        cases: The ids of its training cases.

    Returns:
        `DRAWS` subsets of each of `SIZES` below the number of cases, then all cases once.
    """
    orders = [_order(f"{VERSION}/{task}/{number}", cases) for number in range(DRAWS)]
    subsets = [
        Subset(size, number, tuple(order[:size]))
        for size in SIZES
        if size < len(cases)
        for number, order in enumerate(orders)
    ]
    return [*subsets, Subset(len(cases), 0, tuple(sorted(cases)))]


def _order(name: str, cases: Sequence[str]) -> list[str]:
    """Returns the cases in an order that is drawn by a hash."""
    return sorted(cases, key=lambda case: hashlib.sha256(f"{name}/{case}".encode()).digest())


def random_state(name: str) -> np.random.RandomState:
    """Returns the random stream of a name, the same with every version of numpy."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype=np.uint32))
