"""Tests the loader on the key layouts that are in use and on broken files."""

import enum
import gzip
import json
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from eva.vision.models.networks.backbones import radiology

from eva_coralbay.models import CoralBayEncoder, checkpoints, load_encoder

StateDict = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def weights() -> StateDict:
    return CoralBayEncoder(feature_size=12).state_dict()


def _prefixed(state_dict: StateDict, prefix: str) -> StateDict:
    return {prefix + key: value for key, value in state_dict.items()}


def _decoder(prefix: str = "") -> StateDict:
    names = [f"decoder{level}.conv_block.conv1.conv.weight" for level in (1, 2, 3, 4, 5)]
    return {prefix + name: torch.zeros(2) for name in [*names, "out.conv.conv.weight"]}


def _swin_vit(state_dict: StateDict) -> StateDict:
    return {key.replace("swinViT", "swin_vit"): value for key, value in state_dict.items()}


def _suprem(state_dict: StateDict) -> dict[str, Any]:
    prefix = "module.backbone."
    heads = ("precls_conv.2.weight", "GAP.0.weight", "controller.weight", "text_to_vision.bias")
    return {
        "net": {
            "module.organ_embedding": torch.zeros(2),
            **_prefixed(state_dict, prefix),
            **_decoder(prefix),
            **{f"module.{name}": torch.zeros(2) for name in heads},
        },
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 2100,
    }


def _self_distillation(state_dict: StateDict) -> dict[str, Any]:
    student = {key: torch.zeros_like(value) for key, value in state_dict.items()}
    return {
        "student": _prefixed(student, "encoder.") | {"head.last_layer.weight": torch.ones(2)},
        "teacher": _prefixed(state_dict, "encoder.") | {"head.last_layer.weight": torch.ones(2)},
        "center": torch.zeros(2),
        "epoch": 3,
    }


def _voco_training(state_dict: StateDict) -> dict[str, Any]:
    return {
        "state_dict": {
            **_prefixed(state_dict, "module.backbone."),
            "module.student.layer1.0.weight": torch.zeros(2),
            "module.teacher.layer1.0.weight": torch.zeros(2),
        },
        "epoch": 3,
    }


def _eva_lightning(state_dict: StateDict) -> dict[str, Any]:
    decoder = _prefixed(_decoder(), "decoder.")
    return {
        "state_dict": _prefixed(state_dict, "encoder.model.") | decoder,
        "global_step": 3,
        "pytorch-lightning_version": "2.6.0",
    }


def _wrapped(state_dict: StateDict) -> StateDict:
    """Keys as FSDP and activation checkpointing leave them: wrappers around single modules."""
    return {
        f"_fsdp_wrapped_module.{key}".replace(
            ".blocks.", "._fsdp_wrapped_module._checkpoint_wrapped_module.blocks."
        ): value
        for key, value in state_dict.items()
    }


def _zeros(state_dict: StateDict) -> StateDict:
    return {k: torch.zeros_like(v) if v.is_floating_point() else v for k, v in state_dict.items()}


_LAYOUTS: dict[str, tuple] = {
    "eva's VoCo file": (lambda weights: weights, set()),
    "distributed training": (
        lambda weights: _prefixed(weights, "module."),
        {"stripped the prefix 'module.'"},
    ),
    "compiled in a distributed wrapper, twice": (
        lambda weights: _prefixed(weights, "module._orig_mod.module."),
        {"stripped the prefix 'module._orig_mod.module.'"},
    ),
    "other name of the Swin part": (
        lambda weights: {"model": _prefixed(_swin_vit(weights), "encoder.")},
        {
            "read the state dict under 'model'",
            "stripped the prefix 'encoder.'",
            "renamed 'swin_vit' to 'swinViT'",
        },
    ),
    "SuPreM": (
        _suprem,
        {
            "read the state dict under 'net'",
            "stripped the prefix 'module.backbone.'",
            "left out 1 keys of 'module.backbone.decoder5'",
            "left out 1 keys of 'module.backbone.out'",
            "left out 1 keys of 'module.organ_embedding'",
            "left out 1 keys of 'module.GAP'",
        },
    ),
    "self-distillation": (
        _self_distillation,
        {
            "read the state dict under 'teacher'",
            "left out 'student' beside it",
            "left out 1 keys of 'head'",
        },
        "teacher",
    ),
    "flat self-distillation": (
        lambda weights: {
            **_prefixed({k: torch.zeros_like(v) for k, v in weights.items()}, "student.backbone."),
            **_prefixed(weights, "teacher.backbone."),
        },
        {
            "stripped the prefix 'teacher.backbone.'",
            "left out the encoder under 'student.backbone.'",
        },
        "teacher",
    ),
    "VoCo training": (
        _voco_training,
        {
            "stripped the prefix 'module.backbone.'",
            "left out 1 keys of 'module.student.layer1'",
        },
    ),
    "eva's Lightning checkpoint": (
        _eva_lightning,
        {"stripped the prefix 'encoder.model.'", "left out 6 keys of 'decoder'"},
    ),
    "whole SwinUNETR": (
        lambda weights: weights | _decoder(),
        {"left out 1 keys of 'decoder1'", "left out 1 keys of 'out'"},
    ),
    "wrapped in FSDP": (_wrapped, {"stripped the prefix '_fsdp_wrapped_module.'"}),
    "private name of the model": (
        lambda weights: _prefixed(weights, "net._model.network."),
        {"stripped the prefix 'net._model.network.'"},
    ),
    "a running average of PyTorch": (
        lambda weights: {"n_averaged": torch.tensor(9)} | _prefixed(weights, "module."),
        {"stripped the prefix 'module.'", "left out 1 keys of 'n_averaged'"},
    ),
    "an average beside the raw weights": (
        lambda weights: {"model": _zeros(weights), "model_ema": weights, "epoch": 3},
        {"read the state dict under 'model_ema'", "left out 'model' beside it"},
        "model_ema",
    ),
    "raw weights beside an average": (
        lambda weights: {
            "state_dict": _prefixed(weights, "model."),
            "ema_state_dict": _prefixed(_zeros(weights), "module."),
        },
        {"read the state dict under 'state_dict'", "left out 'ema_state_dict' beside it"},
        "state_dict",
    ),
    "an average beside the raw weights, by prefix": (
        lambda weights: (
            _prefixed(_zeros(weights), "model.") | _prefixed(weights, "ema_model.module.")
        ),
        {"stripped the prefix 'ema_model.module.'", "left out the encoder under 'model.'"},
        "ema_model",
    ),
    "an average as a list": (
        lambda weights: {"model": _zeros(weights), "ema": [0.999, weights]},
        {"read the state dict under 'ema'", "left out 'model' beside it"},
        "ema",
    ),
    "a list of state dicts": (
        lambda weights: [_zeros(weights), _prefixed(weights, "module.")],
        {"read the state dict under '1'", "left out '0' beside it"},
        "1",
    ),
    "an average whose weights have no names": (
        lambda weights: {
            "model": weights,
            "ema": {"decay": 0.9, "shadow_params": list(_zeros(weights).values())},
        },
        {"left out 'ema', whose tensors have no names of the encoder"},
    ),
    "an average of copies on several devices": (
        lambda weights: (
            {"module.n_averaged": torch.tensor(9)} | _prefixed(weights, "module.module.")
        ),
        {"stripped the prefix 'module.module.'"},
    ),
    "compiled in the middle": (
        lambda weights: {
            key.replace(".blocks.0", ".blocks._orig_mod.0"): value for key, value in weights.items()
        },
        set(),
    ),
    "the format of old versions of PyTorch": (lambda weights: weights, set()),
    "a nesting of one's own": (
        lambda weights: {"epoch": 3, "my_weights": {"inner": weights}},
        {"read the state dict under 'my_weights'", "read the state dict under 'inner'"},
    ),
}

_WITHOUT_V2 = {"SuPreM", "whole SwinUNETR", "wrapped in FSDP"}
"""Layouts of encoders from before the convolutional blocks of the second version."""


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_layouts(layout: str, tmp_path: pathlib.Path) -> None:
    """Each layout gives the tensors of eva's encoder, and says what was done to them."""
    build, expected_report, *keys = _LAYOUTS[layout]
    key = keys[0] if keys else None
    use_v2 = layout not in _WITHOUT_V2
    reference = radiology.SwinUNETREncoder(feature_size=12, use_v2=use_v2)
    path = tmp_path / "weights.pt"
    is_old = "old versions" in layout
    torch.save(build(reference.state_dict()), path, _use_new_zipfile_serialization=not is_old)

    checkpoint = checkpoints.read(path, checkpoint_key=key)

    assert (checkpoint.feature_size, checkpoint.in_channels) == (12, 1)
    assert checkpoint.use_v2 == use_v2
    assert expected_report <= set(checkpoint.report)
    if not expected_report:
        assert not checkpoint.report
    encoder = CoralBayEncoder(patch_merging="legacy", checkpoint=path, checkpoint_key=key)
    _assert_equal(encoder.state_dict(), reference.state_dict())


def test_published_folder(weights: StateDict, tmp_path: pathlib.Path) -> None:
    """The layout of `kaiko-ai/coralbay`; the code that its config names is not run."""
    config = {
        "architectures": ["CoralBayModel"],
        "auto_map": {"AutoModel": "modeling_coralbay.CoralBayModel"},
        "feature_size": 12,
        "model_type": "coralbay",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modeling_coralbay.py").write_text("raise SystemExit('run')")
    safetensors.torch.save_file(_prefixed(weights, "encoder."), tmp_path / "model.safetensors")

    for source in (tmp_path, tmp_path / "model.safetensors"):
        checkpoint = checkpoints.read(source)
        assert checkpoint.config == config
        assert checkpoint.patch_merging is None
        _assert_equal(checkpoint.state_dict, weights)


def test_folder_of_pytorch_weights(weights: StateDict, tmp_path: pathlib.Path) -> None:
    torch.save(_prefixed(weights, "encoder."), tmp_path / "pytorch_model.bin")

    _assert_equal(checkpoints.read(tmp_path).state_dict, weights)


def test_own_export_states_its_merging(tmp_path: pathlib.Path) -> None:
    encoder = CoralBayEncoder(feature_size=12, patch_merging="octants")
    encoder.save_pretrained(tmp_path)

    checkpoint = checkpoints.read(tmp_path)

    assert checkpoint.patch_merging == "octants"
    _assert_equal(checkpoint.state_dict, encoder.state_dict())


def test_config_of_other_files_is_not_read(weights: StateDict, tmp_path: pathlib.Path) -> None:
    torch.save(weights, tmp_path / "epoch_3.pt")
    (tmp_path / "config.json").write_text(json.dumps({"feature_size": 99}))

    assert checkpoints.read(tmp_path / "epoch_3.pt").config == {}


def test_missing_position_index_is_recomputed(weights: StateDict, tmp_path: pathlib.Path) -> None:
    lean = {key: value for key, value in weights.items() if "relative_position_index" not in key}
    torch.save(lean, tmp_path / "lean.pt")

    encoder = CoralBayEncoder(checkpoint=tmp_path / "lean.pt")

    _assert_equal(encoder.state_dict(), weights)


def test_other_position_index_is_refused(weights: StateDict, tmp_path: pathlib.Path) -> None:
    key = "swinViT.layers1.0.blocks.0.attn.relative_position_index"
    torch.save(weights | {key: weights[key].flip(0)}, tmp_path / "x.pt")

    with pytest.raises(checkpoints.CheckpointError, match=f"1 another window layout: {key}"):
        CoralBayEncoder(feature_size=12, checkpoint=str(tmp_path / "x.pt"))


# -- contradictions ---------------------------------------------------------------------------


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
    weights: StateDict, tmp_path: pathlib.Path, log: list[str]
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
            **_prefixed(_zeros(teacher), "student.encoder."),
            **_prefixed(teacher, "teacher.encoder."),
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
    _assert_equal(encoder.state_dict(), teacher)
    student = CoralBayEncoder(checkpoint=tmp_path / "step=1.ckpt", checkpoint_key="student")
    _assert_equal(student.state_dict(), _zeros(teacher))


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
        _assert_equal(encoder.state_dict(), original.state_dict())


def test_config_of_other_weights(weights: StateDict, tmp_path: pathlib.Path) -> None:
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"feature_size": 48}))

    with pytest.raises(
        checkpoints.CheckpointError, match="feature_size 48 but the weights have 12"
    ):
        checkpoints.read(tmp_path)


@pytest.mark.parametrize("value", ["both", 3, ["legacy"]])
def test_unknown_merging_in_config(value: Any, weights: StateDict, tmp_path: pathlib.Path) -> None:
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"patch_merging": value}))

    with pytest.raises(checkpoints.CheckpointError, match="must be one of"):
        checkpoints.read(tmp_path)


# -- hashes -----------------------------------------------------------------------------------


def test_hash_of_the_caller(weights: StateDict, tmp_path: pathlib.Path) -> None:
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


# -- broken files -----------------------------------------------------------------------------


class _Code:
    """What a pickle from outside may hold: a call of the reader's machine."""

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return os.mkdir, ("ran_code",)


def _missing(path: pathlib.Path, weights: StateDict) -> None:
    del path, weights


def _empty(path: pathlib.Path, weights: StateDict) -> None:
    path.write_bytes(b"")


def _web_page(path: pathlib.Path, weights: StateDict) -> None:
    path.write_text("\n<!DOCTYPE html><html><body>Log in</body></html>")


def _git_lfs(path: pathlib.Path, weights: StateDict) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


def _noise(path: pathlib.Path, weights: StateDict) -> None:
    path.write_bytes(bytes(range(256)) * 20)


def _code(path: pathlib.Path, weights: StateDict) -> None:
    torch.save({"state_dict": weights, "args": _Code()}, path)


def _cut_short(path: pathlib.Path, weights: StateDict) -> None:
    torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:100_000])


def _compressed(path: pathlib.Path, weights: StateDict) -> None:
    """A file of 0.1 MB that unpacks to 0.1 GB."""
    del weights
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 100_000_000)


class _Stage(enum.Enum):
    FIT = "fit"


def _optimizer(weights: StateDict) -> dict[str, Any]:
    parameter = torch.nn.Parameter(weights[_QKV])
    parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW([parameter])
    optimizer.step()
    return optimizer.state_dict()


def _program(path: pathlib.Path, weights: StateDict) -> None:
    del weights
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)


def _arrays(path: pathlib.Path, weights: StateDict) -> None:
    with path.open("wb") as file:
        np.savez(file, **{key: value.numpy() for key, value in weights.items()})


def _gzip(path: pathlib.Path, weights: StateDict) -> None:
    torch.save(weights, path)
    path.write_bytes(gzip.compress(path.read_bytes(), compresslevel=1))


def _saves(build: Callable[[StateDict], Any]) -> Callable[[pathlib.Path, StateDict], None]:
    return lambda path, weights: torch.save(build(weights), path)


def _without(weights: StateDict, text: str) -> StateDict:
    return {key: value for key, value in weights.items() if text not in key}


_PROJECTION = "swinViT.patch_embed.proj.weight"
_INDEX = "swinViT.layers3.0.blocks.1.attn.relative_position_index"
_QKV = "swinViT.layers3.0.blocks.1.attn.qkv.weight"

_BROKEN: dict[str, tuple[Callable[[pathlib.Path, StateDict], None], str]] = {
    "no such file": (_missing, "no such file or folder"),
    "compressed archive": (_compressed, "a compressed archive that unpacks to 0.1 GB"),
    "numpy scalars": (
        _saves(lambda weights: {"state_dict": weights, "best": np.float64(0.5)}),
        r"numpy.*as NumPy numbers have them.*python -c .*weights_only=False.*_weights.pt",
    ),
    "an enumeration": (
        _saves(lambda weights: {"state_dict": weights, "stage": _Stage.FIT}),
        r"_Stage.*refused.*python -c .*weights_only=False",
    ),
    "an average, not said which": (
        _saves(lambda weights: {"model": weights, "model_ema": weights}),
        "several encoders, which differ: 'model', 'model_ema'.*checkpoint_key='model_ema'",
    ),
    "student and teacher, not said which": (
        _saves(_self_distillation),
        "several encoders, which differ: 'student', 'teacher'.*checkpoint_key='teacher'",
    ),
    "student and teacher by prefix, not said which": (
        _saves(lambda w: _prefixed(w, "student.") | _prefixed(w, "teacher.")),
        "several encoders, which differ, under 'student', 'teacher'.*checkpoint_key='teacher'",
    ),
    "an average as a list, not said which": (
        _saves(lambda weights: {"model": weights, "ema": [weights]}),
        "several encoders, which differ: 'model', 'ema'",
    ),
    "raw and averaged modules, not said which": (
        _saves(lambda w: _prefixed(w, "encoder.") | _prefixed(w, "ema.module.")),
        "several encoders, which differ, under 'encoder', 'ema.module'",
    ),
    "an adapter within the teacher's encoder": (
        _saves(lambda w: _prefixed(w, "teacher.encoder.") | {"teacher.encoder.adapter.w": w[_QKV]}),
        "1 unexpected: teacher.encoder.adapter.w",
    ),
    "an optimizer": (_saves(_optimizer), "no tensors in 'state'.*Pass a file with the weights"),
    "a program": (_program, "a zip archive that `torch.save` did not write.*TorchScript"),
    "arrays of NumPy": (_arrays, "a zip archive that `torch.save` did not write"),
    "a file in gzip": (_gzip, "compressed with gzip. Unpack it"),
    "numbers as keys": (
        _saves(lambda weights: dict(enumerate(weights.values()))),
        "keys of type int in place of names",
    ),
    "integer weights": (
        _saves(lambda weights: weights | {_QKV: weights[_QKV].to(torch.int8)}),
        f"values of type int8 in 1 tensors: {_QKV} of 145",
    ),
    "bool weights": (
        _saves(lambda weights: weights | {_QKV: weights[_QKV] > 0}),
        "values of type bool in 1 tensors",
    ),
    "complex weights": (
        _saves(lambda weights: weights | {_QKV: weights[_QKV].to(torch.complex64)}),
        "values of type complex64",
    ),
    "a position index of floats": (
        _saves(lambda weights: weights | {_INDEX: weights[_INDEX].float()}),
        "an index that is no integer in 1 tensors",
    ),
    "quantized weights": (
        _saves(
            lambda weights: (
                weights | {_QKV: torch.quantize_per_tensor(weights[_QKV], 0.1, 0, torch.qint8)}
            )
        ),
        "quantized values in 1 tensors",
    ),
    "sparse weights": (
        _saves(lambda weights: weights | {_QKV: weights[_QKV].to_sparse()}),
        "sparse values in 1 tensors",
    ),
    "meta weights": (
        _saves(lambda weights: weights | {_QKV: weights[_QKV].to("meta")}),
        "no values .meta tensors. in 1 tensors",
    ),
    "weights that overflow": (
        _saves(lambda weights: weights | {_QKV: weights[_QKV].double() * 1e300}),
        "NaN or infinite values .in float32. in 1 tensors",
    ),
    "expanded weights": (
        _saves(lambda weights: weights | {_QKV: torch.zeros(1, 1).expand(144, 48)}),
        "expanded values .a stride of 0.* in 1 tensors",
    ),
    "a training of ours that does not say what": (
        _saves(lambda weights: {"state_dict": weights, "coralbay": {"encoder": 3}}),
        "does not say which encoder was trained",
    ),
    "empty file": (_empty, "the file is empty"),
    "web page": (_web_page, "a web page"),
    "git-lfs pointer": (_git_lfs, "git lfs pull"),
    "noise": (_noise, "damaged or cut short"),
    "pickled code": (_code, "other Python objects than tensors .*mkdir.*refused"),
    "cut short": (_cut_short, "damaged or cut short"),
    "a tensor": (_saves(lambda weights: weights[_QKV]), "holds a Tensor, a state dict is needed"),
    "no tensors": (_saves(lambda weights: {"epoch": 1, "net": {}}), "no tensors.*epoch, net"),
    "two encoders": (
        _saves(lambda w: _prefixed(w, "module.") | _prefixed(w, "backbone.")),
        "several encoders, which differ, under 'module', 'backbone'",
    ),
    "missing keys": (
        _saves(lambda weights: _without(weights, "layers2")),
        r"31 missing: swinViT.layers2.*and 21 more",
    ),
    "no patch embedding": (
        _saves(lambda weights: _without(weights, "patch_embed")),
        f"1 missing: {_PROJECTION}",
    ),
    "an unexpected key": (
        _saves(lambda weights: weights | {"adapter.weight": torch.zeros(2)}),
        "1 unexpected: adapter.weight",
    ),
    "an unexpected key within": (
        _saves(lambda weights: weights | {"swinViT.norm.weight": torch.zeros(2)}),
        "1 unexpected: swinViT.norm.weight",
    ),
    "a key twice": (
        _saves(lambda weights: weights | _swin_vit({_QKV: weights[_QKV]})),
        "1 unexpected: swin_vit.layers3",
    ),
    "wrong shape": (
        _saves(lambda weights: weights | {_QKV: torch.zeros(9, 3)}),
        rf"1 wrong shape: {_QKV} \(9, 3\) instead of \(144, 48\)",
    ),
    "2D weights": (
        _saves(lambda weights: weights | {_PROJECTION: torch.zeros(12, 1, 2, 2)}),
        "weights of a 2D encoder",
    ),
    "NaN": (
        _saves(lambda weights: weights | {_QKV: torch.full((144, 48), torch.nan)}),
        f"NaN or infinite values .in float32. in 1 tensors: {_QKV} of 145",
    ),
    "MONAI's self-supervised Swin part": (
        _saves(
            lambda weights: {
                "state_dict": {
                    key.replace("swinViT.", "module."): value
                    for key, value in weights.items()
                    if key.startswith("swinViT.")
                }
            }
        ),
        "the Swin part alone .*also needs encoder1, encoder10",
    ),
    "another network": (
        _saves(lambda weights: {"conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}),
        "no key of a Swin encoder.*conv1.weight, fc.bias",
    ),
}


@pytest.mark.parametrize("kind", _BROKEN)
def test_broken_files(
    kind: str, weights: StateDict, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is an error that names the file and the cause, and runs nothing."""
    monkeypatch.chdir(tmp_path)
    write, message = _BROKEN[kind]
    path = tmp_path / "weights.pt"
    write(path, weights)

    with pytest.raises(checkpoints.CheckpointError, match=f"(?s){message}") as caught:
        CoralBayEncoder(feature_size=12, patch_merging="legacy", checkpoint=str(path))

    assert str(path) in str(caught.value)
    assert not (tmp_path / "ran_code").exists()


def test_safetensors_cut_short(weights: StateDict, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(weights, path)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(checkpoints.CheckpointError, match="damaged or cut short"):
        checkpoints.read(path)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not valid JSON"), ("[]", "a JSON object is needed, got list")]
)
def test_broken_config(text: str, message: str, weights: StateDict, tmp_path: pathlib.Path) -> None:
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)

    with pytest.raises(checkpoints.CheckpointError, match=message):
        checkpoints.read(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hu_window": [1]}, "a preprocessing that cannot be .*hu_window .1."),
        ({"hu_window": "ab"}, "a preprocessing that cannot be"),
        ({"hu_window": [250, -175]}, "a preprocessing that cannot be"),
        ({"spacing_mm": 1.5}, "a preprocessing that cannot be .*spacing_mm 1.5"),
        ({"spacing_mm": [1, 1]}, "a preprocessing that cannot be"),
        ({"orientation": "XYZ"}, "a preprocessing that cannot be .*three axis codes"),
        ({"orientation": 3}, "a preprocessing that cannot be"),
        ({"embeddings_type": "all"}, "embeddings_type is 'all' in its config"),
        ({"embeddings_type": ["head"]}, "embeddings_type is .'head'. in its config"),
    ],
)
def test_config_that_cannot_be(
    config: dict[str, Any], message: str, weights: StateDict, tmp_path: pathlib.Path
) -> None:
    stated = {"spacing_mm": [1, 1, 1], "orientation": "RAS", "hu_window": [0, 1], **config}
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(stated))

    with pytest.raises(checkpoints.CheckpointError, match=message) as raised:
        CoralBayEncoder(checkpoint=tmp_path, patch_merging="legacy")
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("name", ["weights.SAFETENSORS", "weights.pt", "weights"])
def test_safetensors_by_any_name(name: str, weights: StateDict, tmp_path: pathlib.Path) -> None:
    """What the metadata in it claim of other models does not count."""
    metadata = {"format": "pt", "model_type": "bert", "patch_merging": "octants"}
    safetensors.torch.save_file(weights, tmp_path / name, metadata)

    checkpoint = checkpoints.read(tmp_path / name)

    assert checkpoint.patch_merging is None and checkpoint.config == {}
    _assert_equal(checkpoint.state_dict, weights)


@pytest.mark.parametrize("source", ["runs/encoder", "runs/step=1.ckpt", "encoder", "absent/x.pth"])
def test_missing_paths_are_no_hub_ids(
    source: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path in a folder that is there, or with the suffix of weights, is not asked of the Hub."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()

    with pytest.raises(checkpoints.CheckpointError, match="no such file or folder"):
        checkpoints.read(source)


def test_an_encoder_of_terabytes_by_its_first_layer(tmp_path: pathlib.Path) -> None:
    """A small file cannot make the loader build a network that no memory holds."""
    torch.save({_PROJECTION: torch.zeros(120_000, 1, 2, 2, 2)}, tmp_path / "x.pt")

    with pytest.raises(checkpoints.CheckpointError, match=r"\d+ missing: swinViT"):
        CoralBayEncoder(checkpoint=tmp_path / "x.pt", patch_merging="legacy")


def test_whatever_a_file_causes_is_one_error(weights: StateDict, tmp_path: pathlib.Path) -> None:
    """A config of a kind that nobody foresaw is an error that names the source."""
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("[" * 100_000)

    with pytest.raises(checkpoints.CheckpointError, match=str(tmp_path)):
        checkpoints.read(tmp_path)


def test_folder_without_weights(tmp_path: pathlib.Path) -> None:
    (tmp_path / "notes.txt").touch()

    with pytest.raises(checkpoints.CheckpointError, match="found: notes.txt"):
        checkpoints.read(tmp_path)


def _assert_equal(given: StateDict, expected: StateDict) -> None:
    assert checkpoints.state_dict_sha256(given) == checkpoints.state_dict_sha256(expected)
