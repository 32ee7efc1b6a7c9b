"""Tests of where the voxels of a volume lie."""

import numpy as np

from eva_coralbay.data import grid as grid_lib


def test_straight_affine_points_up_back_and_left() -> None:
    affine = grid_lib.straight_affine((3.0, 2.0, 1.0), (7.0, 8.0, 9.0))

    np.testing.assert_array_equal(affine @ [1, 0, 0, 1], [7, 8, 12, 1])
    np.testing.assert_array_equal(affine @ [0, 1, 0, 1], [7, 6, 9, 1])
    np.testing.assert_array_equal(affine @ [0, 0, 1, 1], [6, 8, 9, 1])
    assert grid_lib.spacing(affine) == (3.0, 2.0, 1.0)
