"""How much the two global views of a sample have in common for an untrained teacher.

The agreement is the correlation r of the teacher's logits of the two views over samples
(`monitors.view_covariance`). It is the signal that self-distillation starts from: where r times the
ratio of the temperatures is below 1, the teacher becomes uniform before anything is learned.

    python benchmarks/view_agreement.py STORE

The store is one of `eva-coralbay pretrain prepare` at 3 mm. Sizes are those of `quickstart.yaml`.
"""

import argparse
import dataclasses
import itertools
from typing import Any

import torch
from torch.utils import data as torch_data

from eva_coralbay.pretraining import Distillation, PretrainingData, monitors
from eva_coralbay.pretraining.networks import Scales
from eva_coralbay.pretraining.plain_loop import PlainLoop
from eva_coralbay.pretraining.views import Views

_VIEWS = Views(
    global_size=42, local_size=33, num_locals=0, global_edge=(48, 64), local_edge=(28, 44),
    region_size=64,
)  # fmt: skip

_APART = dataclasses.replace(_VIEWS, region_size=96, max_global_overlap=0.5)
"""Views that overlap by half at most."""

_SAMPLES, _BATCH, _HEAD_SAMPLES = 48, 8, 16

_FULL = 10**6
"""The number of the first sample with the full augmentation: others have a part of it."""


def main() -> None:
    """Prints r for strengths of the augmentation, overlaps and scales."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("overlap | strength | scales | r")
    for views, strength in itertools.product((_VIEWS, _APART), (1.0, 0.5, 0.0)):
        for scales in ("multi", "last"):
            found = measure(arguments.store, views, strength=strength, scales=scales)
            print(f"{views.max_global_overlap} | {strength} | {scales} | {found:.3f}", flush=True)


@torch.no_grad()
def measure(store: str, views: Views, *, strength: float, scales: Scales) -> float:
    """Returns r over some samples."""
    data = PretrainingData(store=store, views=views, batch_size=_BATCH)
    regions = data.regions(full_augmentation_from=_FULL)
    module = Distillation(
        feature_size=12, num_prototypes=512, head_dims=(512, 512, 128), scales=scales
    )
    module.build(num_scans=len(data.cases))
    loop = PlainLoop(module, views=views, batch_size=_BATCH, steps=1)

    def read(first: int, number: int) -> dict[str, Any]:
        numbers = range(round(strength * _FULL) + first, round(strength * _FULL) + first + number)
        return torch_data.default_collate([regions.read(each) for each in numbers])

    loop.start(read(0, _HEAD_SAMPLES))
    parts = [
        module.compute_losses(read(_HEAD_SAMPLES + start, _BATCH)).teacher_logits
        for start in range(0, _SAMPLES, _BATCH)
    ]
    shared, variance = monitors.view_covariance(torch.cat(parts, dim=1))
    return float(shared / variance)


if __name__ == "__main__":
    main()
