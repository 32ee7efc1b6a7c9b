"""Tests of where the voxels of a volume lie."""

import numpy as np
import pytest

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import EvaCoralbayError


def test_straight_affine_points_up_back_and_left() -> None:
    affine = grid_lib.straight_affine((3.0, 2.0, 1.0), (7.0, 8.0, 9.0))

    np.testing.assert_array_equal(affine @ [1, 0, 0, 1], [7, 8, 12, 1])
    np.testing.assert_array_equal(affine @ [0, 1, 0, 1], [7, 6, 9, 1])
    np.testing.assert_array_equal(affine @ [0, 0, 1, 1], [6, 8, 9, 1])
    assert grid_lib.spacing(affine) == (3.0, 2.0, 1.0)


@pytest.mark.parametrize(
    "values",
    [
        (1.0, 1.0),
        (1.0, 1.0, 1.0, 1.0),
        (0.0, 1.0, 1.0),
        (-1.0, 1.0, 1.0),
        (1e9, 1.0, 1.0),
        (1.0, 1.0, float("inf")),
        (1.0, float("nan"), 1.0),
        (1.0, 1.0, 1e-9),
    ],
)
def test_a_spacing_that_cannot_be_is_an_error(values: tuple[float, ...]) -> None:
    with pytest.raises(EvaCoralbayError, match="three positive numbers in mm"):
        grid_lib.check_spacing(values)


def test_a_spacing_may_be_of_integers() -> None:
    assert grid_lib.check_spacing([1, 2, 3]) == (1.0, 2.0, 3.0)
