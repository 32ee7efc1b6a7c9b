"""Tests the entries of the zoo: the right function, strict weights, and names in eva's registry."""

import dataclasses
import hashlib
import json
import math
import pathlib
from typing import Any

import pytest
import torch
from eva.vision.models import ModelFromRegistry
from eva.vision.models.networks.backbones import backbone_registry, radiology
from huggingface_hub import constants
from safetensors.torch import load_file

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import (
    CoralBayEncoder,
    checkpoints,
    load_encoder,
    loading,
    registry,
    weight_sources,
    zoo,
)
from eva_coralbay.tasks import catalog
from tests.eva_coralbay.models.data import legacy_formula

_LEGACY_STATES = pathlib.Path(__file__).parent / "data" / "legacy_states.safetensors"
"""Hidden states of MONAI 1.4.0; `data/make_legacy_golden.py` writes them."""

_OTHERS = [name for name, entry in zoo.ENTRIES.items() if entry.keys is not None]
"""Networks that are not SwinUNETR."""

_SWIN_UNETR = {
    "radiology/voco_b": "VoCoB",
    "radiology/voco_l": "VoCoL",
    "radiology/voco_h": "VoCoH",
    "radiology/suprem_swin_unetr": "SuPreMSwinUNETR",
    "radiology/universal_swinunetr": "UniversalModelSwinUNETR",
}
"""The names that eva has too, with its classes."""


def _as_published(name: str, state_dict: dict[str, torch.Tensor]) -> Any:
    """Nests and prefixes a state dict as the published file of a model does."""
    if "voco" in name:
        return state_dict
    prefix = "module.backbone." if "suprem" in name else "module."
    heads = ["organ_embedding", "GAP.0.weight", "controller.weight", "precls_conv.2.weight"]
    content = {f"{prefix}{key}": value for key, value in state_dict.items()}
    content |= {f"{prefix}decoder5.transp_conv.conv.weight": torch.zeros(2)}
    content |= {f"module.{key}": torch.zeros(2) for key in heads}
    return {"net": content, "optimizer": {"state": {0: torch.zeros(2)}}, "epoch": 3}


def _small(name: str, path: pathlib.Path, feature_size: int) -> zoo.Entry:
    """An entry whose network is narrow and whose weights are a file."""
    entry = zoo.ENTRIES[name]
    return dataclasses.replace(
        entry,
        arguments={**entry.arguments, "feature_size": feature_size},
        weights=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        md5=None,
    )


def _write(name: str, state_dict: dict[str, torch.Tensor], folder: pathlib.Path) -> pathlib.Path:
    path = folder / "weights.pth"
    torch.save(_as_published(name, state_dict), path)
    return path


@pytest.mark.parametrize("name", ["radiology/voco_b", "radiology/suprem_swin_unetr"])
def test_function_is_that_of_monai_before_1_5(name: str, tmp_path: pathlib.Path) -> None:
    """Weights in the layout of the published file give the features of MONAI 1.4.0."""
    use_v2 = zoo.ENTRIES[name].arguments["use_v2"]
    network = radiology.SwinUNETREncoder(feature_size=legacy_formula.FEATURE_SIZE, use_v2=use_v2)
    state_dict = network.state_dict()
    for key in dict(network.swinViT.named_parameters()):
        full = f"swinViT.{key}"
        values = torch.from_numpy(legacy_formula.weight(key, tuple(state_dict[full].shape)))
        state_dict[full] = values
    path = _write(name, state_dict, tmp_path)

    encoder: Any = loading.build(_small(name, path, legacy_formula.FEATURE_SIZE))

    encoder.double()
    with torch.no_grad():
        volume = torch.from_numpy(legacy_formula.volume())
        states = list(encoder.swinViT.hidden_states(volume))
    for level, golden in ((3, "state3"), (4, "state4")) if use_v2 else ():
        expected = load_file(_LEGACY_STATES)[golden]
        normed = torch.nn.functional.layer_norm(
            states[level].movedim(1, -1), states[level].shape[1:2]
        ).movedim(-1, 1)
        assert float((normed - expected).norm() / expected.norm()) < 1e-5
    assert encoder.patch_merging == "legacy"
    assert encoder.origin.published_as == name


@pytest.mark.parametrize("name", _SWIN_UNETR)
def test_evas_class_is_another_function(
    name: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With MONAI >= 1.5 the maps below 1/4 differ, by more than they are alike."""
    use_v2 = zoo.ENTRIES[name].arguments["use_v2"]
    torch.manual_seed(0)
    evas = radiology.SwinUNETREncoder(feature_size=24, use_v2=use_v2, out_indices=6).eval()
    path = _write(name, evas.state_dict(), tmp_path)
    ours = loading.build(_small(name, path, 24), out_indices=6)

    with torch.no_grad():
        volume = torch.rand(1, 1, 64, 64, 64)
        pairs = zip(ours(volume), evas(volume), strict=True)
        differences = [float((own - other).norm() / own.norm()) for own, other in pairs]

    with capsys.disabled():
        print(f"\n{name}: relative L2 a map", [round(value, 2) for value in differences])
    assert max(differences[:2]) < 1e-4
    assert min(differences[2:]) > 0.3


@pytest.mark.parametrize("name", _SWIN_UNETR)
def test_facts_are_those_of_the_network_and_of_evas_class(name: str) -> None:
    """Number of weights, maps, embedding and file, without memory for the weights."""
    entry = zoo.ENTRIES[name]
    evas = getattr(radiology, _SWIN_UNETR[name])
    with torch.device("meta"):
        network: Any = loading.build(entry, random_weights=True)

    assert sum(p.numel() for p in network.parameters()) == entry.parameters
    assert [feature_map.channels for feature_map in entry.maps] == network.feature_channels
    assert network.embedding_dim == entry.embedding_dim
    assert str(entry.weights).rpartition("#")[2] == evas._checkpoint.rpartition("/")[2]
    assert entry.preprocessing == network.preprocessing is not None


@pytest.mark.parametrize("name", _OTHERS)
def test_facts_are_those_of_the_network(name: str) -> None:
    entry = zoo.ENTRIES[name]
    sizes = [math.lcm(*(m.stride[axis] for m in entry.maps)) * 2 for axis in range(3)]
    with torch.device("meta"):
        network: Any = loading.build(entry, random_weights=True)
        embedding, maps = network.forward_intermediates(torch.zeros(2, 1, *sizes))

    assert sum(p.numel() for p in network.parameters()) == entry.parameters
    assert embedding.shape == (2, entry.embedding_dim)
    expected = [
        (m.channels, *(size // step for size, step in zip(sizes, m.stride, strict=True)))
        for m in entry.maps
    ]
    assert [tuple(m.shape[1:]) for m in maps] == expected
    assert network.preprocessing == entry.preprocessing
    assert (entry.preprocessing is None) == name.startswith("slices/")


@pytest.mark.parametrize("name", _OTHERS)
def test_out_indices_are_the_last_maps(name: str) -> None:
    entry = zoo.ENTRIES[name]
    with torch.device("meta"):
        network = loading.build(entry, random_weights=True, out_indices=1)
        (feature_map,) = network(torch.zeros(1, 1, 64, 64, 64))

    assert feature_map.shape[1] == entry.maps[-1].channels
    with pytest.raises(EvaCoralbayError, match="a number of maps from 1 to"):
        loading.build(entry, random_weights=True, out_indices=len(entry.maps) + 1)


@pytest.mark.parametrize("name", [*_SWIN_UNETR, "radiology/coralbay", "radiology/coralbay_random"])
def test_names_of_eva_are_ours(name: str) -> None:
    """eva's factory builds our encoder, and refuses what contradicts the entry."""
    registry.register_backbones()
    kwargs = {
        "random_weights": True,
        "out_indices": 6,
        "checkpoint": None,
        "embeddings_type": "head",
    }
    with torch.device("meta"):
        model = ModelFromRegistry(name, kwargs).model

    assert isinstance(model, CoralBayEncoder) and model.out_indices == 6
    assert name in backbone_registry.entries()
    if zoo.ENTRIES[name].arguments:
        with pytest.raises(EvaCoralbayError, match=f"{name} has patch_merging='legacy'"):
            ModelFromRegistry(name, {"patch_merging": "octants"})
        with pytest.raises(EvaCoralbayError, match="feature_size=.* .in a config, IN_FEATURES."):
            ModelFromRegistry(name, {"feature_size": 12})


def test_other_weights_than_the_published_ones(tmp_path: pathlib.Path) -> None:
    """A file with another hash is refused, and the way for own weights is named."""
    torch.save(CoralBayEncoder(12).state_dict(), tmp_path / "mine.pt")

    for name in _SWIN_UNETR:
        with pytest.raises(checkpoints.CheckpointError, match="use 'radiology/coralbay' with the"):
            load_encoder(name, checkpoint=str(tmp_path / "mine.pt"))


def test_what_an_entry_says_may_be_repeated_as_json_has_it() -> None:
    stated = zoo.ENTRIES["radiology/suprem_segresnet"].as_dict()["arguments"]
    repeated = json.loads(json.dumps(stated))
    assert any(isinstance(value, list) for value in repeated.values())

    loading.build_named("radiology/suprem_segresnet", random_weights=True, **repeated)


def test_another_hash_than_the_published_one_is_a_contradiction() -> None:
    """It was passed over, as the published one counted."""
    with pytest.raises(EvaCoralbayError, match="radiology/voco_b has sha256='06664b"):
        load_encoder("radiology/voco_b", sha256="0" * 64)


def test_a_copy_of_the_published_file_is_published(tmp_path: pathlib.Path) -> None:
    path = _write("radiology/voco_b", CoralBayEncoder(12).state_dict(), tmp_path)
    entry = dataclasses.replace(_small("radiology/voco_b", path, 12), weights="absent/elsewhere@v1")

    encoder: Any = loading.build(entry, checkpoint=str(path))

    assert encoder.origin.published_as == "radiology/voco_b"


@pytest.mark.parametrize("name", zoo.ENTRIES)
def test_every_fact_has_its_source(name: str) -> None:
    entry = zoo.ENTRIES[name]
    if entry.weights is not None:
        assert "weights" in entry.sources
    for fact in ("sha256", "md5", "license", "preprocessing", "pretraining"):
        assert (getattr(entry, fact) is None) or fact in entry.sources or entry.weights is None


def test_tasks_of_the_pretraining_are_tasks() -> None:
    for entry in zoo.ENTRIES.values():
        assert set(entry.pretraining_tasks or ()) <= set(catalog.TASKS), entry.name


def test_weights_without_a_published_hash_are_checked_against_the_first_ones(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    """They are downloaded from an address whose content may change."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    url = "https://example.org/weights.pth"
    entry = dataclasses.replace(
        zoo.ENTRIES["radiology/suprem_segresnet"],
        arguments={"init_filters": 8, "blocks_down": (1,)},
        keys=zoo.KeyLayout(),
        weights=url,
        md5=None,
    )
    assert entry.unpinned == "hash unknown: the file is loaded as it was when it was downloaded"
    path = weight_sources.path_of_url(url)
    path.parent.mkdir(parents=True)
    network: Any = loading.build(entry, random_weights=True)
    torch.save(network.core.state_dict(), path)
    encoder: Any = loading.build(entry)
    loading.build(entry)
    warnings = [message for message in log if message.startswith("WARNING")]
    other: Any = loading.build(entry, random_weights=True)
    torch.save(other.core.state_dict(), path)
    with pytest.raises(checkpoints.CheckpointError, match="has replaced the weights") as error:
        loading.build(entry)

    (warning,) = warnings
    assert "states no hash" in warning and encoder.origin.sha256 in warning
    (kept,) = (tmp_path / "eva_coralbay").glob("*.sha256")
    assert str(kept) in str(error.value)
    kept.unlink()
    loading.build(entry)


def test_what_pins_the_weights_of_an_entry() -> None:
    unpinned = {name for name, entry in zoo.ENTRIES.items() if entry.unpinned}

    assert unpinned == {
        "radiology/ct_fm",
        "radiology/vista3d",
        "radiology/fmcib",
        "radiology/voxelfm",
        "radiology/merlin",
        "radiology/spectre",
        "radiology/spectre_local",
        "slices/dinov2_vits14",
        "slices/convnext_tiny",
        "slices/resnet50",
    }
