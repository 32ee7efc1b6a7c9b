"""Tests that schedules are DINO's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightly.utils import scheduler

from eva_coralbay.pretraining.schedules import Schedule


@given(
    steps=st.integers(3, 500),
    part=st.floats(0.0, 1.0),
    warmup=st.floats(0.0, 0.9),
    values=st.tuples(*[st.floats(0.0, 1.0)] * 3),
)
def test_equals_lightly(
    steps: int, part: float, warmup: float, values: tuple[float, float, float]
) -> None:
    step = round(part * (steps - 1))
    start, peak, end = values
    expected = scheduler.cosine_warmup_schedule(
        step,
        steps,
        start_value=peak,
        end_value=end,
        warmup_steps=round(warmup * steps),
        warmup_start_value=start,
    )
    found = Schedule(start, peak, end, warmup).at(step, steps=steps)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_rises_and_falls() -> None:
    schedule = Schedule(0.0, 1.0, 0.1, warmup=0.1)
    values = [schedule.at(step, steps=100) for step in range(100)]
    assert values[0] == pytest.approx(0.1)
    assert values[9] == values[10] == pytest.approx(1.0)
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[99] == schedule.at(1000, steps=100) == pytest.approx(0.1)


def test_scales_all_but_the_end() -> None:
    assert Schedule(0.1, 1.0, 0.5, 0.2).scaled(2.0) == Schedule(0.2, 2.0, 0.5, 0.2)


def test_refuses_a_warmup_that_is_no_part() -> None:
    with pytest.raises(ValueError, match="warmup"):
        Schedule(0.0, 1.0, 0.0, warmup=10.0)
