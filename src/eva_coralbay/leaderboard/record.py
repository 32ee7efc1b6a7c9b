"""The record of a run: one JSON file, and one table with a row per case, class and metric."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class CaseRow:
    """One value of the case table."""

    case: str
    """Case id, unique in its split."""

    class_name: str
    """Name of the foreground class."""

    metric: str
    """Name of the metric, e.g. `dice`."""

    value: float | None
    """The metric's value; `None` if the pair of case and class is excluded."""

    truth_voxels: int
    """Voxels of the class in the truth."""

    predicted_voxels: int
    """Voxels of the class in the prediction."""
