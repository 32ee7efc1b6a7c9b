"""Tests that time and memory of a piece of work are measured."""

import time

import pytest
import torch

from eva_coralbay.evaluation import cost

_CPU = torch.device("cpu")


def test_time_and_memory_are_those_of_the_work() -> None:
    weight = torch.zeros(1000)

    def work() -> None:
        time.sleep(0.02)
        first = torch.ones(1000) + weight
        weight.add_(first)

    measured = cost.measure(work, _CPU, known=[weight])

    assert measured.seconds is not None
    assert 0.02 <= measured.seconds < 0.5
    # both the ones and their sum, and not the weight
    assert measured.memory == 2 * 4 * 1000


def test_work_that_takes_more_than_is_free_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "find_free_memory", lambda device: 10_000)
    started = []

    def work() -> list[torch.Tensor]:
        started.append(1)
        return [torch.zeros(1000) for _ in range(100)]

    measured = cost.measure(work, _CPU)

    assert measured.seconds is None
    assert measured.memory == 3 * 4 * 1000
    assert len(started) == 1


def test_some_memory_is_free() -> None:
    assert cost.find_free_memory(_CPU) > 2**20
