"""State dicts of encoders, as trainings save them."""

from typing import Any

import torch

from eva_coralbay.models import checkpoints

StateDict = dict[str, torch.Tensor]


def prefixed(state_dict: StateDict, prefix: str) -> StateDict:
    return {prefix + key: value for key, value in state_dict.items()}


def swin_vit(state_dict: StateDict) -> StateDict:
    return {key.replace("swinViT", "swin_vit"): value for key, value in state_dict.items()}


def self_distillation(state_dict: StateDict) -> dict[str, Any]:
    student = {key: torch.zeros_like(value) for key, value in state_dict.items()}
    return {
        "student": prefixed(student, "encoder.") | {"head.last_layer.weight": torch.ones(2)},
        "teacher": prefixed(state_dict, "encoder.") | {"head.last_layer.weight": torch.ones(2)},
        "center": torch.zeros(2),
        "epoch": 3,
    }


def zeros(state_dict: StateDict) -> StateDict:
    return {k: torch.zeros_like(v) if v.is_floating_point() else v for k, v in state_dict.items()}


def assert_equal(given: StateDict, expected: StateDict) -> None:
    assert checkpoints.state_dict_sha256(given) == checkpoints.state_dict_sha256(expected)
