"""Windows cover a scan, and each voxel belongs to one of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_coralbay.evaluation.probe import windows

_lengths = st.tuples(*(st.integers(1, 30) for _ in range(3)))


@settings(deadline=None)
@given(shape=_lengths, size=st.integers(6, 16), overlap=st.floats(0.0, 0.6))
def test_every_voxel_belongs_to_one_window_that_holds_it(
    shape: tuple[int, int, int], size: int, overlap: float
) -> None:
    owners = np.zeros(shape, dtype=int)
    for window in windows.place(shape, (size,) * 3, overlap):
        owners[window.core] += 1
        for extent, start in zip(window.core, window.start, strict=True):
            assert start <= extent.start < extent.stop <= start + size
    assert (owners == 1).all()


@given(length=st.integers(33, 200), overlap=st.floats(0.1, 0.75))
def test_neighbors_overlap_as_asked_for_and_share_the_overlap(length: int, overlap: float) -> None:
    placed = windows.place((length, 8, 8), (32, 8, 8), overlap)

    assert placed[-1].start[0] + 32 == length
    for first, second in itertools.pairwise(placed):
        shared = first.start[0] + 32 - second.start[0]
        assert shared >= 32 * overlap - 1
        assert first.core[0].stop - second.start[0] == pytest.approx(shared / 2, abs=0.5)


def test_a_small_scan_has_one_window() -> None:
    (window,) = windows.place((5, 6, 7), (8, 8, 8), 0.25)

    assert window.start == (0, 0, 0)
    assert window.core_within == (slice(0, 5), slice(0, 6), slice(0, 7))
