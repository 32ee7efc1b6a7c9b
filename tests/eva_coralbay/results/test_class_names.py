"""Tests of the names that classes cannot have."""

import itertools

import pytest

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.results import class_names, scores

_METRICS = [
    name + point
    for name, point in itertools.product(
        ("dice", "dice_resampled", "nsd", "hd95", *scores.LESION_METRICS), ("", "_curve", "_at_5")
    )
]


@pytest.mark.parametrize("metric", _METRICS)
def test_no_metric_is_taken_for_that_of_a_class(metric: str) -> None:
    """Nor the score of a class by one metric for that of another class by another one."""
    for other in _METRICS:
        if metric.startswith(f"{other}_"):
            for name in (metric.removeprefix(f"{other}_"), f"{metric.removeprefix(f'{other}_')}_x"):
                with pytest.raises(EvaCoralbayError, match=f"cannot be called '{name}'"):
                    class_names.check(["background", "liver", name])


def test_other_names_are_fine() -> None:
    class_names.check(["liver", "at", "at_rest", "curved", "resampling", "lesion", "dice", ""])
