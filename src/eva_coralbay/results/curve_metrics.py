"""Which metrics of a record are a label-efficiency curve: the scores with few labeled cases."""

import re
from collections.abc import Collection

_METRIC = re.compile(
    r"(?P<metric>dice|dice_resampled|(knn_)?balanced_accuracy)_(curve|at_(?P<cases>[1-9]\d*))"
)
"""The score of a probe with a number of labeled training cases, and the area under that curve."""


def find(names: Collection[str]) -> dict[int, str]:
    """Finds the metrics that are a label-efficiency curve.

    Args:
        names: The names of a record's metrics.

    Returns:
        The metric by the number of labeled training cases, in ascending order; empty if the record
        has no curve. The point with all training cases is the metric `dice_resampled`, `dice` or
        `balanced_accuracy`. The curve of the nearest neighbors is left out.
    """
    found = (_METRIC.fullmatch(name) for name in names if not name.startswith("knn_"))
    points = {int(match["cases"]): match[0] for match in found if match and match["cases"]}
    return dict(sorted(points.items()))


def has(name: str) -> bool:
    """Whether a metric is of a curve, of any classifier: one of its points, or the area under it.

    Args:
        name: The name of the metric.
    """
    return _METRIC.fullmatch(name) is not None


def has_point(name: str) -> bool:
    """Whether a metric is the score with a number of labeled training cases, of any classifier.

    Args:
        name: The name of the metric.
    """
    match = _METRIC.fullmatch(name)
    return match is not None and match["cases"] is not None
