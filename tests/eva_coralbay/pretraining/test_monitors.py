"""Tests that the monitors say what they are meant to."""

import math
import pathlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import callbacks
from torch.nn import functional

from eva_coralbay.data import phantom
from eva_coralbay.pretraining import Monitors, curves, loss, monitors, neighbors
from eva_coralbay.pretraining.monitors import find_collapse
from eva_coralbay.pretraining.schedules import Schedule
from tests.eva_coralbay.pretraining import runs, stores

_K = 64
_LN_K = math.log(_K)


def _describe(logits: torch.Tensor, probs: torch.Tensor, *, rank: float = 8.0) -> dict[str, float]:
    """Returns the monitors of a teacher, of batches of shape [N, 2, B, K]."""
    statistics = monitors.TeacherStatistics()
    for logits_of_batch, probs_of_batch in zip(logits, probs, strict=True):
        statistics.add(logits_of_batch, probs_of_batch)
    values = {"ln_k": _LN_K, "rank_me": rank, "rank_me_start": 10.0, "progress": 0.5}
    return {**statistics.describe(), **values}


def _targets(logits: torch.Tensor, balance: str, *, temperature: float) -> torch.Tensor:
    """Returns the targets of batches [N, 2, B, K], as those of a training are."""
    targets = loss.Centering(_K, momentum=0.5) if balance == "centering" else loss.SinkhornKnopp(_K)
    probs = []
    for batch in logits:
        probs.append(targets(batch, temperature=temperature))
        targets.end_step()
    return torch.stack(probs)


def _constant(noise: float) -> torch.Tensor:
    """Returns what a teacher says that says the same of all, but for noise."""
    generator = torch.Generator().manual_seed(0)
    one = functional.normalize(torch.randn(_K, generator=generator), dim=0)
    return one + noise * torch.randn(60, 2, 4, _K, generator=generator)


def _healthy(agreement: float) -> torch.Tensor:
    """Returns what a teacher says whose two views agree to a part."""
    generator = torch.Generator().manual_seed(0)
    sample, views = (torch.randn(60, n, 4, _K, generator=generator) for n in (1, 2))
    return 0.1 * (agreement**0.5 * sample + (1.0 - agreement) ** 0.5 * views)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), sharpness=st.floats(0.0, 50.0))
def test_entropies_are_ordered(seed: int, sharpness: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    probs = functional.softmax(sharpness * torch.randn(30, _K, generator=generator), dim=-1)
    each = float(loss.entropy(probs))
    of_mean = float(loss.entropy(probs.mean(dim=0)))
    assert -1e-6 <= each <= of_mean + 1e-5 <= _LN_K + 1e-4


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_rank_me_of_orthogonal_directions_is_their_number(rank: int) -> None:
    basis = torch.linalg.qr(torch.randn(20, rank)).Q
    points = torch.linalg.qr(torch.randn(50, rank)).Q @ basis.T
    assert float(monitors.rank_me(points)) == pytest.approx(rank, rel=1e-4)
    rotation = torch.linalg.qr(torch.randn(20, 20)).Q
    assert float(monitors.rank_me(3.0 * points @ rotation)) == pytest.approx(rank, rel=1e-4)


def test_hu_consistency() -> None:
    points = torch.linalg.qr(torch.randn(12, 12)).Q + 5.0
    same = monitors.hu_consistency(points, points)
    assert same.same == pytest.approx(1.0, abs=1e-4) and same.retrieval == 1.0
    assert same.different == pytest.approx(-1.0 / 11.0, abs=1e-3)
    mixed = monitors.hu_consistency(points, points.roll(1, dims=0))
    assert mixed.retrieval == 0.0 and mixed.same < 0.0


@pytest.mark.parametrize("balance", ["centering", "sinkhorn_knopp"])
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03, 0.1])
def test_a_constant_teacher_raises_an_alarm(noise: float, balance: str) -> None:
    """Noise spreads its targets over all prototypes, so their entropies do not show it."""
    logits = _constant(noise)
    probs = _targets(logits, balance, temperature=0.04)
    found = find_collapse(_describe(logits[10:], probs[10:]))
    assert "constant teacher" in found
    if noise == 0.1:
        assert set(found) == {"constant teacher"}


@pytest.mark.parametrize("balance", ["centering", "sinkhorn_knopp"])
@pytest.mark.parametrize("agreement", [0.1, 0.5, 1.0])
def test_a_healthy_teacher_raises_none(agreement: float, balance: str) -> None:
    logits = _healthy(agreement)
    values = _describe(logits, _targets(logits, balance, temperature=0.04))
    assert values["view_agreement"] == pytest.approx(agreement, abs=0.03)
    assert not find_collapse(values)


def test_a_uniform_teacher_raises_an_alarm() -> None:
    logits = 0.01 * _healthy(0.5)
    probs = _targets(logits, "centering", temperature=0.07)
    assert set(find_collapse(_describe(logits, probs))) == {"uniform"}


def test_a_single_prototype_raises_an_alarm() -> None:
    """Its logits still tell samples apart, but the targets do not."""
    logits = _healthy(0.5)
    logits[..., 7] += 1.0
    probs = functional.softmax(logits / 0.04, dim=-1)
    assert set(find_collapse(_describe(logits, probs))) == {"single prototype"}


@pytest.mark.parametrize(("rank", "is_lost"), [(1.2, True), (1.9, True), (4.5, False)])
def test_lost_directions_raise_an_alarm(rank: float, is_lost: bool) -> None:
    logits = _healthy(0.5)
    values = _describe(logits, _targets(logits, "centering", temperature=0.04), rank=rank)
    assert set(find_collapse(values)) == ({"dimensional"} if is_lost else set())


def test_an_untrained_teacher_has_time_to_learn() -> None:
    logits = _constant(0.1)
    values = _describe(logits, _targets(logits, "sinkhorn_knopp", temperature=0.04))
    assert not find_collapse({**values, "progress": 0.2})


def test_no_alarm_before_there_is_evidence() -> None:
    """A training of two steps cannot have collapsed, whatever part of its steps is done."""
    logits = 0.01 * _healthy(0.5)
    probs = _targets(logits, "centering", temperature=0.07)
    values = {**_describe(logits, probs, rank=1.0), "progress": 1.0}
    assert not find_collapse({**values, "steps": 19})
    assert set(find_collapse({**values, "steps": 20})) == {"uniform", "dimensional"}


def test_batches_of_one_sample_say_nothing_of_the_agreement() -> None:
    logits = _healthy(0.5)[:, :, :1]
    values = _describe(logits, functional.softmax(logits / 0.04, dim=-1))
    assert "view_agreement" not in values and "teacher_entropy" in values


def test_a_batch_that_is_not_finite_is_left_out() -> None:
    logits = _healthy(0.5)
    probs = functional.softmax(logits / 0.04, dim=-1)
    expected = _describe(logits[:-1], probs[:-1])
    logits[-1, 0, 0, 0] = math.nan
    assert _describe(logits, probs) == pytest.approx(expected, rel=1e-4)


class _Teacher(callbacks.Callback):
    """Gives a training a teacher that has a fault, or one that says the same of both views."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def on_train_start(self, trainer, pl_module) -> None:
        teacher = pl_module.teacher
        head, encoder = teacher.head.forward, teacher.encoder.forward
        if self._kind == "uniform":
            teacher.head.forward = lambda embeddings: 1e-4 * head(embeddings)
        elif self._kind == "constant teacher":
            teacher.head.forward = lambda embeddings: head(0.0 * embeddings)
        elif self._kind == "healthy":
            teacher.head.forward = lambda embeddings: head(embeddings).chunk(2)[0].repeat(2, 1)
        else:
            teacher.encoder.forward = lambda views: torch.ones_like(encoder(views))


@pytest.mark.parametrize(
    "kind",
    [
        "constant teacher",
        "healthy",
        pytest.param("uniform", marks=pytest.mark.slow),
        pytest.param("dimensional", marks=pytest.mark.slow),
    ],
)
def test_the_log_names_the_fault_of_a_teacher(
    kind: str, tmp_path: pathlib.Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # so that seconds are enough
    monkeypatch.setattr(monitors, "MIN_STEPS", 2)
    store = stores.write_store(tmp_path / "store", cases=3)
    watching = Monitors(every_n_steps=2, num_probes=3)
    runs.train(
        store=store,
        out=str(tmp_path / "run"),
        steps=2,
        batch_size=2,
        interval=10,
        balance="sinkhorn_knopp",
        teacher_temperature=Schedule(0.02, 0.02, 0.02),
        callbacks=[watching, _Teacher(kind)],
    )
    named = {line.split("(")[1].split(")")[0] for line in log if "Collapse" in line}
    assert (kind in named) if kind != "healthy" else not named


def test_a_training_with_monitors(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "NUM_CROPS", 1)
    labeled = str(tmp_path / "phantom")
    phantom.write_dataset(
        labeled, cases=3, val_cases=2, shape=(24, 24, 24), spacing_mm=(13.0, 18.0, 18.0)
    )
    description = {
        "class_path": "eva_coralbay.data.datasets.NnUNet",
        "init_args": {"root": labeled, "prepared": False},
    }
    store = stores.write_store(tmp_path / "store", cases=2)
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    first = runs.train(store=store, out=str(plain), steps=2)
    second = runs.train(
        store=store,
        out=str(watched),
        steps=2,
        callbacks=[Monitors(every_n_steps=2, num_probes=3, knn=description)],
    )
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)

    metrics = curves.read_metrics(str(watched))
    assert metrics["monitor/hu_consistency"].notna().tolist() == [True, True]
    # the first value is that of the untrained encoder
    assert metrics["monitor/rank_me"].iloc[0] == metrics["monitor/rank_me_start"].iloc[0]
    assert (metrics["train/kl"] < metrics["train/loss"]).all()
    assert metrics["monitor/rank_me_1_32"].iloc[-1] >= 1.0
    assert 0.0 <= metrics["monitor/knn_accuracy"].iloc[-1] <= 1.0
    assert (metrics["monitor/teacher_entropy"] <= math.log(32) + 1e-4).all()
    assert (metrics["monitor/compute_seconds"] > 0).all()
    assert (watched / "curves.png").stat().st_size > 10_000
    content = torch.load(watched / "checkpoints/step=2.ckpt", weights_only=True)
    assert content["coralbay"]["summary"]["monitor/prototypes_used"] >= 1.0
