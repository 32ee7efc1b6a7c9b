"""Tests SPECTRE's two transformers: crops of a scan, and weights in two files."""

import dataclasses
import pathlib
from typing import Any

import pytest
import torch

from eva_coralbay.models import checkpoints, loading, zoo

_NARROW = {"embed_dim": 72, "depth": 1, "num_heads": 4, "combiner_depth": 1}


def _entry(folder: pathlib.Path) -> zoo.Entry:
    """An entry whose network is narrow, with small crops, and whose weights are files."""
    entry = zoo.ENTRIES["radiology/spectre"]
    names = [file.rpartition("#")[2] for file in entry.files]
    return dataclasses.replace(
        entry,
        arguments={**entry.arguments, **_NARROW, "crop_size": (32, 32, 16)},
        weights=str(folder / names[0]),
        more_weights=(str(folder / names[1]),),
    )


@pytest.fixture
def published(tmp_path: pathlib.Path) -> tuple[zoo.Entry, Any]:
    """An entry, and the network whose weights its two files have."""
    entry = _entry(tmp_path)
    network: Any = loading.build(entry, random_weights=True)
    for part, file in zip(network.core.values(), entry.files, strict=True):
        torch.save(part.state_dict(), file)
    return entry, network


@torch.no_grad()
def test_the_embedding_is_of_whole_crops_in_the_middle(tmp_path: pathlib.Path) -> None:
    """As of the original (`LargestMultipleCenterCropd`); the map is of all that patches cover."""
    network: Any = loading.build(_entry(tmp_path), random_weights=True)
    volume = torch.rand(2, 1, 70, 32, 24)

    embedding, (feature_map,) = network.forward_intermediates(volume)

    torch.testing.assert_close(embedding, network(volume[:, :, 3:67, :, 4:20]))
    assert feature_map.shape == (2, 72, 4, 2, 3)
    alone = network.forward_features(volume[:, :, 32:64, :, :16])[0]
    torch.testing.assert_close(feature_map[:, :, 2:, :, :2], alone)


@torch.no_grad()
def test_an_axis_shorter_than_a_crop_is_one_crop(tmp_path: pathlib.Path) -> None:
    network: Any = loading.build(_entry(tmp_path), random_weights=True)

    embedding, (feature_map,) = network.forward_intermediates(torch.rand(1, 1, 16, 16, 8))

    assert embedding.shape == (1, 144) and feature_map.shape == (1, 72, 1, 1, 1)


def test_each_part_has_its_file(published: tuple[zoo.Entry, Any], tmp_path: pathlib.Path) -> None:
    """From where it is published, or from a folder with copies of both."""
    entry, network = published
    elsewhere = dataclasses.replace(
        entry,
        weights=f"absent/x#{pathlib.Path(str(entry.weights)).name}",
        more_weights=(f"absent/x#{pathlib.Path(entry.more_weights[0]).name}",),
    )

    for loaded in (loading.build(entry), loading.build(elsewhere, checkpoint=str(tmp_path))):
        for name, value in loaded.state_dict().items():
            torch.testing.assert_close(value, network.state_dict()[name], rtol=0, atol=0)


def test_the_transformer_of_crops_alone_is_another_encoder(
    published: tuple[zoo.Entry, Any],
) -> None:
    """Its one file is the first of the two, whose remembered hash is that of both."""
    entry, _ = published
    local = dataclasses.replace(
        zoo.ENTRIES["radiology/spectre_local"],
        arguments={
            name: value
            for name, value in entry.arguments.items()
            if name in zoo.ENTRIES["radiology/spectre_local"].arguments
        },
        weights=entry.weights,
    )

    for one in (local, entry, local):
        loading.build(one)


def test_without_a_connection_a_folder_with_both_files_is_asked_for(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    entry = dataclasses.replace(
        _entry(tmp_path), weights="nobody/model#a.pt", more_weights=("nobody/model#b.pt",)
    )
    with pytest.raises(checkpoints.CheckpointError, match="pass a folder with a.pt and b.pt"):
        loading.build(entry)


def test_the_origin_tells_the_second_file_from_another(published: tuple[zoo.Entry, Any]) -> None:
    entry, network = published
    first: Any = loading.build(entry)
    combiner = network.core["global"].state_dict()
    torch.save({key: value + 1.0 for key, value in combiner.items()}, entry.more_weights[0])

    with pytest.raises(checkpoints.CheckpointError, match="has replaced the weights"):
        loading.build(entry)
    assert len(first.origin.sha256) == 64


def test_a_state_dict_of_the_whole_network_is_one_file(
    published: tuple[zoo.Entry, Any], tmp_path: pathlib.Path
) -> None:
    entry, network = published
    torch.save(network.core.state_dict(), tmp_path / "whole.pt")

    loaded = loading.build(entry, checkpoint=str(tmp_path / "whole.pt"))

    torch.testing.assert_close(loaded.state_dict(), network.state_dict(), rtol=0, atol=0)


def test_a_part_that_is_missing_or_another(
    published: tuple[zoo.Entry, Any], tmp_path: pathlib.Path
) -> None:
    entry, _ = published
    swapped = dataclasses.replace(
        entry, weights=entry.more_weights[0], more_weights=(str(entry.weights),)
    )
    with pytest.raises(checkpoints.CheckpointError, match="not the weights of this encoder"):
        loading.build(swapped)
    alone = pathlib.Path(str(entry.weights)).rename(tmp_path / "alone.pt")
    with pytest.raises(
        checkpoints.CheckpointError, match="a folder with .*spectre_backbone.* and .*spectre_"
    ):
        loading.build(entry, checkpoint=str(alone))
    with pytest.raises(checkpoints.CheckpointError, match="spectre_backbone.*: no such file"):
        loading.build(entry, checkpoint=str(tmp_path))
