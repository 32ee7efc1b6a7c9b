"""Tests the loader on broken files, configs and folders."""

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

from eva_coralbay.models import CoralBayEncoder, checkpoints
from tests.eva_coralbay.models import state_dicts


class _Code:
    """What a pickle from outside may hold: a call of the reader's machine."""

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return os.mkdir, ("ran_code",)


def _missing(path: pathlib.Path, weights: state_dicts.StateDict) -> None:
    del path, weights


def _empty(path: pathlib.Path, weights: state_dicts.StateDict) -> None:
    path.write_bytes(b"")


def _web_page(path: pathlib.Path, weights: state_dicts.StateDict) -> None:
    path.write_text("\n<!DOCTYPE html><html><body>Log in</body></html>")


def _git_lfs(path: pathlib.Path, weights: state_dicts.StateDict) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


def _noise(path: pathlib.Path, weights: state_dicts.StateDict) -> None:
    path.write_bytes(bytes(range(256)) * 20)


def _code(path: pathlib.Path, weights: state_dicts.StateDict) -> None:
    torch.save({"state_dict": weights, "args": _Code()}, path)


def _cut_short(path: pathlib.Path, weights: state_dicts.StateDict) -> None:
    torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:100_000])


def _compressed(path: pathlib.Path, weights: state_dicts.StateDict) -> None:
    """A file of 0.1 MB that unpacks to 0.1 GB."""
    del weights
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 100_000_000)


class _Bytes:
    """What a pickle may hold: a number that stands for bytes, here few of them."""

    def __reduce__(self) -> tuple[type[bytearray], tuple[int]]:
        return bytearray, (3,)


class _Tensor:
    """As above, as a tensor."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return torch.FloatTensor, (3,)


class _Stage(enum.Enum):
    FIT = "fit"


def _optimizer(weights: state_dicts.StateDict) -> dict[str, Any]:
    parameter = torch.nn.Parameter(weights[_QKV])
    parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW([parameter])
    optimizer.step()
    return optimizer.state_dict()


def _program(path: pathlib.Path, weights: state_dicts.StateDict) -> None:
    del weights
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)


def _arrays(path: pathlib.Path, weights: state_dicts.StateDict) -> None:
    with path.open("wb") as file:
        np.savez(file, **{key: value.numpy() for key, value in weights.items()})


def _gzip(path: pathlib.Path, weights: state_dicts.StateDict) -> None:
    torch.save(weights, path)
    path.write_bytes(gzip.compress(path.read_bytes(), compresslevel=1))


def _saves(
    build: Callable[[state_dicts.StateDict], Any],
) -> Callable[[pathlib.Path, state_dicts.StateDict], None]:
    return lambda path, weights: torch.save(build(weights), path)


def _without(weights: state_dicts.StateDict, text: str) -> state_dicts.StateDict:
    return {key: value for key, value in weights.items() if text not in key}


_PROJECTION = "swinViT.patch_embed.proj.weight"


_INDEX = "swinViT.layers3.0.blocks.1.attn.relative_position_index"


_QKV = "swinViT.layers3.0.blocks.1.attn.qkv.weight"


_BROKEN: dict[str, tuple[Callable[[pathlib.Path, state_dicts.StateDict], None], str]] = {
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
        _saves(state_dicts.self_distillation),
        "several encoders, which differ: 'student', 'teacher'.*checkpoint_key='teacher'",
    ),
    "student and teacher by prefix, not said which": (
        _saves(lambda w: state_dicts.prefixed(w, "student.") | state_dicts.prefixed(w, "teacher.")),
        "several encoders, which differ, under 'student', 'teacher'.*checkpoint_key='teacher'",
    ),
    "an average as a list, not said which": (
        _saves(lambda weights: {"model": weights, "ema": [weights]}),
        "several encoders, which differ: 'model', 'ema'",
    ),
    "raw and averaged modules, not said which": (
        _saves(
            lambda w: state_dicts.prefixed(w, "encoder.") | state_dicts.prefixed(w, "ema.module.")
        ),
        "several encoders, which differ, under 'encoder', 'ema.module'",
    ),
    "an adapter within the teacher's encoder": (
        _saves(
            lambda w: (
                state_dicts.prefixed(w, "teacher.encoder.") | {"teacher.encoder.adapter.w": w[_QKV]}
            )
        ),
        "1 unexpected: teacher.encoder.adapter.w",
    ),
    "a number that stands for bytes": (
        _saves(lambda weights: weights | {"note": _Bytes()}),
        "holds .*bytearray, which may take any amount of memory",
    ),
    "a number that stands for bytes, in the old format": (
        lambda path, weights: torch.save(
            weights | {"note": _Bytes()}, path, _use_new_zipfile_serialization=False
        ),
        "holds .*bytearray, which may take any amount of memory",
    ),
    "a number that stands for a tensor": (
        _saves(lambda weights: weights | {"note": _Tensor()}),
        "holds torch.FloatTensor, which may take any amount of memory",
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
        "an index that is not an integer in 1 tensors",
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
        _saves(lambda w: state_dicts.prefixed(w, "module.") | state_dicts.prefixed(w, "backbone.")),
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
        _saves(lambda weights: weights | state_dicts.swin_vit({_QKV: weights[_QKV]})),
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
    kind: str,
    weights: state_dicts.StateDict,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
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


def test_safetensors_cut_short(weights: state_dicts.StateDict, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(weights, path)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(checkpoints.CheckpointError, match="damaged or cut short"):
        checkpoints.read(path)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not valid JSON"), ("[]", "a JSON object is needed, got list")]
)
def test_broken_config(
    text: str, message: str, weights: state_dicts.StateDict, tmp_path: pathlib.Path
) -> None:
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
    config: dict[str, Any], message: str, weights: state_dicts.StateDict, tmp_path: pathlib.Path
) -> None:
    stated = {"spacing_mm": [1, 1, 1], "orientation": "RAS", "hu_window": [0, 1], **config}
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(stated))

    with pytest.raises(checkpoints.CheckpointError, match=message) as raised:
        CoralBayEncoder(checkpoint=tmp_path, patch_merging="legacy")
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("name", ["weights.SAFETENSORS", "weights.pt", "weights"])
def test_safetensors_by_any_name(
    name: str, weights: state_dicts.StateDict, tmp_path: pathlib.Path
) -> None:
    """What the metadata in it claim of other models does not count."""
    metadata = {"format": "pt", "model_type": "bert", "patch_merging": "octants"}
    safetensors.torch.save_file(weights, tmp_path / name, metadata)

    checkpoint = checkpoints.read(tmp_path / name)

    assert checkpoint.patch_merging is None and checkpoint.config == {}
    state_dicts.assert_equal(checkpoint.state_dict, weights)


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


def test_whatever_a_file_causes_is_one_error(
    weights: state_dicts.StateDict, tmp_path: pathlib.Path
) -> None:
    """A config of a kind that nobody foresaw is an error that names the source."""
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("[" * 100_000)

    with pytest.raises(checkpoints.CheckpointError, match=str(tmp_path)):
        checkpoints.read(tmp_path)


def test_folder_without_weights(tmp_path: pathlib.Path) -> None:
    (tmp_path / "notes.txt").touch()

    with pytest.raises(checkpoints.CheckpointError, match="found: notes.txt"):
        checkpoints.read(tmp_path)
