"""Tests what eva gets for our names."""

import pathlib
from typing import Any

import pytest
import torch
from eva.vision.models import ModelFromRegistry
from eva.vision.models.networks.backbones import backbone_registry

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import CoralBayEncoder, checkpoints, registry

_NAMES = ("radiology/coralbay", "radiology/coralbay_random")


@pytest.fixture(autouse=True)
def _registered() -> None:
    assert registry.register_backbones() == []


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, CoralBayEncoder]:
    folder = tmp_path_factory.mktemp("export")
    encoder = CoralBayEncoder(feature_size=12)
    encoder.save_pretrained(folder)
    return folder, encoder


def _build(name: str, **kwargs: Any) -> Any:
    """Builds a model as eva's configs do."""
    return ModelFromRegistry(name, model_kwargs=kwargs).model


def test_registering_again() -> None:
    items = [backbone_registry.get(name) for name in _NAMES]
    registry.register_backbones()

    assert [backbone_registry.get(name) for name in _NAMES] == items


def test_random_weights() -> None:
    arguments = {"out_indices": 6, "feature_size": 12, "checkpoint": None, "use_v2": False}
    model = _build("radiology/coralbay_random", **arguments, patch_merging="legacy")

    assert isinstance(model, CoralBayEncoder)
    assert (model.out_indices, model.feature_size, model.use_v2) == (6, 12, False)
    assert model.patch_merging == "legacy"


def test_trained_weights(export: tuple[pathlib.Path, CoralBayEncoder]) -> None:
    folder, encoder = export
    model = _build(
        "radiology/coralbay", out_indices=3, feature_size=12, checkpoint=str(folder), in_channels=1
    )

    assert isinstance(model, CoralBayEncoder)
    assert (model.out_indices, model.patch_merging) == (3, "octants")
    assert checkpoints.state_dict_sha256(model.state_dict()) == checkpoints.state_dict_sha256(
        encoder.state_dict()
    )


def test_feature_size_of_other_weights(export: tuple[pathlib.Path, CoralBayEncoder]) -> None:
    with pytest.raises(ValueError, match="feature_size 12 and the encoder 48.*IN_FEATURES=12"):
        _build("radiology/coralbay", checkpoint=str(export[0]), feature_size=48)


@pytest.mark.parametrize(
    ("argument", "message"),
    [({"patch_merging": "legacy"}, "patch_merging 'octants'"), ({"sha256": "0" * 64}, "SHA-256")],
)
def test_contradictions(
    argument: dict[str, str], message: str, export: tuple[pathlib.Path, CoralBayEncoder]
) -> None:
    with pytest.raises(checkpoints.CheckpointError, match=message):
        _build("radiology/coralbay", checkpoint=str(export[0]), **argument)


def test_published_weights_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = []

    def read(source: str, **kwargs: Any) -> None:
        sources.append(source)
        raise checkpoints.CheckpointError("stop")

    monkeypatch.setattr(checkpoints, "read", read)
    with pytest.raises(checkpoints.CheckpointError, match="stop"):
        _build("radiology/coralbay", out_indices=6)
    assert sources == ["kaiko-ai/coralbay@eb7ef5f523ae3acf8b39db3c311d0bb42d507075"]


def test_random_weights_take_no_checkpoint() -> None:
    with pytest.raises(ValueError, match="'weights.pt'; use radiology/coralbay for a checkpoint"):
        _build("radiology/coralbay_random", checkpoint="weights.pt")


def test_other_networks_take_the_configs_of_a_swin_unetr() -> None:
    """All maps that there are, and no feature size."""
    with torch.device("meta"):
        model = _build(
            "radiology/suprem_segresnet",
            random_weights=True, out_indices=6, feature_size=48, checkpoint=None,
        )  # fmt: skip
        maps = model(torch.zeros(1, 1, 64, 64, 64))

    assert [feature_map.shape[1] for feature_map in maps] == [16, 32, 64, 128]
    with pytest.raises(EvaCoralbayError, match="does not take out_indicies"):
        _build("radiology/suprem_segresnet", out_indicies=6)


@pytest.mark.parametrize("name", _NAMES)
def test_misspelled_arguments(name: str) -> None:
    """eva drops what is not in a signature; our names see it and refuse."""
    with pytest.raises(
        EvaCoralbayError, match="does not take out_indicies; it takes .*out_indices"
    ):
        _build(name, out_indicies=6)
