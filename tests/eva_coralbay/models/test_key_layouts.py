"""Tests the loader on the key layouts that are in use."""

import pathlib
from typing import Any

import pytest
import torch
from eva.vision.models.networks.backbones import radiology

from eva_coralbay.models import CoralBayEncoder, checkpoints
from tests.eva_coralbay.models import state_dicts


def _decoder(prefix: str = "") -> state_dicts.StateDict:
    names = [f"decoder{level}.conv_block.conv1.conv.weight" for level in (1, 2, 3, 4, 5)]
    return {prefix + name: torch.zeros(2) for name in [*names, "out.conv.conv.weight"]}


def _suprem(state_dict: state_dicts.StateDict) -> dict[str, Any]:
    prefix = "module.backbone."
    heads = ("precls_conv.2.weight", "GAP.0.weight", "controller.weight", "text_to_vision.bias")
    return {
        "net": {
            "module.organ_embedding": torch.zeros(2),
            **state_dicts.prefixed(state_dict, prefix),
            **_decoder(prefix),
            **{f"module.{name}": torch.zeros(2) for name in heads},
        },
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 2100,
    }


def _voco_training(state_dict: state_dicts.StateDict) -> dict[str, Any]:
    return {
        "state_dict": {
            **state_dicts.prefixed(state_dict, "module.backbone."),
            "module.student.layer1.0.weight": torch.zeros(2),
            "module.teacher.layer1.0.weight": torch.zeros(2),
        },
        "epoch": 3,
    }


def _eva_lightning(state_dict: state_dicts.StateDict) -> dict[str, Any]:
    decoder = state_dicts.prefixed(_decoder(), "decoder.")
    return {
        "state_dict": state_dicts.prefixed(state_dict, "encoder.model.") | decoder,
        "global_step": 3,
        "pytorch-lightning_version": "2.6.0",
    }


def _wrapped(state_dict: state_dicts.StateDict) -> state_dicts.StateDict:
    """Keys as FSDP and activation checkpointing leave them: wrappers around single modules."""
    return {
        f"_fsdp_wrapped_module.{key}".replace(
            ".blocks.", "._fsdp_wrapped_module._checkpoint_wrapped_module.blocks."
        ): value
        for key, value in state_dict.items()
    }


_LAYOUTS: dict[str, tuple] = {
    "eva's VoCo file": (lambda weights: weights, set()),
    "distributed training": (
        lambda weights: state_dicts.prefixed(weights, "module."),
        {"stripped the prefix 'module.'"},
    ),
    "compiled in a distributed wrapper, twice": (
        lambda weights: state_dicts.prefixed(weights, "module._orig_mod.module."),
        {"stripped the prefix 'module._orig_mod.module.'"},
    ),
    "other name of the Swin part": (
        lambda weights: {"model": state_dicts.prefixed(state_dicts.swin_vit(weights), "encoder.")},
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
        state_dicts.self_distillation,
        {
            "read the state dict under 'teacher'",
            "left out 'student' beside it",
            "left out 1 keys of 'head'",
        },
        "teacher",
    ),
    "flat self-distillation": (
        lambda weights: {
            **state_dicts.prefixed(
                {k: torch.zeros_like(v) for k, v in weights.items()}, "student.backbone."
            ),
            **state_dicts.prefixed(weights, "teacher.backbone."),
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
        lambda weights: state_dicts.prefixed(weights, "net._model.network."),
        {"stripped the prefix 'net._model.network.'"},
    ),
    "a running average of PyTorch": (
        lambda weights: {"n_averaged": torch.tensor(9)} | state_dicts.prefixed(weights, "module."),
        {"stripped the prefix 'module.'", "left out 1 keys of 'n_averaged'"},
    ),
    "an average beside the raw weights": (
        lambda weights: {"model": state_dicts.zeros(weights), "model_ema": weights, "epoch": 3},
        {"read the state dict under 'model_ema'", "left out 'model' beside it"},
        "model_ema",
    ),
    "raw weights beside an average": (
        lambda weights: {
            "state_dict": state_dicts.prefixed(weights, "model."),
            "ema_state_dict": state_dicts.prefixed(state_dicts.zeros(weights), "module."),
        },
        {"read the state dict under 'state_dict'", "left out 'ema_state_dict' beside it"},
        "state_dict",
    ),
    "an average beside the raw weights, by prefix": (
        lambda weights: (
            state_dicts.prefixed(state_dicts.zeros(weights), "model.")
            | state_dicts.prefixed(weights, "ema_model.module.")
        ),
        {"stripped the prefix 'ema_model.module.'", "left out the encoder under 'model.'"},
        "ema_model",
    ),
    "an average as a list": (
        lambda weights: {"model": state_dicts.zeros(weights), "ema": [0.999, weights]},
        {"read the state dict under 'ema'", "left out 'model' beside it"},
        "ema",
    ),
    "a list of state dicts": (
        lambda weights: [state_dicts.zeros(weights), state_dicts.prefixed(weights, "module.")],
        {"read the state dict under '1'", "left out '0' beside it"},
        "1",
    ),
    "an average whose weights have no names": (
        lambda weights: {
            "model": weights,
            "ema": {"decay": 0.9, "shadow_params": list(state_dicts.zeros(weights).values())},
        },
        {"left out 'ema', whose tensors have no names of the encoder"},
    ),
    "an average of copies on several devices": (
        lambda weights: (
            {"module.n_averaged": torch.tensor(9)} | state_dicts.prefixed(weights, "module.module.")
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
    state_dicts.assert_equal(encoder.state_dict(), reference.state_dict())
