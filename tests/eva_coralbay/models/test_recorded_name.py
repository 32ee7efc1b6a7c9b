"""Tests under which name the results of an encoder are recorded."""

import dataclasses
import pathlib
import shutil

import pytest
import torch
from eva.vision.models import ModelFromRegistry
from eva.vision.models.networks.backbones import radiology

from eva_coralbay.models import CoralBayEncoder, registry
from eva_coralbay.models.recorded_name import RecordedName, find_recorded_name


def test_published_weights_have_their_name() -> None:
    encoder = _loaded_from("kaiko-ai/coralbay@v1", published_as="radiology/coralbay")

    assert find_recorded_name(encoder, "radiology/coralbay") == RecordedName(
        "radiology/coralbay", "v1"
    )


def test_own_weights_cannot_claim_a_published_name(tmp_path: pathlib.Path) -> None:
    """As eva builds them from a config with MODEL_NAME=radiology/coralbay and CHECKPOINT."""
    CoralBayEncoder(12).save_pretrained(tmp_path / "my run")
    registry.register_backbones()
    wrapped = ModelFromRegistry("radiology/coralbay", {"checkpoint": str(tmp_path / "my run")})
    sha256 = wrapped.model.origin.sha256

    recorded = find_recorded_name(wrapped, "radiology/coralbay")

    assert recorded == RecordedName(f"local/my-run-{sha256[:8]}", None)
    assert find_recorded_name(wrapped, "lab/mine").id == "lab/mine"
    file = CoralBayEncoder(checkpoint=tmp_path / "my run" / "model.safetensors")
    assert find_recorded_name(file, "radiology/voco_b").id == f"local/model-{sha256[:8]}"


def test_weights_that_are_gone_are_still_named_by_their_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of days writes its record at the end, and its path is nobody's business."""
    monkeypatch.chdir(tmp_path)
    CoralBayEncoder(12).save_pretrained("patients/own")
    encoder = CoralBayEncoder(checkpoint="patients/own")
    shutil.rmtree("patients")

    recorded = find_recorded_name(encoder, "radiology/coralbay")

    assert encoder.origin is not None
    assert recorded.id == f"local/own-{encoder.origin.sha256[:8]}"


@pytest.mark.parametrize(
    "name",
    [
        "Radiology/CoralBay",
        " radiology/coralbay ",
        "kaiko-ai/coralbay",
        "Kaiko-AI/CoralBay",
        "radiology/VoCo_B",
        "Luffy503/VoCo",
        "kaiko-ai/coralbay@main",
        "kaiko-ai/coralbay#model.safetensors",
        "kaiko-ai/coralbay@v1#model.safetensors",
        "radiology/coralbay@abc",
    ],
)
def test_no_spelling_of_a_published_name_can_be_claimed(name: str, tmp_path: pathlib.Path) -> None:
    """Neither in other letters, nor by the Hub repository of the published weights."""
    CoralBayEncoder(12).save_pretrained(tmp_path / "own")

    recorded = find_recorded_name(CoralBayEncoder(checkpoint=tmp_path / "own"), name)

    assert str(recorded.id).startswith("local/own-")
    published = _loaded_from("kaiko-ai/coralbay@v1", published_as="radiology/coralbay")
    other = _loaded_from("kaiko-ai/coralbay@v1", published_as=None)
    if "coralbay" in name.lower():
        assert find_recorded_name(published, name).id == "radiology/coralbay"
        assert find_recorded_name(other, name) == RecordedName("kaiko-ai/coralbay", "v1")


def test_weights_of_the_hub_have_its_id() -> None:
    encoder = _loaded_from("lab/net@v2", published_as=None)

    assert find_recorded_name(encoder, "radiology/coralbay") == RecordedName("lab/net", "v2")
    assert find_recorded_name(encoder, "lab/other") == RecordedName("lab/other", "v2")


def test_one_published_model_cannot_claim_the_name_of_another() -> None:
    encoder = _loaded_from("Luffy503/VoCo@v1#x.pt", published_as="radiology/voco_b")

    assert find_recorded_name(encoder, "radiology/coralbay").id == "radiology/voco_b"


@pytest.mark.parametrize(
    ("network", "name", "expected"),
    [
        (CoralBayEncoder(12), "radiology/coralbay_random", "radiology/coralbay_random"),
        (CoralBayEncoder(12), "radiology/coralbay", "local/CoralBayEncoder"),
        (radiology.SwinUNETREncoder(feature_size=12), "radiology/voco_b", "local/SwinUNETREncoder"),
        (torch.nn.Linear(1, 1), "lab/mine", "lab/mine"),
        (torch.nn.Linear(1, 1), None, None),
    ],
)
def test_networks_without_known_weights(
    network: torch.nn.Module, name: str | None, expected: str | None
) -> None:
    assert find_recorded_name(network, name) == RecordedName(expected, None)


def _loaded_from(source: str, *, published_as: str | None) -> CoralBayEncoder:
    """An encoder as it is after its weights were read from a Hub."""
    from eva_coralbay.models.weight_sources import Origin

    encoder = CoralBayEncoder(12)
    origin = Origin(source, source.partition("@")[2].partition("#")[0], "0" * 64)
    encoder.origin = dataclasses.replace(origin, published_as=published_as)
    return encoder
