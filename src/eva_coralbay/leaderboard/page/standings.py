"""How far each model is behind the best one on a task, and how sure that is."""

import dataclasses
from collections.abc import Mapping, Sequence

from eva_coralbay.leaderboard import statistics
from eva_coralbay.leaderboard.page import board


@dataclasses.dataclass(frozen=True)
class Standing:
    """A model on a task beside the one with the best score."""

    gap: float
    """Its score less the best one: 0 or negative."""

    is_best: bool

    is_separated: bool
    """Whether it is significantly behind the best, after correction for all pairs of the task."""


def find(
    cells: Mapping[str, board.Cell], comparisons: Sequence[statistics.Comparison]
) -> dict[str, Standing]:
    """Finds the standings on a task.

    Args:
        cells: The cells by the label of the model.
        comparisons: Those of all pairs of models that can be compared.

    Returns:
        The standings by the label of the model; those without a score have none, and neither has
        the only one with a score, as there is nothing to compare it with.
    """
    values = {label: cell.value for label, cell in cells.items() if cell.value is not None}
    if len(values) < 2:
        return {}
    best = max(values, key=lambda label: values[label])
    separated = {
        frozenset((each.model_a, each.model_b)) for each in comparisons if each.reason is None
    }
    return {
        label: Standing(
            gap=value - values[best],
            is_best=label == best,
            is_separated=frozenset((label, best)) in separated,
        )
        for label, value in values.items()
    }
