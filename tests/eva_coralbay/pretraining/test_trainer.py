"""Tests that a training that is interrupted goes on as if it had not been."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import loguru
import pytest
import torch
from lightning.pytorch import callbacks

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import CoralBayEncoder
from eva_coralbay.pretraining import export, provenance
from eva_coralbay.pretraining import trainer as trainer_lib
from eva_coralbay.pretraining.schedules import Schedule
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
    # in a group of its own, as what torchrun or SLURM have started
    root = pathlib.Path(__file__).parents[3]
    return subprocess.Popen(command, cwd=root, start_new_session=True)


def _wait_for(process: subprocess.Popen, path: pathlib.Path) -> None:
    """Waits until a training has written a file."""
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.05)


def _wait_for_workers(process: subprocess.Popen) -> None:
    """Waits until the workers of a training that was killed have seen it."""
    until = time.monotonic() + 30.0
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.1)


def _states(out: pathlib.Path, step: int) -> dict[str, torch.Tensor]:
    return torch.load(out / f"checkpoints/step={step}.ckpt", weights_only=True)["state_dict"]


def _assert_equal(first: pathlib.Path, second: pathlib.Path, *, step: int) -> None:
    """Asserts that two runs have the same losses and the same weights."""
    assert runs.losses(first) == runs.losses(second)
    found = _states(second, step)
    for name, value in _states(first, step).items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


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


def test_a_signal_to_all_processes_ends_a_step(store: str, tmp_path: pathlib.Path) -> None:
    """As torchrun and SLURM send it: the workers go on, so that the step can end."""
    process = _start(store=f'"{store}"', out=f'"{tmp_path}"', steps=1000, interval=1000, workers=2)
    _wait_for(process, tmp_path / "gradients_0.pt")
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert len(trainer_lib.find_checkpoints(str(tmp_path))) == 1
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_another_number_of_prototypes_is_an_error(
    store: str, undisturbed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    message = "step=3.ckpt' is of a training with `num_prototypes: 32`, and .* has 64"
    with pytest.raises(ValueError, match=message):
        runs.train(store=store, out=str(tmp_path / "run"), steps=4, num_prototypes=64)


def test_goes_on_with_another_store(
    undisturbed: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, and `auto` does not change the number of prototypes in the middle."""
    shutil.copytree(undisturbed, tmp_path / "run")
    name = f".step=9.ckpt~{socket.gethostname()}~99999999~{'0' * 32}.tmp"
    leftover = tmp_path / "run" / "checkpoints" / name
    leftover.touch()
    two_days_ago = time.time() - 2 * 24 * 60 * 60
    os.utime(leftover, (two_days_ago, two_days_ago))
    told: list[str] = []
    monkeypatch.setattr(loguru.logger, "warning", told.append)
    store = stores.write_store(tmp_path / "store", cases=4)
    module = runs.train(store=store, out=str(tmp_path / "run"), steps=4, num_prototypes="auto")
    assert module.num_prototypes == 32
    assert not leftover.exists()
    assert any("num_scans: 3 -> 4" in message for message in told)


def test_keeps_the_last_checkpoints(undisturbed: pathlib.Path) -> None:
    assert [path.stem for path in trainer_lib.find_checkpoints(str(undisturbed))] == [
        "step=2",
        "step=3",
    ]


def test_does_nothing_when_all_steps_are_done(store: str, undisturbed: pathlib.Path) -> None:
    before = _states(undisturbed, 3)
    runs.train(store=store, out=str(undisturbed), steps=3)
    after = _states(undisturbed, 3)
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0)


def test_names_a_damaged_checkpoint(store: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "checkpoints" / "step=5.ckpt"
    path.parent.mkdir()
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(EvaCoralbayError, match="step=5.ckpt.*damaged"):
        runs.train(store=store, out=str(tmp_path), steps=9)


@pytest.mark.parametrize("place", [0.02, 0.5, 0.999])
def test_one_bit_of_a_checkpoint_is_enough(
    store: str, undisturbed: pathlib.Path, tmp_path: pathlib.Path, place: float
) -> None:
    """PyTorch does not look at the checksums that it writes."""
    shutil.copytree(undisturbed, tmp_path / "run")
    path = tmp_path / "run/checkpoints/step=3.ckpt"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(EvaCoralbayError, match=r"step=3.ckpt' is .*delete it to resume") as raised:
        runs.train(store=store, out=str(tmp_path / "run"), steps=4)
    assert "\n" not in str(raised.value)


def test_says_in_full_what_goes_on_in_another_way(
    store: str, undisturbed: pathlib.Path, tmp_path: pathlib.Path, log: list[str]
) -> None:
    """Another batch, number of steps and schedule; the export lists both phases."""
    shutil.copytree(undisturbed, tmp_path / "run")
    leftover = tmp_path / "run" / f".curves.png~{socket.gethostname()}~99999999~{'0' * 32}.tmp"
    leftover.touch()
    two_days_ago = time.time() - 2 * 24 * 60 * 60
    os.utime(leftover, (two_days_ago, two_days_ago))
    os.utime(leftover, (0, 0))
    CoralBayEncoder(feature_size=12).save_pretrained(tmp_path / "given")
    runs.train(
        store=store, out=str(tmp_path / "run"), steps=4, batch_size=2, interval=4,
        lr=Schedule(0.0, 0.2, 1e-6), student_temperature=0.2, seed=7,
        init_from=str(tmp_path / "given"),
    )  # fmt: skip
    assert not leftover.exists()
    (told,) = (message for message in log if "in another way" in message)
    for change in (
        "device_batch_size: 1 -> 2", "batch_size: 1 -> 2", "steps: 3 -> 4", "model.lr: {",
        "model.student_temperature: 0.1 -> 0.2", "model.seed: 0 -> 7",
    ):  # fmt: skip
        assert change in told
    assert "data.seed" not in told and "num_scans" not in told
    path = tmp_path / "run/checkpoints/step=4.ckpt"
    stated = torch.load(path, weights_only=True)["coralbay"]
    assert stated["init_from_sha256"] is None, "the weights are those of the checkpoint"
    first, second = stated["phases"]
    assert first["precision"] == "32-true"
    changed = provenance.find_changes(first, {**first, "precision": "bf16-mixed"})
    assert changed == ["precision: 32-true -> bf16-mixed"]
    assert (first["from_step"], first["batch_size"], first["steps"]) == (0, 1, 3)
    assert (second["from_step"], second["batch_size"], second["steps"]) == (3, 2, 4)
    export.export(str(path), str(tmp_path / "encoder"))
    assert "- from step 3: batch_size: 1 -> 2" in (tmp_path / "encoder/README.md").read_text()
    config = json.loads((tmp_path / "encoder/config.json").read_text())
    assert [phase["from_step"] for phase in config["training"]["phases"]] == [0, 3]


def test_says_in_full_that_another_number_of_devices_goes_on(
    store: str, undisturbed: pathlib.Path, tmp_path: pathlib.Path, log: list[str]
) -> None:
    """What two devices have begun goes on with one."""
    shutil.copytree(undisturbed, tmp_path / "run")
    path = tmp_path / "run/checkpoints/step=3.ckpt"
    content = torch.load(path, weights_only=True)
    content["coralbay"]["phases"][0].update(devices=2, batch_size=2)
    torch.save(content, path)

    runs.train(store=store, out=str(tmp_path / "run"), steps=4, interval=4)

    (told,) = (message for message in log if "in another way" in message)
    assert " devices: 2 -> 1" in told and " batch_size: 2 -> 1" in told
    last = tmp_path / "run/checkpoints/step=4.ckpt"
    phases = torch.load(last, weights_only=True)["coralbay"]["phases"]
    assert [(phase["from_step"], phase["devices"]) for phase in phases] == [(0, 2), (3, 1)]
    export.export(str(last), str(tmp_path / "encoder"))
    assert "devices: 2 -> 1" in (tmp_path / "encoder/README.md").read_text()


def test_what_goes_on_as_it_was_has_one_phase(undisturbed: pathlib.Path) -> None:
    content = torch.load(undisturbed / "checkpoints/step=3.ckpt", weights_only=True)
    assert [phase["from_step"] for phase in content["coralbay"]["phases"]] == [0]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SLURM_NTASKS": "8"}, "8 tasks, but this process was started without `srun`"),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_ID": "0"}, "set `--ntasks-per-node`"),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_ID": "0", "SLURM_NTASKS_PER_NODE": "8"}, None),
        ({"SLURM_NTASKS": "8", "TORCHELASTIC_RUN_ID": "1"}, None),
        ({"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "bash"}, None),
        ({"SLURM_NTASKS": "1"}, None),
        ({}, None),
    ],
)
def test_tasks_of_slurm_that_were_not_started_are_an_error(
    environment: dict[str, str], message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if message is None:
        trainer_lib.check_launch()
        return
    with pytest.raises(EvaCoralbayError, match=message):
        trainer_lib.check_launch()


@pytest.mark.slow
def test_goes_on_after_kill_9(store: str, tmp_path: pathlib.Path) -> None:
    options = {"store": f'"{store}"', "steps": 5}
    through, resumed = tmp_path / "through", tmp_path / "resumed"
    assert _start(out=f'"{through}"', **options).wait() == 0
    process = _start(out=f'"{resumed}"', workers=2, **options)
    _wait_for(process, resumed / "checkpoints/step=1.ckpt")
    time.sleep(1.0)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    _wait_for_workers(process)
    assert _start(out=f'"{resumed}"', workers=1, **options).wait() == 0
    _assert_equal(through, resumed, step=5)


@pytest.mark.slow
@pytest.mark.parametrize("balance", ["centering", "sinkhorn_knopp"])
def test_two_processes_are_one_with_the_joint_batch(
    store: str, tmp_path: pathlib.Path, balance: str
) -> None:
    """The gradient, within 1e-5 of its largest entry, and the center; all state on both ranks."""
    options = {
        "store": f'"{store}"', "steps": 2, "balance": f'"{balance}"', "drop_path_rate": 0.0,
    }  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    assert _start(out=f'"{one}"', batch_size=4, **options).wait() == 0
    assert _start(out=f'"{two}"', batch_size=2, devices=2, **options).wait() == 0
    for rank in (0, 1):
        runs.assert_same_gradient(two, one, rank=rank)
    first, second = (runs.read_rank(two, "state", rank) for rank in (0, 1))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0, msg=name)
    weight = "encoder.swinViT.patch_embed.proj.weight"
    _, untrained, _ = runs.build(store=store, out=str(tmp_path))
    untrained.build(num_scans=3)
    assert not torch.equal(first[f"teacher.{weight}"], untrained.state_dict()[f"teacher.{weight}"])
    if balance == "centering":
        center = runs.read_rank(one, "state")["targets.center"]
        assert center.abs().max() > 0.01
        torch.testing.assert_close(first["targets.center"], center, rtol=0, atol=1e-5)
