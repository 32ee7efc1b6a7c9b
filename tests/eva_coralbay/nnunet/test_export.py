"""Tests the export to nnU-Net, without nnU-Net: what it does with plans and weights is done here.

`data/nnUNetPlans.json` is what nnU-Net 2.8.1 has written for six generated scans.
"""

import copy
import json
import pathlib
import pydoc
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from eva_coralbay.cli import main
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import encoder as encoder_lib
from eva_coralbay.models import loading
from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.nnunet import export

_PLANS = pathlib.Path(__file__).parent / "data" / "nnUNetPlans.json"

_CLASSES = 3


@pytest.fixture(scope="module")
def encoder() -> encoder_lib.CoralBayEncoder:
    torch.manual_seed(1)
    built = encoder_lib.CoralBayEncoder(feature_size=12, patch_merging="legacy").eval()
    built.preprocessing = Preprocessing.of_window(
        -1000.0, 500.0, spacing=(1.0, 1.5, 3.0), orientation="RAS"
    )
    return built


def _read(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _export(encoder: nn.Module, out: pathlib.Path, **options: Any) -> dict[str, Any]:
    plans, _ = export.export(encoder, _PLANS, name="mine", out=out, **options)
    return _read(plans)


def _build(plans: dict[str, Any], *, deep_supervision: bool = True) -> Any:
    """Builds the network as `nnunetv2.utilities.get_network_from_plans` does."""
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    assert architecture["_kw_requires_import"] == []
    kind: Any = pydoc.locate(architecture["network_class_name"])
    return kind(
        input_channels=1,
        num_classes=_CLASSES,
        **architecture["arch_kwargs"],
        deep_supervision=deep_supervision,
    )


def _load(network: nn.Module, weights: pathlib.Path) -> None:
    """Loads weights as `nnunetv2.run.load_pretrained_weights` does."""
    loaded = torch.load(weights, weights_only=True)["network_weights"]
    own = network.state_dict()
    for key, value in own.items():
        assert ".seg_layers." in key or loaded[key].shape == value.shape
    assert not [key for key in loaded if key not in own or ".seg_layers." in key]
    network.load_state_dict({**own, **loaded})


def test_the_network_has_the_maps_of_the_encoder(
    encoder: encoder_lib.CoralBayEncoder, tmp_path: pathlib.Path
) -> None:
    plans, weights = export.export(encoder, _PLANS, name="mine", out=tmp_path)
    network = _build(_read(plans))
    _load(network, weights)

    volume = torch.rand(1, 1, 64, 64, 32)
    with torch.no_grad():
        expected = encoder.forward_features(volume)
        for found, wanted in zip(network.encoder(volume), expected, strict=True):
            assert torch.equal(found, wanted)
        levels = network(volume)
        network.decoder.deep_supervision = False
        logits = network(volume)

    assert torch.equal(logits, levels[0]) and logits.shape == (1, _CLASSES, 64, 64, 32)
    # the sizes that nnU-Net scales the labels to
    architecture = _read(plans)["configurations"]["3d_fullres"]["architecture"]
    scales = 1 / np.cumprod(np.vstack(architecture["arch_kwargs"]["strides"]), axis=0)[:-1]
    assert [level.shape[2:] for level in levels] == [
        tuple((np.array([64, 64, 32]) * scale).astype(int)) for scale in scales
    ]


def test_a_frozen_encoder_is_not_trained(
    encoder: encoder_lib.CoralBayEncoder, tmp_path: pathlib.Path
) -> None:
    plans = _export(encoder, tmp_path, is_frozen=True)
    network = _build(plans)

    sum(level.square().mean() for level in network(torch.rand(1, 1, 64, 32, 32))).backward()

    assert plans["plans_name"] == "mine_frozenPlans"
    assert all(weight.grad is None for weight in network.encoder.parameters())
    assert all(weight.grad is not None for weight in network.decoder.parameters())
    assert all(weight.requires_grad for weight in _build(_export(encoder, tmp_path)).parameters())


def test_weights_repeat(encoder: encoder_lib.CoralBayEncoder, tmp_path: pathlib.Path) -> None:
    """So that two encoders meet the same decoder."""
    first, second = (
        torch.load(
            export.export(encoder, _PLANS, name="mine", out=tmp_path / name)[1], weights_only=True
        )["network_weights"]
        for name in ("a", "b")
    )
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_plans_of_the_task(encoder: encoder_lib.CoralBayEncoder, tmp_path: pathlib.Path) -> None:
    source = _read(_PLANS)
    plans = _export(encoder, tmp_path)

    assert list(plans["configurations"]) == ["3d_fullres"]
    found, planned = (each["configurations"]["3d_fullres"] for each in (plans, source))
    changed = {key for key, value in found.items() if value != planned[key]}
    assert changed == {"data_identifier", "patch_size", "architecture"}
    assert found["data_identifier"] == "minePlans_3d_fullres"
    assert (planned["patch_size"], found["patch_size"]) == ([48, 48, 48], [64, 64, 64])
    assert _normalize(plans, [-500.0, -175.0, 37.5, 250.0, 900.0]) == [0.0, 0.0, 0.5, 1.0, 1.0]
    other = _export(encoder, tmp_path / "other", hu_window=(0, 100))
    assert _normalize(other, [25.0]) == [0.25]


def test_another_export_is_not_replaced(
    encoder: encoder_lib.CoralBayEncoder, tmp_path: pathlib.Path
) -> None:
    plans = _export(encoder, tmp_path)
    assert _export(encoder, tmp_path) == plans
    with pytest.raises(EvaCoralbayError, match="minePlans.json' is of another export"):
        _export(encoder, tmp_path, hu_window=(0, 100))
    others = copy.deepcopy(encoder)
    with torch.no_grad():
        next(others.parameters()).add_(1.0)
    with pytest.raises(EvaCoralbayError, match="minePlans.pth' is of another export"):
        _export(others, tmp_path)
    with pytest.raises(EvaCoralbayError, match="got 'a.b'"):
        export.export(encoder, _PLANS, name="a.b", out=tmp_path)
    assert _read(tmp_path / "minePlans.json") == plans


def test_plans_of_the_encoders_own_input(
    encoder: encoder_lib.CoralBayEncoder, tmp_path: pathlib.Path
) -> None:
    plans = _export(encoder, tmp_path, is_native=True)

    found = plans["configurations"]["3d_fullres"]
    assert plans["plans_name"] == "mine_nativePlans"
    assert found["spacing"] == [1.0, 1.5, 3.0]
    assert found["median_image_size_in_voxels"] == pytest.approx([84.0, 56.0, 28.0])
    # nnU-Net reads axes from superior to left; those of the encoder go from right to superior
    assert plans["transpose_forward"] == plans["transpose_backward"] == [2, 1, 0]
    hounsfield = np.array([-2000.0, -1000.0, 0.0, 400.0, 3000.0])
    assert encoder.preprocessing is not None
    assert _normalize(plans, hounsfield) == list(encoder.preprocessing.normalize(hounsfield))


def _normalize(plans: dict[str, Any], hounsfield: Any) -> list[float]:
    """Normalizes as nnU-Net's `CTNormalization` does."""
    assert plans["configurations"]["3d_fullres"]["normalization_schemes"] == ["CTNormalization"]
    stated = plans["foreground_intensity_properties_per_channel"]["0"]
    clipped = np.clip(hounsfield, stated["percentile_00_5"], stated["percentile_99_5"])
    return list((clipped - stated["mean"]) / stated["std"])


@pytest.mark.parametrize(
    ("orientation", "forward"), [("SPL", [0, 1, 2]), ("PLS", [1, 2, 0]), ("LSP", [2, 0, 1])]
)
def test_axes_are_turned_from_those_of_other_plans(
    encoder: encoder_lib.CoralBayEncoder,
    tmp_path: pathlib.Path,
    orientation: str,
    forward: list[int],
) -> None:
    """The plans have the left first, as where sagittal slices are the thickest."""
    plans = _read(_PLANS)
    plans |= {"transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]}
    plans["original_median_shape_after_transp"] = [30, 10, 20]  # left, superior, posterior
    plans["configurations"]["3d_fullres"] |= {"patch_size": [28, 96, 160]}
    path = tmp_path / "plans.json"
    path.write_text(json.dumps(plans))
    turned = encoder_lib.CoralBayEncoder(feature_size=12)
    turned.preprocessing = Preprocessing.of_window(0.0, 1.0, spacing=None, orientation=orientation)

    written, _ = export.export(turned, path, name="turned", is_native=True)

    assert written == tmp_path / "turned_nativePlans.json"
    found = _read(written)
    assert found["transpose_forward"] == forward
    assert [forward[axis] for axis in found["transpose_backward"]] == [0, 1, 2]
    of_scan = {"shape": (10, 20, 30), "patch": (96, 160, 32)}  # superior, posterior, left
    wanted = {name: [values[axis] for axis in forward] for name, values in of_scan.items()}
    assert found["original_median_shape_after_transp"] == wanted["shape"]
    assert found["configurations"]["3d_fullres"]["patch_size"] == wanted["patch"]


def test_what_cannot_be_exported(
    encoder: encoder_lib.CoralBayEncoder, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(EvaCoralbayError, match="Only Swin encoders .* not a Identity"):
        _export(nn.Identity(), tmp_path)
    with pytest.raises(EvaCoralbayError, match="has its own HU"):
        _export(encoder, tmp_path, is_native=True, hu_window=(0, 1))
    unknown = loading.build_named("radiology/coralbay_random", feature_size=12)
    with pytest.raises(EvaCoralbayError, match="input that this encoder was trained on is not"):
        _export(unknown, tmp_path, is_native=True)
    plans = _read(_PLANS)
    path = tmp_path / "plans.json"
    plans["configurations"]["3d_fullres"]["normalization_schemes"] *= 2
    path.write_text(json.dumps(plans))
    with pytest.raises(EvaCoralbayError, match="have 2 channels, but the encoder takes 1"):
        export.export(encoder, path, name="mine")
    del plans["configurations"]["3d_fullres"]
    path.write_text(json.dumps(plans))
    with pytest.raises(EvaCoralbayError, match="no configuration '3d_fullres'"):
        export.export(encoder, path, name="mine")
    path.write_text("{}")
    with pytest.raises(EvaCoralbayError, match="Give the plans that nnU-Net has written"):
        export.export(encoder, path, name="mine")
    assert [found.name for found in tmp_path.iterdir()] == ["plans.json"]


def test_other_strides_are_refused(
    encoder: encoder_lib.CoralBayEncoder, tmp_path: pathlib.Path
) -> None:
    plans = _export(encoder, tmp_path)
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["strides"].pop()
    with pytest.raises(EvaCoralbayError, match="export the plans again"):
        _build(plans)


def test_command(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--kwarg", "feature_size=12", "--plans", str(_PLANS), "--out", str(tmp_path)]
    assert main.main(["nnunet", "export", "radiology/coralbay_random", *options]) == 0

    printed = capsys.readouterr().out
    name = "coralbay_randomPlans"
    assert f"plans: {tmp_path / name}.json" in printed
    assert f"-p {name} -pretrained_weights {tmp_path / name}.pth" in printed
    encoder: Any = loading.build_named("radiology/coralbay_random", feature_size=12)
    weights = encoder.state_dict()
    encoder.save_pretrained(tmp_path / "own")
    command = ["nnunet", "export", "radiology/coralbay", "--checkpoint", str(tmp_path / "own")]
    assert main.main([*command, *options[2:], "--frozen"]) == 0
    found = torch.load(tmp_path / "own_frozenPlans.pth", weights_only=True)["network_weights"]
    assert all(torch.equal(found[f"encoder.{key}"], value) for key, value in weights.items())
