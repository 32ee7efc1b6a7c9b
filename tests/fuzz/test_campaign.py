"""Tests that the campaign finds faults, and that a small one finds none."""

import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from eva_coralbay.data import nifti
from eva_coralbay.errors import EvaCoralbayError
from tests.fuzz import campaign, kinds


def _write(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    (folder / "input").write_bytes(random.bytes(10))
    return folder / "input"


def _refuse(path: pathlib.Path) -> None:
    raise EvaCoralbayError(f"'{path}' is wrong.")


def _refuse_without_name(path: pathlib.Path) -> None:
    raise EvaCoralbayError("Something is wrong.")


READERS: dict[str, Callable[[pathlib.Path], Any]] = {
    "refused": _refuse,
    "unnamed": _refuse_without_name,
    "right": lambda path: None,
    "traceback": lambda path: 1 / 0,
    "hang": lambda path: time.sleep(60),
    "memory": lambda path: np.ones(campaign.MAX_GROWTH + 2**24, np.uint8).sum(),
    "killed": lambda path: os.kill(os.getpid(), 9),
}


@pytest.mark.parametrize("outcome", READERS)
def test_an_outcome_is_what_it_is(outcome: str) -> None:
    seconds = 1.0 if outcome == "hang" else 10.0
    kind = campaign.Kind("toy", _write, READERS[outcome], max_seconds=seconds)

    found = list(campaign.run_numbers(kind, range(2), seed=0))

    assert [one.outcome for one in found] == [outcome] * 2
    assert [one.number for one in found] == [0, 1]


def test_a_wrong_result_is_a_fault() -> None:
    kind = campaign.Kind("toy", _write, lambda path: 3, lambda path, result: f"it is {result}")

    (found,) = campaign.run_numbers(kind, [0], seed=0)

    assert (found.outcome, found.detail) == ("wrong", "it is 3")


def test_a_seed_and_a_number_make_one_input() -> None:
    kind = campaign.Kind("toy", _write, lambda path: None, lambda path, _: path.read_bytes().hex())

    first, second = (
        [one.detail for one in campaign.run_numbers(kind, [7, 8], seed=seed)] for seed in (0, 1)
    )
    again = [one.detail for one in campaign.run_numbers(kind, [8], seed=0)]

    assert again == first[1:]
    assert not set(first) & set(second)


def test_a_reader_that_no_longer_scales_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nifti.volumeutils, "apply_read_scaling", lambda stored, *_: stored)

    found = campaign.run_numbers(kinds.KINDS["scans"], range(150), seed=0)

    assert any(one.outcome in campaign.FAULTS for one in found)


@pytest.mark.parametrize(
    "name",
    # these take several commands, each with its imports
    [
        pytest.param(name, marks=pytest.mark.slow if name in ("earlier", "kills") else ())
        for name in kinds.KINDS
    ],
)
def test_a_small_campaign_finds_nothing(name: str) -> None:
    kind = kinds.KINDS[name]
    # `nox -s fuzz` has thousands; whole commands take longer
    inputs = 6 if kind.max_seconds <= campaign.MAX_SECONDS else 1

    outcomes = campaign.run([kind], inputs=inputs, seed=1, report=lambda _: None)

    assert [one for one in outcomes if one.outcome in campaign.FAULTS] == []
    assert len(outcomes) == inputs
