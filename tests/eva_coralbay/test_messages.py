"""Tests the wording that several messages share."""

import pytest

from eva_coralbay import _messages


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (0.0, "less than a minute"),
        (0.99, "less than a minute"),
        (1.0, "about 1.0 minutes"),
        (2345.6, "about 2,345.6 minutes"),
    ],
)
def test_no_work_takes_zero_minutes(minutes: float, words: str) -> None:
    assert _messages.minutes(minutes) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (120, "120"),
        (17_984, "18 k"),
        (99_499, "99 k"),
        (99_500, "0.1 M"),
        (53_164_146, "53.2 M"),
        (1_500_000_000, "1,500.0 M"),
    ],
)
def test_a_small_network_has_more_than_zero_parameters(number: int, words: str) -> None:
    assert _messages.parameters(number) == words
