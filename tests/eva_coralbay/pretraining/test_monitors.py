"""Tests that the monitors say what they are meant to."""

import math
import pathlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from eva_coralbay.data import phantom
from eva_coralbay.pretraining import Monitors, curves, monitors, neighbors
from eva_coralbay.pretraining.monitors import find_collapse
from tests.eva_coralbay.pretraining import runs, stores

_K = 64
_LN_K = math.log(_K)


def _describe(probs: torch.Tensor, embeddings: torch.Tensor) -> dict[str, float]:
    return {
        "ln_k": _LN_K,
        "teacher_entropy": float(monitors.teacher_entropy(probs)),
        "mean_entropy": float(monitors.teacher_entropy(probs.mean(dim=0))),
        "prototypes_used": float(len(probs.argmax(dim=1).unique())),
        "rank_me": float(monitors.rank_me(embeddings)),
    }


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), sharpness=st.floats(0.0, 50.0))
def test_entropies_are_ordered(seed: int, sharpness: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    probs = functional.softmax(sharpness * torch.randn(30, _K, generator=generator), dim=-1)
    each = float(monitors.teacher_entropy(probs))
    of_mean = float(monitors.teacher_entropy(probs.mean(dim=0)))
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


@pytest.mark.parametrize(
    ("kind", "logits", "directions"),
    [
        ("uniform", torch.zeros(40, _K), 8),
        ("single prototype", 100.0 * functional.one_hot(torch.zeros(40).long(), _K).float(), 8),
        ("dimensional", 10.0 * torch.eye(_K), 1),
        (None, 10.0 * torch.eye(_K), 8),
    ],
)
def test_finds_the_kind_of_a_collapse(
    kind: str | None, logits: torch.Tensor, directions: int
) -> None:
    embeddings = torch.randn(40, directions) @ torch.randn(directions, 20)
    found = find_collapse(_describe(functional.softmax(logits, dim=-1), embeddings))
    assert set(found) == ({kind} if kind else set())


def test_a_training_with_monitors(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "_CROPS", 1)
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
    assert metrics["monitor/rank_me_1_32"].iloc[-1] >= 1.0
    assert 0.0 <= metrics["monitor/knn_accuracy"].iloc[-1] <= 1.0
    assert (metrics["monitor/teacher_entropy"] <= math.log(32) + 1e-4).all()
    assert (metrics["monitor/compute_seconds"] > 0).all()
    assert (watched / "curves.png").stat().st_size > 10_000
    content = torch.load(watched / "checkpoints/step=2.ckpt", weights_only=True)
    assert content["coralbay"]["summary"]["monitor/prototypes_used"] >= 1.0
