"""Tests of a step of the distillation."""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import json
import math
import pathlib
import shutil
from typing import Any

import lightly.models.utils as lightly_utils
import pytest
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.plugins import precision

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import CoralBayEncoder, zoo
from eva_coralbay.pretraining import export, networks
from eva_coralbay.pretraining.distillation import Losses, Progress
from eva_coralbay.pretraining.module import Distillation
from eva_coralbay.pretraining.schedules import Schedule
from tests.eva_coralbay.pretraining import runs, stores


@pytest.fixture(name="store", scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return stores.write_store(tmp_path_factory.mktemp("store"))


class _Spoiler(callbacks.Callback):
    """Makes the gradient infinite at some steps, and keeps what follows."""

    def __init__(self, steps: tuple[int, ...]) -> None:
        self._steps = steps
        self.weights: list[torch.Tensor] = []
        self.encoders: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        parameter = pl_module.student.encoder.encoder1.layer.conv1.conv.weight
        if trainer.global_step in self._steps:
            assert parameter.grad is not None
            parameter.grad[:] = math.nan

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        both = (pl_module.student, pl_module.teacher)
        self.weights.append(
            torch.cat([p.detach().flatten().clone() for n in both for p in n.parameters()])
        )
        states = pl_module.student.encoder.state_dict()
        self.encoders.append({name: value.clone() for name, value in states.items()})


def _built(**options) -> Distillation:
    module = Distillation(feature_size=12, num_prototypes=32, head_dims=(16, 16, 8), **options)
    module.build(num_scans=3)
    return module


def test_the_teacher_begins_as_the_student() -> None:
    module = _built()
    for one, other in zip(module.teacher.parameters(), module.student.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
        assert other.requires_grad and not one.requires_grad


def test_the_seed_decides_the_weights() -> None:
    first, second, other = _built(seed=1), _built(seed=1), _built(seed=2)
    key = "student.encoder.swinViT.patch_embed.proj.weight"
    torch.testing.assert_close(first.state_dict()[key], second.state_dict()[key], rtol=0, atol=0)
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])


def test_the_teacher_follows_as_in_lightly() -> None:
    teacher, student = torch.nn.Linear(5, 4), torch.nn.Linear(5, 4)
    expected = copy.deepcopy(teacher)
    lightly_utils.update_momentum(student, expected, m=0.9)
    networks.follow(teacher, student, momentum=0.9)
    torch.testing.assert_close(teacher.weight, expected.weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(teacher.bias, expected.bias, rtol=0, atol=1e-6)


def test_biases_norms_and_position_biases_do_not_decay() -> None:
    module = _built()
    groups = {group["decays"]: group["params"] for group in networks.group_parameters(module)}
    assert sum(len(group) for group in groups.values()) == len(list(module.student.parameters()))
    names = {id(value): name for name, value in module.named_parameters()}
    free = {names[id(value)] for value in groups[False]}
    assert any(name.endswith("relative_position_bias_table") for name in free)
    assert all(
        name.endswith((".bias", "relative_position_bias_table")) or ".norm" in name for name in free
    )
    assert all(value.ndim > 1 for value in groups[True])


@pytest.mark.parametrize(("scans", "prototypes"), [(65, 1024), (500, 4096), (11000, 16384)])
def test_the_number_of_prototypes_follows_from_the_scans(scans: int, prototypes: int) -> None:
    module = Distillation(feature_size=12, head_dims=(16, 16, 8))
    module.build(num_scans=scans)
    assert module.num_prototypes == module.student.head.prototypes.shape[0] == prototypes


def test_last_trains_the_last_stage_only() -> None:
    module = _built(scales="last")
    assert module.student.head.perceptron[0].in_features == 16 * 12
    unused = {
        name.split(".")[1]
        for name, value in module.student.named_parameters()
        if name.startswith("encoder.") and not value.requires_grad
    }
    assert unused == {"encoder1", "encoder2", "encoder3", "encoder4"}


def test_a_training(store: str, tmp_path: pathlib.Path) -> None:
    before = _built(freeze_prototypes_steps=1).state_dict()
    module = runs.train(
        store=store,
        out=str(tmp_path),
        steps=2,
        batch_size=2,
        momentum=Schedule(0.9, 0.9, 0.9),
        koleo_weight=0.1,
    )
    after = module.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    key = "encoder.swinViT.patch_embed.proj.weight"
    moved = (after[f"student.{key}"] - before[f"student.{key}"]).abs().max()
    followed = (after[f"teacher.{key}"] - before[f"teacher.{key}"]).abs().max()
    assert 0 < followed < moved
    assert module.center.abs().max() > 0
    paths = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert paths == ["step=1.ckpt", "step=2.ckpt"]
    content = torch.load(tmp_path / "checkpoints/step=2.ckpt", weights_only=True)
    assert content["coralbay"]["num_prototypes"] == 32
    assert content["coralbay"]["summary"]["train/loss"] > 0
    assert str(tmp_path) not in str(content["coralbay"])


def test_accumulated_batches_are_as_one(store: str, tmp_path: pathlib.Path) -> None:
    """All of them are centered by one center, which moves at the end of the step.

    The tolerance is for kernels that round another way for another batch: on some processors the
    gradient of the first layer differs by 5e-4 of the largest one. A gradient that is not the mean
    over the batches differs by one half.
    """
    joint, apart = tmp_path / "joint", tmp_path / "apart"
    for out, batch_size, accumulate in ((joint, 2, 1), (apart, 1, 2)):
        runs.train(
            store=store, out=str(out), steps=1, batch_size=batch_size, accumulate=accumulate,
            drop_path_rate=0.0, callbacks=[runs.Ranks(str(out))],
        )  # fmt: skip
    runs.assert_same_gradient(apart, joint, tolerance=3e-3)
    found, center = (runs.read_rank(out, "state")["targets.center"] for out in (apart, joint))
    torch.testing.assert_close(found, center, rtol=0, atol=1e-6)


def test_koleo_takes_two_samples(store: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="takes a `batch_size` of at least 2, not 1"):
        runs.train(store=store, out=str(tmp_path), steps=1, koleo_weight=0.1)


def test_a_queue_is_for_sinkhorn_knopp() -> None:
    with pytest.raises(EvaCoralbayError, match="`queue_size: 8` is for `balance: sinkhorn_knopp`"):
        Distillation(queue_size=8)


def test_with_sinkhorn_knopp_no_more_prototypes_than_what_is_balanced() -> None:
    module = Distillation(
        feature_size=12, head_dims=(16, 16, 8), balance="sinkhorn_knopp", queue_size=24
    )
    module.build(num_scans=11000, batch_size=4)
    assert module.num_prototypes == 2 * 4 + 24


@pytest.mark.parametrize(("batch", "momentum"), [(256, 0.9995), (512, 0.9995**2), (8, 0.99998437)])
def test_the_momentum_follows_from_the_batch(batch: int, momentum: float) -> None:
    module = Distillation(
        feature_size=12,
        head_dims=(16, 16, 8),
        num_prototypes=32,
        balance="sinkhorn_knopp",
        momentum=Schedule(0.9995, 0.9995, 0.9995),
        momentum_batch=256,
    )
    module.build(num_scans=3)
    module.progress = Progress(step=3, steps=10, effective_batch=batch, views=stores.VIEWS)
    torch.nn.init.zeros_(module.teacher.head.prototypes)
    torch.nn.init.ones_(module.student.head.prototypes)
    module.end_step()
    moved = module.teacher.head.prototypes.flatten().tolist()
    assert moved == pytest.approx([1 - momentum] * len(moved), rel=1e-3)


def test_starts_from_given_weights_and_warms_the_heads(store: str, tmp_path: pathlib.Path) -> None:
    torch.manual_seed(1)
    given = CoralBayEncoder(feature_size=12)
    given.save_pretrained(tmp_path / "given")
    module = runs.train(
        store=store,
        out=str(tmp_path / "run"),
        steps=2,
        init_from=str(tmp_path / "given"),
        warm_heads_steps=1,
        callbacks=[spoiler := _Spoiler(steps=())],
    )
    first = spoiler.encoders[0]
    for name, value in given.state_dict().items():
        torch.testing.assert_close(first[name], value, rtol=0, atol=0)
    key = "swinViT.patch_embed.proj.weight"
    assert not torch.equal(spoiler.encoders[1][key], first[key])
    assert module.describe_data(module.data)["init_from_sha256"]
    assert str(tmp_path) not in str(module.describe_data(module.data))


def test_refuses_given_weights_of_another_size(tmp_path: pathlib.Path) -> None:
    given = CoralBayEncoder(feature_size=24)
    given.save_pretrained(tmp_path / "given")
    with pytest.raises(ValueError, match="feature_size 24 and the encoder 12"):
        _built(init_from=str(tmp_path / "given"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("radiology/voco_b", "radiology/voco_b has feature_size=48"),
        ("radiology/ct_fm", "radiology/ct_fm is not a CoralBayEncoder, but a .*radiology/voco_b"),
        ("radiology/coralbay_random", "'radiology/coralbay_random', which has random weights"),
        ("radiology/voco_bb", "no model 'radiology/voco_bb'. Did you mean radiology/voco_b"),
    ],
)
def test_refuses_names_that_are_not_of_the_network(name: str, message: str) -> None:
    """A name is an entry of the zoo, whose network must be the one that is trained."""
    with pytest.raises(ValueError, match=message):
        _built(init_from=name)


def test_starts_from_the_zoo_by_name(
    store: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published Swin encoders merge patches as older MONAI does, and some have no blocks."""
    arguments = {"feature_size": 12, "use_v2": False, "patch_merging": "legacy"}
    given = CoralBayEncoder(**arguments)
    given.save_pretrained(tmp_path / "given")
    weights = (tmp_path / "given/model.safetensors").read_bytes()
    entry = dataclasses.replace(
        zoo.ENTRIES["radiology/suprem_swin_unetr"],
        name="radiology/toy",
        arguments=arguments,
        weights=str(tmp_path / "given"),
        keys=None,
        sha256=hashlib.sha256(weights).hexdigest(),
    )
    monkeypatch.setattr(zoo, "ENTRIES", {**zoo.ENTRIES, entry.name: entry})
    module = runs.train(
        store=store,
        out=str(tmp_path / "run"),
        steps=2,
        freeze_prototypes_steps=1,
        init_from=entry.name,
        callbacks=[spoiler := _Spoiler(steps=())],
    )
    key = "swinViT.patch_embed.proj.weight"
    first, second = (state[key] for state in spoiler.encoders)
    assert torch.equal(first, given.state_dict()[key]), "the heads are warmed"
    assert not torch.equal(second, first)
    assert module.describe_data(module.data)["encoder"].items() >= arguments.items()

    export.export(str(tmp_path / "run/checkpoints/step=2.ckpt"), str(tmp_path / "encoder"))
    card = (tmp_path / "encoder/README.md").read_text()
    assert f"from `radiology/toy` (SHA-256 `{entry.sha256}`)" in card
    assert f"license: {entry.license}" in card and "known to be among these: " in card

    # it goes on without the weights that it has started from, as the checkpoint has all
    shutil.rmtree(tmp_path / "given")
    resumed = runs.train(store=store, out=str(tmp_path / "run"), steps=3, freeze_prototypes_steps=1)
    stated = resumed.describe()
    assert stated["encoder"].items() >= arguments.items()
    assert (stated["init_from"], stated["phases"][1]["from_step"]) == (entry.name, 2)
    assert json.loads(stated["config"])["model"]["warm_heads_steps"] == 1


def test_refuses_to_train_the_heads_alone() -> None:
    module = _built(warm_heads_steps=10)
    with pytest.raises(EvaCoralbayError, match=r"WARM_HEADS_STEPS\) is 10, and there are 10 steps"):
        module.settle_warm_up(10)


def test_prototypes_are_frozen_first(store: str, tmp_path: pathlib.Path) -> None:
    before = _built().student.head.prototypes.detach().clone()
    module = runs.train(store=store, out=str(tmp_path), steps=1, freeze_prototypes_steps=1)
    torch.testing.assert_close(module.student.head.prototypes.detach(), before, rtol=0, atol=0)


def test_leaves_out_a_step_that_is_not_finite(store: str, tmp_path: pathlib.Path) -> None:
    spoiler = _Spoiler(steps=(1,))
    module = runs.train(store=store, out=str(tmp_path), steps=3, callbacks=[spoiler])
    first, second, third = spoiler.weights
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(second, third)
    assert module.describe()["nonfinite_steps"] == 1


def test_refuses_half_precision_on_a_cpu(store: str, tmp_path: pathlib.Path) -> None:
    """The gradient of a 3x3x3 convolution of 2x2x2 voxels is wrong by orders of magnitude."""
    trainer, module, data = runs.build(store=store, out=str(tmp_path), steps=1)
    trainer.strategy.precision_plugin = precision.MixedPrecision("bf16-mixed", "cpu")
    with pytest.raises(EvaCoralbayError, match="bf16-mixed .* PRECISION=32-true"):
        trainer.fit(module, datamodule=data)


class _Overflow(callbacks.Callback):
    """Makes scaled gradients infinite at some steps, as those of 16 bits get; or losses, too."""

    def __init__(self, steps: tuple[int, ...], *, loss: bool = False) -> None:
        self._steps, self._loss = steps, loss
        self.scales: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        compute_losses = type(pl_module).compute_losses

        def compute_infinite_losses(batch: dict[str, Any]) -> Losses:
            losses = compute_losses(pl_module, batch)
            return losses._replace(total=losses.total * math.inf)

        is_infinite = self._loss and trainer.global_step in self._steps
        pl_module.compute_losses = (
            compute_infinite_losses if is_infinite else functools.partial(compute_losses, pl_module)
        )

    def on_after_backward(self, trainer, pl_module) -> None:
        if trainer.global_step in self._steps:
            gradient = pl_module.student.encoder.encoder1.layer.conv1.conv.weight.grad
            assert gradient is not None
            gradient[:] = math.inf

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        self.scales.append(trainer.precision_plugin.scaler.get_scale())


@pytest.mark.parametrize(("is_loss", "counted"), [(False, 0), (True, 1)])
def test_an_overflow_of_the_scaler_is_no_step_without_a_finite_gradient(
    store: str, tmp_path: pathlib.Path, is_loss: bool, counted: int
) -> None:
    """The scaler leaves the step out and halves its scale, which is how the scale is found."""
    trainer, module, data = runs.build(
        store=store,
        out=str(tmp_path),
        steps=3,
        callbacks=[overflow := _Overflow((1,), loss=is_loss), spoiler := _Spoiler(steps=())],
        interval=10,
    )
    plugin = precision.MixedPrecision("bf16-mixed", "cpu")
    plugin.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    # it is the scaler that is tested, and CPUs compute little in 16 bits
    plugin.forward_context = contextlib.nullcontext
    plugin.precision = "32-true"
    trainer.strategy.precision_plugin = plugin
    trainer.fit(module, datamodule=data)
    assert module.describe()["nonfinite_steps"] == counted
    assert overflow.scales == [1024.0, 512.0, 512.0]
    first, second, third = spoiler.weights
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(second, third)


def test_stops_after_too_many_of_them_and_names_the_cases(
    store: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(EvaCoralbayError, match="case_"):
        runs.train(
            store=store,
            out=str(tmp_path),
            max_nonfinite_steps=1,
            callbacks=[_Spoiler(steps=(0, 1))],
        )
