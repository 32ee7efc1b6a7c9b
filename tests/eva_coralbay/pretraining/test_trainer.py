"""Tests that a training that is interrupted goes on as if it had not been."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import torch
from lightning.pytorch import callbacks

from eva_coralbay.pretraining import trainer as trainer_lib
from tests.eva_coralbay.pretraining import runs, stores


@pytest.fixture(name="store", scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return stores.write_store(tmp_path_factory.mktemp("store"))


class _Stop(Exception):
    """What ends a training in the middle of it."""


class _Interruption(callbacks.Callback):
    """Ends the training at the start of a batch."""

    def __init__(self, batch: int) -> None:
        self._batch = batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx == self._batch:
            raise _Stop


class _Signal(callbacks.Callback):
    """Sends a signal to the process in the middle of a step."""

    def __init__(self, number: int, step: int) -> None:
        self._number, self._step = number, step

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        if trainer.global_step == self._step:
            os.kill(os.getpid(), self._number)


def _start(**options) -> subprocess.Popen:
    """Starts a training in a process of its own."""
    pairs = [f"{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "tests.eva_coralbay.pretraining.runs", *pairs]
    return subprocess.Popen(command, cwd=pathlib.Path(__file__).parents[3])


def _states(out: pathlib.Path, step: int) -> dict[str, torch.Tensor]:
    return torch.load(out / f"checkpoints/step={step}.ckpt", weights_only=True)["state_dict"]


def _assert_equal(first: pathlib.Path, second: pathlib.Path, *, step: int) -> None:
    """Asserts that two runs have the same losses and the same weights."""
    assert runs.losses(first) == runs.losses(second)
    for name, value in _states(first, step).items():
        torch.testing.assert_close(_states(second, step)[name], value, rtol=0, atol=0)


@pytest.fixture(name="undisturbed", scope="module")
def _undisturbed(store: str, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("undisturbed")
    runs.train(store=store, out=str(out), steps=3)
    return out


def test_goes_on_as_undisturbed_with_other_workers(
    store: str, undisturbed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(_Stop):
        runs.train(store=store, out=str(tmp_path), steps=3, callbacks=[_Interruption(1)])
    runs.train(store=store, out=str(tmp_path), steps=3, workers=2)
    _assert_equal(undisturbed, tmp_path, step=3)


def test_goes_on_in_the_middle_of_accumulated_batches(store: str, tmp_path: pathlib.Path) -> None:
    options = {"store": store, "steps": 2, "batch_size": 1, "accumulate": 2}
    through, resumed = tmp_path / "through", tmp_path / "resumed"
    runs.train(out=str(through), **options)
    with pytest.raises(_Stop):
        runs.train(out=str(resumed), callbacks=[_Interruption(3)], **options)
    runs.train(out=str(resumed), **options)
    _assert_equal(through, resumed, step=2)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_ends_a_step_and_requeues_the_job(
    store: str,
    undisturbed: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    calls = tmp_path / "calls.txt"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    for name, value in {"JOB_ID": "77", "ARRAY_JOB_ID": "70", "ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)

    with pytest.raises(SystemExit) as stopped:
        runs.train(
            store=store, out=str(tmp_path), steps=3, interval=100, callbacks=[_Signal(number, 1)]
        )
    assert stopped.value.code == 128 + number
    requeued = calls.read_text() if calls.exists() else ""
    assert requeued == ("requeue 70_3\n" if number == signal.SIGUSR1 else "")
    assert [path.stem for path in trainer_lib.find_checkpoints(str(tmp_path))] == ["step=2"]

    runs.train(store=store, out=str(tmp_path), steps=3)
    _assert_equal(undisturbed, tmp_path, step=3)


def test_keeps_the_last_checkpoints(undisturbed: pathlib.Path) -> None:
    assert [path.stem for path in trainer_lib.find_checkpoints(str(undisturbed))] == [
        "step=2",
        "step=3",
    ]


def test_does_nothing_when_all_steps_are_done(store: str, undisturbed: pathlib.Path) -> None:
    before = _states(undisturbed, 3)
    runs.train(store=store, out=str(undisturbed), steps=3)
    for name, value in _states(undisturbed, 3).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_names_a_damaged_checkpoint(store: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "checkpoints" / "step=5.ckpt"
    path.parent.mkdir()
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="step=5.ckpt.*damaged"):
        runs.train(store=store, out=str(tmp_path), steps=9)


@pytest.mark.slow
def test_goes_on_after_kill_9(store: str, tmp_path: pathlib.Path) -> None:
    options = {"store": f'"{store}"', "steps": 5}
    through, resumed = tmp_path / "through", tmp_path / "resumed"
    assert _start(out=f'"{through}"', **options).wait() == 0
    process = _start(out=f'"{resumed}"', **options)
    while not trainer_lib.find_checkpoints(str(resumed)):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.0)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert _start(out=f'"{resumed}"', workers=1, **options).wait() == 0
    _assert_equal(through, resumed, step=5)


@pytest.mark.slow
@pytest.mark.parametrize("balance", ["centring", "sinkhorn_knopp"])
def test_two_processes_are_one_with_the_joint_batch(
    store: str, tmp_path: pathlib.Path, balance: str
) -> None:
    options = {
        "store": f'"{store}"', "steps": 1, "balance": f'"{balance}"', "drop_path_rate": 0.0,
    }  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    assert _start(out=f'"{one}"', batch_size=4, **options).wait() == 0
    assert _start(out=f'"{two}"', batch_size=2, devices=2, **options).wait() == 0
    first, second = _states(one, 1), _states(two, 1)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-5, msg=name)
    gradients, joint = (torch.load(out / "gradients.pt", weights_only=True) for out in (two, one))
    assert max(value.abs().max() for value in joint.values()) > 0.01
    for name, value in joint.items():
        atol = 1e-4 * float(value.abs().max())
        torch.testing.assert_close(gradients[name], value, rtol=0, atol=atol, msg=name)
