"""Tests that an export is the teacher and loads everywhere."""

import json
import pathlib

import pytest
import torch
import transformers
from eva.vision import models as eva_models

from eva_coralbay import _processes
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import CoralBayEncoder, checkpoints, registry
from eva_coralbay.pretraining import export
from tests.eva_coralbay.pretraining import runs, stores


@pytest.fixture(name="checkpoint", scope="module")
def _checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    store = stores.write_store(folder / "store", cases=2)
    runs.train(store=store, out=str(folder / "run"), steps=1)
    return str(folder / "run/checkpoints/step=1.ckpt")


@pytest.fixture(name="folder", scope="module")
def _folder(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("export") / "encoder")
    export.export(checkpoint, folder)
    return folder


def _teacher(checkpoint: str) -> dict[str, torch.Tensor]:
    states = torch.load(checkpoint, weights_only=True)["state_dict"]
    prefix = "teacher.encoder."
    return {key[len(prefix) :]: value for key, value in states.items() if key.startswith(prefix)}


def test_is_the_teacher(checkpoint: str, folder: str) -> None:
    found = CoralBayEncoder.from_pretrained(folder).state_dict()
    expected = _teacher(checkpoint)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0)


def test_loads_in_eva_and_in_transformers(folder: str) -> None:
    registry.register_backbones()
    volume = torch.rand(1, 1, 40, 40, 40)
    expected = CoralBayEncoder.from_pretrained(folder)(volume)
    kwargs = {"checkpoint": folder, "feature_size": 12}
    in_eva = eva_models.ModelFromRegistry("radiology/coralbay", kwargs)
    torch.testing.assert_close(in_eva(volume), expected, rtol=0, atol=0)
    outputs = transformers.AutoModel.from_pretrained(folder)(volume)
    torch.testing.assert_close(outputs.pooler_output, expected, rtol=0, atol=0)
    assert [value.shape[1] for value in outputs.hidden_states] == [12, 12, 24, 48, 96, 192]


def test_says_how_it_came_about(folder: str) -> None:
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    assert config["spacing_mm"] == [3.0, 3.0, 3.0] and config["orientation"] == "SPL"
    assert config["patch_merging"] == "octants" and config["feature_size"] == 12
    training = config["training"]
    assert training["step"] == 1 and training["num_scans"] == 2
    assert len(training["manifest_sha256"]) == 64
    assert training["config"]["model"]["student_temperature"] == 0.1
    card = (pathlib.Path(folder) / "README.md").read_text()
    assert training["manifest_sha256"] in card and "$" not in card
    assert "| train/loss |" in card


def test_last_stage(tmp_path: pathlib.Path) -> None:
    store = stores.write_store(tmp_path / "store", cases=2)
    runs.train(store=store, out=str(tmp_path / "run"), steps=1, scales="last")
    export.export(str(tmp_path / "run/checkpoints/step=1.ckpt"), str(tmp_path / "encoder"))
    encoder = CoralBayEncoder.from_pretrained(str(tmp_path / "encoder"))
    assert encoder(torch.rand(1, 1, 40, 40, 40)).shape == (1, 192)


def test_refuses_a_folder_that_holds_something(checkpoint: str, folder: str) -> None:
    with pytest.raises(ValueError, match="not empty"):
        export.export(checkpoint, folder)


@pytest.mark.parametrize("content", [None, b"", b"PK not a checkpoint"])
def test_refuses_what_is_no_checkpoint(tmp_path: pathlib.Path, content: bytes | None) -> None:
    path = tmp_path / "step=1.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="step=1.ckpt"):
        export.export(str(path), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_refuses_what_is_no_file(tmp_path: pathlib.Path) -> None:
    """A device has no end."""
    path = tmp_path / "step=1.ckpt"
    path.symlink_to("/dev/zero")
    with pytest.raises(EvaCoralbayError, match="step=1.ckpt' is a folder, a pipe or a device"):
        export.export(str(path), str(tmp_path / "out"))


def test_refuses_a_checkpoint_of_something_else(tmp_path: pathlib.Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="pretrain fit"):
        export.export(str(tmp_path / "other.ckpt"), str(tmp_path / "out"))


@pytest.mark.parametrize("part", ["global_step", "coralbay.scales", "coralbay.versions"])
def test_names_what_a_checkpoint_lacks(checkpoint: str, tmp_path: pathlib.Path, part: str) -> None:
    content = torch.load(checkpoint, weights_only=True)
    *outer, name = part.split(".")
    del (content[outer[0]] if outer else content)[name]
    torch.save(content, tmp_path / "less.ckpt")
    with pytest.raises(EvaCoralbayError, match=f"less.ckpt' lacks {part}") as raised:
        export.export(str(tmp_path / "less.ckpt"), str(tmp_path / "out"))
    assert "\n" not in str(raised.value)


def test_a_checkpoint_without_its_encoder_is_an_error(
    checkpoint: str, tmp_path: pathlib.Path
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"].pop("teacher.encoder.swinViT.patch_embed.proj.weight")
    torch.save(content, tmp_path / "less.ckpt")
    with pytest.raises(EvaCoralbayError, match="does not hold the encoder that it states"):
        export.export(str(tmp_path / "less.ckpt"), str(tmp_path / "out"))


def test_what_a_killed_export_was_writing_is_removed(
    checkpoint: str, tmp_path: pathlib.Path
) -> None:
    machine, *_ = _processes.name_this_process().split("~")
    leftover = tmp_path / f".encoder~{machine}~99999999~1~{'0' * 32}.tmp"
    leftover.mkdir()
    (leftover / "model.safetensors").touch()
    export.export(checkpoint, str(tmp_path / "encoder"))
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_leaves_nothing_when_the_proof_fails(
    checkpoint: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise checkpoints.CheckpointError("differs")

    monkeypatch.setattr(export, "prove", fail)
    with pytest.raises(checkpoints.CheckpointError):
        export.export(checkpoint, str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []
