"""Malformed checkpoints, and folders that `save_pretrained` wrote."""

import functools
import json
import pathlib
from typing import Any

import numpy as np
import safetensors.torch
import torch

from eva_coralbay.models import CoralBayEncoder, load_encoder
from tests.fuzz import mutations
from tests.fuzz.campaign import Kind

_PREFIXES = (
    "", "module.", "encoder.", "backbone.", "net.", "model.", "_orig_mod.", "teacher.", "x.y.",
    "module.module.",
)  # fmt: skip

_KEYS = ("state_dict", "model", "net", "teacher", "ema_state_dict", "model_ema", "weights", "")

_VALUES: Any = (
    None, True, 0, 12, 13, -12, 48, 2**70, 1.5, float("nan"), "", "a", "octants", "legacy",
    "multiscale", [], {}, [64, 64, 64], [1.5, -1.0, 1.5], [-175.0, 250.0], [250.0, -175.0],
    "a\x00b", "\ud800", "a" * 5000, {"a": 1}, "../../x",
)  # fmt: skip
"""What may stand in any place of a configuration."""


@functools.cache
def _weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return CoralBayEncoder(feature_size=12).state_dict()


def _write_checkpoint(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    prefix = mutations.choose(random, _PREFIXES)
    content: Any = {prefix + name: tensor for name, tensor in _weights().items()}
    for name in random.permutation(list(content))[: random.integers(3)]:
        changed = _change(random, content[name])
        content = {**content, name: changed}
        if random.random() < 0.2:
            del content[name]
    if random.random() < 0.1:
        content[mutations.choose(random, (3, ("a",), "extra", b"b"))] = torch.zeros(2)
    key = mutations.choose(random, _KEYS)
    if key:
        content = {key: content}
        if random.random() < 0.3:
            content[mutations.choose(random, _KEYS) or "step"] = mutations.choose(random, _VALUES)
    path = folder / "weights.pt"
    torch.save(content, path)
    if random.random() < 0.3:
        path.write_bytes(mutations.damage(random, path.read_bytes()))
    return path


def _change(random: np.random.Generator, tensor: torch.Tensor) -> Any:
    """Returns something else than a weight of the encoder."""
    options = (
        lambda: tensor.to(torch.int64), lambda: tensor > 0, lambda: tensor.half(),
        lambda: tensor.double() * 1e300, lambda: tensor * float("nan"),
        lambda: tensor.to_sparse(), lambda: tensor.to("meta"), lambda: tensor[..., :1],
        lambda: torch.zeros(()), lambda: torch.zeros(1).expand(tensor.shape),
        lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
        lambda: tensor.to(torch.complex64), lambda: tensor.to(torch.float8_e4m3fn),
        lambda: tensor.numpy(), lambda: None, lambda: "a", lambda: 3, lambda: [tensor],
    )  # fmt: skip
    return mutations.choose(random, options)()


def _write_export(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    path = folder / "encoder"
    path.mkdir()
    config = {
        "architectures": ["CoralBayEncoder"],
        "model_type": "coralbay",
        "feature_size": 12,
        "in_channels": 1,
        "use_v2": True,
        "patch_merging": "octants",
        "embeddings_type": "multiscale",
        "spacing_mm": [1.5, 1.5, 1.5],
        "orientation": "SPL",
        "hu_window": [-175.0, 250.0],
    }
    for _ in range(int(random.integers(3))):
        config = mutations.replace_node(random, config, _VALUES)
    text = json.dumps(config)
    if random.random() < 0.1:
        text = mutations.damage(random, text.encode()).decode("latin-1")
    (path / "config.json").write_text(text)
    content = safetensors.torch.save(dict(_weights()))
    if random.random() < 0.4:
        content = mutations.damage(random, content, within=20_000)
    (path / "model.safetensors").write_bytes(content)
    if random.random() < 0.05:
        (path / mutations.choose(random, ("config.json", "model.safetensors"))).unlink()
    return path


def _read(path: pathlib.Path) -> torch.nn.Module:
    return load_encoder(path)


def _check(path: pathlib.Path, encoder: torch.nn.Module) -> str | None:
    """Compares what was loaded with the file, value by value, as float32."""
    for name, tensor in encoder.state_dict().items():
        if not torch.isfinite(tensor).all():
            return f"{name} is not finite"
        if tensor.shape != _weights()[name].shape:
            return f"{name} has another shape"
    return None


CHECKPOINTS = Kind("checkpoints", _write_checkpoint, _read, _check, max_growth=512 * 2**20)

EXPORTS = Kind("exports", _write_export, _read, _check, max_growth=512 * 2**20)
