"""Tests that a loop without Lightning takes the steps of the trainer."""

import itertools
import pathlib

import pandas as pd
import torch
from torch.utils import data as torch_data

from eva_coralbay.pretraining import Distillation, PretrainingData
from eva_coralbay.pretraining.masking import Masking
from eva_coralbay.pretraining.plain_loop import PlainLoop
from tests.eva_coralbay.pretraining import runs, stores

_OPTIONS = {
    "balance": "sinkhorn_knopp",
    "queue_size": 8,
    "clip_by": "parameter",
    "masking": Masking(num_prototypes=16),
    "momentum_batch": 4,
}


def test_takes_the_steps_of_the_trainer(tmp_path: pathlib.Path) -> None:
    """The losses, the weights and what is balanced, to the last bit."""
    store = stores.write_store(tmp_path / "store", cases=2)
    trained = runs.train(store=store, out=str(tmp_path / "run"), steps=2, batch_size=2, **_OPTIONS)

    data = PretrainingData(store=store, views=stores.VIEWS, batch_size=2)
    _, module, _ = runs.build(
        store=store, out=str(tmp_path / "unused"), steps=2, batch_size=2, **_OPTIONS
    )
    assert isinstance(module, Distillation)
    module.build(num_scans=2)
    loop = PlainLoop(module, views=stores.VIEWS, batch_size=2, steps=2)
    loop.start(data.probe_batch(2))
    regions = data.regions()
    numbers = itertools.count()
    batches = (
        torch_data.default_collate([regions.read(n) for n in itertools.islice(numbers, 2)])
        for _ in itertools.count()
    )
    found = [{name: float(value) for name, value in losses.items()} for losses in loop.run(batches)]

    logged = pd.read_csv(tmp_path / "run/metrics.csv", float_precision="round_trip")
    logged = logged.groupby("step").last()
    for name in ("loss", "kl", "masked", "grad_norm"):
        assert [losses[name] for losses in found] == logged[f"train/{name}"].tolist()
    for (name, value), (other, expected) in zip(
        module.state_dict().items(), trained.state_dict().items(), strict=True
    ):
        assert name == other
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
