"""Tests that what a training takes is stated as it is."""

import pathlib

import pytest
import torch
from torch import profiler

from eva_coralbay.models import CoralBayEncoder, checkpoints
from eva_coralbay.pretraining import dry_run, export
from eva_coralbay.pretraining.views import Views
from tests.eva_coralbay.pretraining import runs, stores

_FORWARD_96, _FORWARD_48 = 264e9, 34e9
"""The operations of an encoder of feature size 48 on a view of 96 and of 48 voxels an edge."""

_FACTOR = 1.5
"""How far the stated memory may be from what a step on a CPU allocates."""


@pytest.fixture(name="store", scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return stores.write_store(tmp_path_factory.mktemp("store"))


def _allocate(encoder: CoralBayEncoder, views: Views) -> int:
    """Returns the most bytes that a step on a CPU allocates at a time, without gradients."""
    for parameter in encoder.parameters():
        parameter.register_post_accumulate_grad_hook(lambda weight: setattr(weight, "grad", None))
    with profiler.profile(
        activities=[profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        crops = [torch.rand(2, 1, *(views.global_size,) * 3)]
        crops += [torch.rand(views.num_locals, 1, *(views.local_size,) * 3)]
        torch.cat([encoder(crop) for crop in crops]).sum().backward()
    results = profile.profiler.kineto_results  # type: ignore[reportOptionalMemberAccess]  # there after a profile
    memory = [event for event in results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(memory, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def test_operations_of_the_full_recipe() -> None:
    cost = dry_run.measure(CoralBayEncoder(feature_size=48), Views())
    forward = 2 * _FORWARD_96 + 8 * _FORWARD_48
    assert cost.flops == pytest.approx(3 * forward + 2 * _FORWARD_96, rel=0.05)


def test_operations_and_memory_grow_with_the_samples() -> None:
    encoder = CoralBayEncoder(feature_size=12)
    one, two, three = (dry_run.measure(encoder, stores.VIEWS, samples=n) for n in (1, 2, 3))
    assert two.flops == pytest.approx(2 * one.flops)
    # the biases of the attention are the same for all samples, and the peak moves with their number
    assert 0 < two.memory - one.memory <= three.memory - two.memory
    assert three.memory < 3 * one.memory


@pytest.mark.parametrize("recomputes", [False, True])
def test_memory_is_that_of_a_real_step(recomputes: bool) -> None:
    encoder = CoralBayEncoder(feature_size=12, activation_checkpointing=recomputes)
    stated = dry_run.measure(encoder, stores.VIEWS).memory
    allocated = _allocate(encoder, stores.VIEWS)
    assert allocated / _FACTOR < stated < allocated * _FACTOR


def test_half_the_bits_and_recomputation_save_memory() -> None:
    plain = dry_run.measure(CoralBayEncoder(feature_size=12), stores.VIEWS)
    half = dry_run.measure(CoralBayEncoder(feature_size=12), stores.VIEWS, dtype=torch.bfloat16)
    recomputed = dry_run.measure(
        CoralBayEncoder(feature_size=12, activation_checkpointing=True), stores.VIEWS
    )
    assert half.flops == plain.flops < recomputed.flops
    assert half.memory < 0.7 * plain.memory
    assert recomputed.memory < plain.memory


def test_operations_of_the_head_are_those_of_its_layers(store: str, tmp_path: pathlib.Path) -> None:
    _, model, _ = runs.build(store=store, out=str(tmp_path))
    model.build(num_scans=3)
    layers = 288 * 16 + 16 * 16 + 16 * 8 + 8 * 32
    stated = dry_run.count_head_flops(model.student.head, stores.VIEWS)
    assert stated == pytest.approx(2 * layers * (3 * 3 + 2), rel=0.02)


def test_states_what_a_training_takes(store: str, tmp_path: pathlib.Path) -> None:
    built = runs.build(store=store, out=str(tmp_path / "run"), steps=10, batch_size=2, accumulate=3)
    rows = dict(dry_run.describe(*built, tflops=2e-5).rows)
    assert rows["effective batch"] == "6 (2 a device x 1 devices x 3 accumulated)"
    assert rows["steps"] == "10, 60 samples"
    assert rows["scans"] == "3, each is seen every 0.5 steps"
    assert rows["prototypes"] == "32 (ln K 3.47)"
    _, model, data = built
    flops = dry_run.measure(model.student.encoder, data.views, samples=2).flops / 2
    flops += dry_run.count_head_flops(model.student.head, data.views)
    hours = {name: value for name, value in rows.items() if name.startswith("hours")}
    assert hours == {"hours at 2e-05 TFLOP/s a device": f"{60 * flops / 2e7 / 3600:,.1f}"}
    assert rows["export"].startswith("loads")


def test_an_export_that_does_not_load_is_an_error(
    store: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise checkpoints.CheckpointError("differs")

    monkeypatch.setattr(export, "prove", fail)
    with pytest.raises(checkpoints.CheckpointError, match="differs"):
        dry_run.describe(*runs.build(store=store, out=str(tmp_path)))
