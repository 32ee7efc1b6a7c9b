"""Tests what is said of the work of the models."""

import pytest

from eva_coralbay.models import work, zoo
from tests.eva_coralbay.models import generate_work


def test_every_model_was_counted() -> None:
    for name in zoo.ENTRIES:
        small, large = (work.find(name, "encode", (edge,) * 3) for edge in work.EDGES)
        assert 2.5 < large.tflop / small.tflop < 4.0  # 3.4 times the voxels
        assert work.find(name, "train", (96, 96, 96)).gib > large.gib


@pytest.mark.parametrize("name", ["radiology/suprem_segresnet", "radiology/voxelfm"])
def test_counts_are_those_of_the_generator(name: str) -> None:
    # two whose maps need the convolutions of `PyramidDecoder`; all take the better part of a minute
    entry = zoo.ENTRIES[name]

    counted = generate_work.count(entry, 64)

    assert generate_work.count_decoder(entry) == work.count_decoder_weights(entry.name)
    for kind in ("encode", "segment", "train_decoder", "train"):
        found = work.find(entry.name, kind, (64, 64, 64))
        assert counted[kind]["tflop"] == pytest.approx(found.tflop, rel=1e-6)
        assert counted[kind]["gib"] == pytest.approx(found.gib, rel=0.1)


def test_other_sizes_are_scaled_by_their_voxels() -> None:
    cube, window = (
        work.find("radiology/ct_fm", "encode", size) for size in ((96, 96, 96), (48, 96, 192))
    )

    assert window == cube


def test_coralbay_takes_what_was_measured() -> None:
    # 264 GFLOP for a cube of 96 voxels by PyTorch's own counter
    assert work.find("radiology/coralbay", "encode", (96, 96, 96)).tflop == pytest.approx(
        0.264, rel=0.01
    )
