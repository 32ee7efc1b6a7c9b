"""The labeled cases of each point of a label-efficiency curve."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eva_coralbay.results import label_curves

SIZES = (1, 2, 5, 10, 25)
"""The numbers of labeled cases of a curve, beside all of them."""

DRAWS = 10
"""How many sets of cases there are of each size."""

VERSION = "1"
"""The version of how subsets are drawn: scores of two versions are not compared."""


class Subset(NamedTuple):
    """Some of the training cases."""

    size: int
    """The number of cases, of a classification that of each class."""

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


class LabeledCase(NamedTuple):
    """A training case of a classification."""

    patient: str
    """The id of the patient."""

    label: int
    """The index of its class."""


def draw_by_class(task: str, cases: Mapping[str, LabeledCase], *, n_classes: int) -> list[Subset]:
    """Draws the subsets of the training cases of a classification, as many cases of each class.

    Those of one draw are nested, and follow from the ids alone, as those of :func:`draw`. The
    cases of a class are of different patients as long as there are any. A class that has fewer
    cases than are drawn gives all that it has.

    Args:
        task: The id of the task.
        cases: Its training cases by id.
        n_classes: The number of classes of the task.

    Returns:
        `DRAWS` subsets of each of `SIZES` below the mean number of cases of a class, then all
        cases once.
    """
    every = label_curves.cases_per_class(len(cases), n_classes)
    subsets = []
    for size in SIZES:
        for number in range(DRAWS) if size < every else ():
            name = f"{VERSION}/{task}/{number}"
            orders = [_order_of_class(name, cases, label) for label in range(n_classes)]
            drawn = tuple(case for order in orders for case in order[:size])
            subsets.append(Subset(size, number, drawn))
    return [*subsets, Subset(every, 0, tuple(sorted(cases)))]


def _order_of_class(name: str, cases: Mapping[str, LabeledCase], label: int) -> list[str]:
    """Returns the cases of a class in a drawn order: the first of each patient, the second..."""
    drawn = _order(name, [case for case, known in cases.items() if known.label == label])
    seen: dict[str, int] = {}
    ranks = {}
    for case in drawn:
        patient = cases[case].patient
        ranks[case] = seen[patient] = seen.get(patient, 0) + 1
    return sorted(drawn, key=ranks.__getitem__)


def _order(name: str, cases: Sequence[str]) -> list[str]:
    """Returns the cases in an order that is drawn by a hash."""
    return sorted(cases, key=lambda case: hashlib.sha256(f"{name}/{case}".encode()).digest())


def random_state(name: str) -> np.random.RandomState:
    """Returns the random stream of a name, the same with every version of numpy."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype=np.uint32))
