"""Which names the classes of a segmentation cannot have."""

import re
from collections.abc import Sequence

from eva_coralbay.errors import EvaCoralbayError

_TAKEN = re.compile(r"(resampled|curve|at_[1-9]\d*)(_.*)?", re.DOTALL)
"""Names by which `<metric>_<class name>` is the name of another metric, or begins with one:
`dice_resampled`, `dice_curve`, `dice_at_5`, and these by class."""


def check(classes: Sequence[str]) -> None:
    """Checks that the scores of no class have the name of another metric.

    Args:
        classes: The names of the classes.

    Raises:
        EvaCoralbayError: If those of one have.
    """
    for name in classes:
        if match := _TAKEN.fullmatch(name):
            raise EvaCoralbayError(
                f"A class cannot be called '{name}': 'dice_{match[1]}' is the name of a metric, "
                "and its scores could not be told from it. Rename the class in the data set."
            )
