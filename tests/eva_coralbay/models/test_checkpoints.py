"""Tests the loader: folders, patch merging, configs and hashes."""

import json
import pathlib
from typing import Any

import pytest
import safetensors.torch
import torch

from eva_coralbay.models import CoralBayEncoder, checkpoints, load_encoder
from tests.eva_coralbay.models import state_dicts


def test_published_folder(weights: state_dicts.StateDict, tmp_path: pathlib.Path) -> None:
    """The layout of `kaiko-ai/coralbay`; the code that its config names is not run."""
    config = {
        "architectures": ["CoralBayModel"],
        "auto_map": {"AutoModel": "modeling_coralbay.CoralBayModel"},
        "feature_size": 12,
        "model_type": "coralbay",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modeling_coralbay.py").write_text("raise SystemExit('run')")
    safetensors.torch.save_file(
        state_dicts.prefixed(weights, "encoder."), tmp_path / "model.safetensors"
    )

    for source in (tmp_path, tmp_path / "model.safetensors"):
        checkpoint = checkpoints.read(source)
        assert checkpoint.config == config
        assert checkpoint.patch_merging is None
        state_dicts.assert_equal(checkpoint.state_dict, weights)


def test_folder_of_pytorch_weights(weights: state_dicts.StateDict, tmp_path: pathlib.Path) -> None:
    torch.save(state_dicts.prefixed(weights, "encoder."), tmp_path / "pytorch_model.bin")

    state_dicts.assert_equal(checkpoints.read(tmp_path).state_dict, weights)


def test_own_export_states_its_merging(tmp_path: pathlib.Path) -> None:
    encoder = CoralBayEncoder(feature_size=12, patch_merging="octants")
    encoder.save_pretrained(tmp_path)

    checkpoint = checkpoints.read(tmp_path)

    assert checkpoint.patch_merging == "octants"
    state_dicts.assert_equal(checkpoint.state_dict, encoder.state_dict())


def test_config_of_other_files_is_not_read(
    weights: state_dicts.StateDict, tmp_path: pathlib.Path
) -> None:
    torch.save(weights, tmp_path / "epoch_3.pt")
    (tmp_path / "config.json").write_text(json.dumps({"feature_size": 99}))

    assert checkpoints.read(tmp_path / "epoch_3.pt").config == {}


def test_missing_position_index_is_recomputed(
    weights: state_dicts.StateDict, tmp_path: pathlib.Path
) -> None:
    lean = {key: value for key, value in weights.items() if "relative_position_index" not in key}
    torch.save(lean, tmp_path / "lean.pt")

    encoder = CoralBayEncoder(checkpoint=tmp_path / "lean.pt")

    state_dicts.assert_equal(encoder.state_dict(), weights)


def test_other_position_index_is_refused(
    weights: state_dicts.StateDict, tmp_path: pathlib.Path
) -> None:
    key = "swinViT.layers1.0.blocks.0.attn.relative_position_index"
    torch.save(weights | {key: weights[key].flip(0)}, tmp_path / "x.pt")

    with pytest.raises(checkpoints.CheckpointError, match=f"1 another window layout: {key}"):
        CoralBayEncoder(feature_size=12, checkpoint=str(tmp_path / "x.pt"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"feature_size": 24}, "feature_size 12 and the encoder 24.*feature_size=12"),
        ({"in_channels": 2}, "in_channels 1 and the encoder 2.*in_channels=1"),
        ({"use_v2": False}, "use_v2 True and the encoder False.*use_v2=True"),
        ({"patch_merging": "legacy"}, "patch_merging 'octants' and the encoder 'legacy'"),
        ({"checkpoint_key": "teacher"}, "no 'teacher' .checkpoint_key. in it"),
    ],
)
def test_encoder_of_another_architecture(
    arguments: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
    CoralBayEncoder(feature_size=12).save_pretrained(tmp_path)

    with pytest.raises(checkpoints.CheckpointError, match=message):
        CoralBayEncoder(**({"feature_size": 12, "checkpoint": str(tmp_path)} | arguments))


def _warnings(log: list[str]) -> list[str]:
    return [message for message in log if message.startswith("WARNING")]


def test_merging_that_is_not_stated(
    weights: state_dicts.StateDict, tmp_path: pathlib.Path, log: list[str]
) -> None:
    """It is assumed, with a warning, as is a choice that published weights do not have."""
    path = tmp_path / "voco.pt"
    torch.save(weights, path)

    assert CoralBayEncoder(checkpoint=path, patch_merging="legacy").patch_merging == "legacy"
    assert not _warnings(log)
    assert CoralBayEncoder(checkpoint=path).patch_merging == "legacy"
    assert CoralBayEncoder(checkpoint=path, patch_merging="octants").patch_merging == "octants"
    assumed, chosen = _warnings(log)
    assert "'legacy' is assumed" in assumed and "Check the MONAI version" in assumed
    assert "you chose 'octants'" in chosen


def test_merging_that_the_training_states(tmp_path: pathlib.Path, log: list[str]) -> None:
    """A checkpoint of our pre-training is read as its export is: the teacher, as it says."""
    teacher = CoralBayEncoder(feature_size=12, patch_merging="octants").state_dict()
    content = {
        "state_dict": {
            **state_dicts.prefixed(state_dicts.zeros(teacher), "student.encoder."),
            **state_dicts.prefixed(teacher, "teacher.encoder."),
            "teacher.head.last_layer.weight": torch.zeros(2),
            "loss.center": torch.zeros(2),
        },
        "coralbay": {
            "encoder": {
                "feature_size": 12, "in_channels": 1, "patch_merging": "octants", "use_v2": True
            },
            "scales": "last",
        },
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}],
    }  # fmt: skip
    torch.save(content, tmp_path / "step=1.ckpt")

    encoder = CoralBayEncoder(checkpoint=tmp_path / "step=1.ckpt")

    assert (encoder.patch_merging, encoder.embeddings_type) == ("octants", "head")
    assert not _warnings(log)
    state_dicts.assert_equal(encoder.state_dict(), teacher)
    student = CoralBayEncoder(checkpoint=tmp_path / "step=1.ckpt", checkpoint_key="student")
    state_dicts.assert_equal(student.state_dict(), state_dicts.zeros(teacher))


def test_constructor_and_from_pretrained_and_load_encoder_are_one(tmp_path: pathlib.Path) -> None:
    """Each of the three takes everything from the weights, and gives the same encoder."""
    original = CoralBayEncoder(
        feature_size=12, in_channels=2, use_v2=False, patch_merging="legacy", embeddings_type="head"
    )
    original.save_pretrained(tmp_path)

    encoders = [
        CoralBayEncoder(checkpoint=str(tmp_path)),
        CoralBayEncoder.from_pretrained(tmp_path),
        load_encoder(str(tmp_path)),
    ]

    for encoder in encoders:
        assert isinstance(encoder, CoralBayEncoder) and not encoder.training
        assert encoder.describe() == original.describe()
        assert encoder.origin == encoders[0].origin
        state_dicts.assert_equal(encoder.state_dict(), original.state_dict())


def test_config_of_other_weights(weights: state_dicts.StateDict, tmp_path: pathlib.Path) -> None:
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"feature_size": 48}))

    with pytest.raises(
        checkpoints.CheckpointError, match="feature_size 48 but the weights have 12"
    ):
        checkpoints.read(tmp_path)


@pytest.mark.parametrize("value", ["both", 3, ["legacy"]])
def test_unknown_merging_in_config(
    value: Any, weights: state_dicts.StateDict, tmp_path: pathlib.Path
) -> None:
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"patch_merging": value}))

    with pytest.raises(checkpoints.CheckpointError, match="must be one of"):
        checkpoints.read(tmp_path)


def test_hash_of_the_caller(weights: state_dicts.StateDict, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(weights, path)
    digest = checkpoints.read(path).sha256

    assert checkpoints.read(path, sha256=digest.upper()).sha256 == digest
    with pytest.raises(checkpoints.CheckpointError, match=f"{digest}.*{'0' * 64}"):
        checkpoints.read(path, sha256="0" * 64)


def test_hash_of_the_config(tmp_path: pathlib.Path) -> None:
    """Other weights in an export are found out, though they would load."""
    CoralBayEncoder(feature_size=12).save_pretrained(tmp_path / "one")
    CoralBayEncoder(feature_size=12).save_pretrained(tmp_path / "two")
    (tmp_path / "two" / "model.safetensors").replace(tmp_path / "one" / "model.safetensors")

    with pytest.raises(checkpoints.CheckpointError, match="its config says"):
        checkpoints.read(tmp_path / "one")


def test_state_dict_hash() -> None:
    state = {"a": torch.arange(4.0), "b": torch.tensor(1)}
    digest = checkpoints.state_dict_sha256(state)

    assert digest == checkpoints.state_dict_sha256(dict(reversed(list(state.items()))))
    assert digest == checkpoints.state_dict_sha256(
        state | {"a": torch.arange(8.0)[::2].div(2).T.contiguous()}
    )
    others = [
        state | {"a": torch.arange(4.0).reshape(2, 2)},
        state | {"a": torch.arange(4.0).half()},
        state | {"a": torch.arange(4.0) + 1e-6},
        {"c": state["a"], "b": state["b"]},
        {"a": state["a"].bfloat16(), "b": state["b"]},
    ]
    assert len({digest, *map(checkpoints.state_dict_sha256, others)}) == 1 + len(others)
