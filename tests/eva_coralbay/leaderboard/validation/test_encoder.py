"""Tests that a record is of the encoder that its name stands for."""

import hashlib
import json
import pathlib
from typing import Any

import pytest
import yaml

from eva_coralbay.leaderboard import validation
from eva_coralbay.models import zoo
from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import record
from tests.eva_coralbay.leaderboard import result_files


def _describe(class_path: str, **changes: Any) -> dict[str, Any]:
    """Returns the description of an encoder with its hash."""
    fields = {
        "class_path": class_path,
        "architecture": {"feature_size": 48},
        "patch_merging": "legacy",
        "embedding": "multi_scale",
        "preprocessing": {},
        **changes,
    }
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    return {**fields, "sha256": digest}


def _write(
    root: pathlib.Path, model: str, *, encoder: dict[str, Any] | None, checkpoint: str | None = None
) -> results_folder.Entry:
    """Writes a result of an encoder of the registry."""
    entry = result_files.write(root, model=model, encoder=encoder)
    config = yaml.safe_load(entry.config_path.read_text())
    config["model"]["init_args"]["encoder"] = {
        "class_path": "eva.vision.models.ModelFromRegistry",
        "init_args": {"model_name": model, "model_kwargs": {"checkpoint": checkpoint}},
    }
    content = yaml.safe_dump(config).encode()
    entry.config_path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    result = entry.record.model_copy(
        update={"config": record.ConfigFile(file=entry.config_path.name, sha256=digest)}
    )
    result.write(entry.path)
    return results_folder.Entry(entry.path, result)


def _faults(root: pathlib.Path) -> dict[str, str]:
    return {fault.where: fault.message for fault in validation.validate(root)}


@pytest.mark.parametrize(
    "name", ["voco_b", "voco_l", "voco_h", "suprem_swin_unetr", "universal_swinunetr"]
)
def test_another_function_than_the_weights_were_trained_for_is_refused(
    tmp_path: pathlib.Path, name: str
) -> None:
    """Our own entries of these names merge patches as the weights need."""
    root = tmp_path / "results"
    own = _describe("eva_coralbay.CoralBayEncoder")
    _write(root, f"radiology/{name}", encoder=own)
    assert _faults(root) == {}
    _write(root, f"radiology/{name}", encoder=_describe("eva.vision.models.SwinUNETREncoder"))
    assert "another function" in _faults(root)["encoder.class_path"]
    _write(root, f"radiology/{name}", encoder=None)
    assert "is missing" in _faults(root)["encoder"]
    _write(tmp_path / "other", f"Radiology/{name.upper()}", encoder=None)
    assert "is missing" in _faults(tmp_path / "other")["encoder"]


def test_own_weights_do_not_bear_a_published_name(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "results"
    encoder = _describe("eva_coralbay.CoralBayEncoder")
    _write(root, "radiology/coralbay", encoder=encoder, checkpoint="mine.safetensors")
    (message,) = _faults(root).values()
    assert "own weights under the name of the published ones" in message


@pytest.mark.parametrize("name", ["radiology/coralbay", "radiology/of_eva", "slices/resnet50"])
def test_another_network_does_not_bear_a_published_name(tmp_path: pathlib.Path, name: str) -> None:
    root = tmp_path / "results"
    result_files.write(root, model=name)
    (message,) = _faults(root).values()
    assert f"is not the encoder {name} of the registry" in message


def test_weights_are_those_of_the_card(tmp_path: pathlib.Path) -> None:
    root, cards = tmp_path / "results", tmp_path / "models"
    _write(root, "radiology/coralbay", encoder=_describe("eva_coralbay.CoralBayEncoder"))
    cards.mkdir()
    card = cards / "radiology__coralbay.yaml"
    content = {
        "id": "radiology/coralbay",
        "name": "CoralBay",
        "revision": None,
        "weights": {"url": "https://x.org/w", "sha256": None, "loaded_sha256": "1" * 64},
        "license": None,
        "parameters": None,
        "pretraining": None,
        "overlap": {},
        "sources": [],
    }
    card.write_text(yaml.safe_dump(content))
    assert _faults(root) == {}
    content["weights"]["loaded_sha256"] = "3" * 64
    card.write_text(yaml.safe_dump(content))
    assert "as the model's card says" in _faults(root)["model.weights_sha256"]
    unversioned = root / "radiology__coralbay" / results_folder.UNVERSIONED
    (path,) = unversioned.rename(unversioned.with_name("v1")).rglob("seed_0.json")
    result = record.Record.read(path)
    model = result.model.model_copy(update={"revision": "v1"})
    result.model_copy(update={"model": model}).write(path)
    assert "model.weights_sha256" in _faults(root), "a card without a revision is of all of them"
    content["revision"] = "v2"
    card.write_text(yaml.safe_dump(content))
    assert "model.weights_sha256" not in _faults(root)


def test_a_description_has_its_hash(tmp_path: pathlib.Path) -> None:
    encoder = _describe("my.Net") | {"patch_merging": "octants"}
    result_files.write(tmp_path / "results", encoder=encoder)
    assert list(_faults(tmp_path / "results")) == ["encoder.sha256"]


def test_another_function_under_one_name_is_told(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "results"
    result_files.write(root, encoder=_describe("my.Net"))
    result_files.write(root, seed=1, encoder=_describe("my.Net"))
    result_files.write(root, seed=2, encoder=_describe("my.Net", preprocessing={"hu": [0, 1]}))
    (fault,) = validation.validate(root)
    assert fault.is_warning and fault.where == "encoder.sha256"


def test_a_result_on_the_input_of_the_encoder_states_it(tmp_path: pathlib.Path) -> None:
    own = zoo.ENTRIES["radiology/ct_fm"].preprocessing
    assert own is not None
    class_path = "eva_coralbay.SegResNetDSEncoder"
    for name, stated, fault in (
        ("right", own.as_dict(), None),
        ("other", {**own.as_dict(), "spacing": [1.5, 1.5, 1.5]}, "is not the input that"),
        ("none", {}, "is missing"),
    ):
        encoder = _describe(class_path, preprocessing=stated)
        root = tmp_path / name
        result_files.write(root, model="radiology/ct_fm", protocol="probe-native", encoder=encoder)
        found = _faults(root).get("encoder.preprocessing")
        assert found is None if fault is None else fault in str(found)
    result_files.write(
        tmp_path / "own",
        model="lab/net",
        protocol="probe-native",
        encoder=_describe("lab.Net", preprocessing=own.as_dict()),
    )
    assert "encoder.preprocessing" not in _faults(tmp_path / "own")
