"""Tests that the check passes what keeps the contract and finds each thing that does not."""

import dataclasses
import json
import re
from typing import Any

import pytest
import torch
from monai.networks.nets import swin_unetr
from torch import nn

from eva_coralbay.models import contract, zoo


class Keeps(nn.Module):
    """A small backbone that keeps the contract, with the maps of a SwinUNETR encoder."""

    def __init__(self, out_indices: int | None = None, width: int = 2, in_channels: int = 1):
        super().__init__()
        self.out_indices = out_indices
        self.convolution = nn.Conv3d(in_channels, width, 1)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, volume: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        maps = self.maps(volume)
        if self.out_indices is None:
            return self.embed(maps)
        return maps[-self.out_indices :]

    def maps(self, volume: torch.Tensor) -> list[torch.Tensor]:
        fine = self.convolution(volume)
        coarser = [nn.functional.avg_pool3d(fine, 2**level) for level in range(1, 6)]
        return [fine, *(m.repeat(1, 2**i, 1, 1, 1) for i, m in enumerate(coarser))]

    def embed(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return maps[0].mean((2, 3, 4))


class Cuboid(Keeps):
    def embed(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return maps[5].flatten(1)


class NoEmbedding(Keeps):
    def embed(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return maps[5]


class Random(Keeps):
    def embed(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return super().embed(maps) + torch.rand(1)


class Drifts(Keeps):
    def embed(self, maps: list[torch.Tensor]) -> torch.Tensor:
        self.calls += 1
        return super().embed(maps)


class MixesBatch(Keeps):
    def embed(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return super().embed(maps) + maps[0].mean()


class DividesByContrast(Keeps):
    def maps(self, volume: torch.Tensor) -> list[torch.Tensor]:
        return super().maps((volume - volume.mean()) / volume.std())


class Double(Keeps):
    def embed(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return super().embed(maps).double()


class NotForBfloat16(Keeps):
    def embed(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return super().embed(maps) @ torch.eye(2, dtype=maps[0].dtype).float().to(maps[0])

    def maps(self, volume: torch.Tensor) -> list[torch.Tensor]:
        return [
            m.float() * (1 + 9 * torch.is_autocast_enabled("cpu")) for m in super().maps(volume)
        ]


class WantsGradient(Keeps):
    def embed(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return super().embed(maps) * torch.ones(1, requires_grad=True)


class Detaches(Keeps):
    def maps(self, volume: torch.Tensor) -> list[torch.Tensor]:
        return [feature_map.detach() for feature_map in super().maps(volume)]


class CoarseToFine(Keeps):
    def maps(self, volume: torch.Tensor) -> list[torch.Tensor]:
        return super().maps(volume)[::-1]

    def embed(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return maps[5].mean((2, 3, 4))


class FiveMaps(Keeps):
    def maps(self, volume: torch.Tensor) -> list[torch.Tensor]:
        return super().maps(volume)[1:]


class NoMaps(Keeps):
    def __init__(self) -> None:
        super().__init__()


class NaNMaps(Keeps):
    def maps(self, volume: torch.Tensor) -> list[torch.Tensor]:
        maps = super().maps(volume)
        return [*maps[:5], maps[5] * torch.nan]


class EqualChannels(Keeps):
    def maps(self, volume: torch.Tensor) -> list[torch.Tensor]:
        return [feature_map[:, :2] for feature_map in super().maps(volume)]


def _check(name: str, **arguments: Any) -> dict[str, contract.Finding]:
    report = contract.check(name, **arguments)
    assert report.holds == all(finding.holds is not False for finding in report.findings)
    assert json.loads(json.dumps(report.as_dict()))["holds"] == report.holds
    return {finding.check: finding for finding in report.findings}


def test_keeps() -> None:
    findings = _check(f"{__name__}.Keeps", kwargs={"width": 3, "in_channels": 2}, in_channels=2)

    assert all(finding.holds is not False for finding in findings.values())
    assert findings["builds"].seen == "9 parameters"
    assert "[1, 2, 96, 96, 96] -> [1, 3]" in findings["embedding [B, E]"].seen
    assert "[1, 2, 64, 64, 96] -> [1, 3]" in findings["other sizes"].seen
    assert findings["feature maps"].seen.startswith("[1, 3, 96, 96, 96], [1, 3, 48, 48, 48]")
    assert findings["trainable: gradient"].seen == "reaches 2 of 2 parameter tensors"
    assert "IN_FEATURES) 3" in findings["decoder"].seen


@pytest.mark.parametrize(
    ("backbone", "check", "seen"),
    [
        ("Cuboid", "other sizes", "another width for another size"),
        ("NoEmbedding", "embedding [B, E]", "instead of [1, E]"),
        ("Random", "same again in eval", "two calls differ"),
        ("Drifts", "same again in eval", "changes the buffers calls"),
        ("MixesBatch", "batch of 2 = 2 alone", "depends on its batch"),
        ("DividesByContrast", "air gives finite values", "NaN or infinite"),
        ("Double", "embedding [B, E]", "torch.float64 for a float32 input"),
        ("NotForBfloat16", "bfloat16 autocast", "relative L2 difference"),
        ("WantsGradient", "frozen: no gradient", "asks for a gradient"),
        ("Detaches", "trainable: gradient", "does not require grad"),
        ("CoarseToFine", "feature maps", "not from fine to coarse"),
        ("FiveMaps", "feature maps", "5 maps for out_indices=6"),
        ("NoMaps", "feature maps", "unexpected keyword argument 'out_indices'"),
        ("NaNMaps", "feature maps", "NaN or infinite"),
        ("Absent", "builds", "has no attribute 'Absent'"),
    ],
)
def test_does_not_keep(backbone: str, check: str, seen: str) -> None:
    findings = _check(f"{__name__}.{backbone}", roi=64)

    assert findings[check].holds is False
    assert seen in findings[check].seen


@pytest.mark.parametrize("wrong", [(128, 16), (64, 8)])
def test_maps_are_those_that_the_zoo_states(
    wrong: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = zoo.ENTRIES["radiology/suprem_segresnet"]
    assert entry.maps[-1] == zoo.FeatureMap.of_stride(128, 8)
    maps = (*entry.maps[:-1], zoo.FeatureMap.of_stride(*wrong))
    monkeypatch.setitem(zoo.ENTRIES, entry.name, dataclasses.replace(entry, maps=maps))

    report = contract.check(entry.name, random_weights=True, roi=32)

    (finding,) = (one for one in report.findings if one.check == "feature maps")
    assert finding.holds is False
    assert finding.seen.startswith("[1, 128, 4, 4, 4] where the zoo says")


def test_fewer_maps_on_request() -> None:
    findings = _check(f"{__name__}.FiveMaps", roi=64, kwargs={"out_indices": 5})

    assert findings["feature maps"].holds
    assert findings["decoder"].holds is None
    assert "decoder.class_path=eva_coralbay.evaluation.pyramid_decoder" in findings["decoder"].seen


def test_maps_that_need_a_projection() -> None:
    findings = _check(f"{__name__}.EqualChannels", roi=64)

    assert "strides 2 at 1 x 1 x 1, 2 at 2 x 2 x 2" in findings["decoder"].seen


@pytest.mark.parametrize(
    "name",
    [
        "radiology/coralbay_random",
        pytest.param("radiology/swin_unetr_encoder", marks=pytest.mark.slow),
    ],
)
def test_registered_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "SMALL_SIZE", 40)
    findings = _check(name, roi=64, kwargs={"feature_size": 12})

    assert all(finding.holds is not False for finding in findings.values())
    assert "IN_FEATURES) 12" in findings["decoder"].seen


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("radiology/coralbai", "radiology/coralbay"),
        ("radiology/VoxelFM", "radiology/voxelfm"),
        ("slices/resnet5", "slices/resnet50"),
        ("voco_b", "radiology/voco_b"),
    ],
)
def test_unknown_name(name: str, meant: str) -> None:
    findings = _check(name)

    assert list(findings) == ["builds"]
    assert f"Did you mean {meant}" in findings["builds"].seen


class MonaiSwin(Keeps):
    """A network of somebody's own with a layer of MONAI's Swin transformer."""

    def __init__(self, out_indices: int | None = None) -> None:
        super().__init__(out_indices)
        self.merge = swin_unetr.PatchMerging(4)


class VoCoB(MonaiSwin):
    """What eva's class of this name has, without its weights."""

    __module__ = "eva.vision.models.networks.backbones.radiology.voco"


class OfVoCoB(VoCoB):
    """Somebody's own class of eva's."""


class HoldsVoCoB(Keeps):
    """Somebody's own class around eva's."""

    def __init__(self, out_indices: int | None = None) -> None:
        super().__init__(out_indices)
        self.inner = VoCoB(out_indices)


class Merging(swin_unetr.PatchMerging):
    """Somebody's own name of MONAI's layer."""


class MergingOfBefore(swin_unetr.PatchMergingV2):
    """A layer of another function."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens


class RenamedMerging(Keeps):
    def __init__(self, out_indices: int | None = None) -> None:
        super().__init__(out_indices)
        self.merge = Merging(4)
        self.other = MergingOfBefore(4)


@pytest.mark.parametrize(
    ("backbone", "holds", "seen"),
    [
        ("MonaiSwin", None, r"PatchMerging of MONAI .*\(merge\)"),
        ("RenamedMerging", None, r"PatchMerging of MONAI .*\(merge\)"),
        ("VoCoB", False, "Use the name radiology/voco_b"),
        ("OfVoCoB", False, "Use the name radiology/voco_b"),
        ("HoldsVoCoB", False, r"PatchMerging .*\(inner.merge\).*radiology/voco_b"),
    ],
)
def test_monais_patch_merging_is_named(backbone: str, holds: bool | None, seen: str) -> None:
    """eva's VoCo has weights from before the layer changed; of others nobody knows."""
    findings = _check(f"{__name__}.{backbone}", roi=64)

    assert findings["patch merging"].holds is holds
    assert re.search(seen, findings["patch merging"].seen)


def test_a_module_is_no_backbone() -> None:
    assert _check("os.path")["builds"].seen == "'os.path' is a module, not a class"


def test_describes_the_encoder() -> None:
    report = contract.check(
        "radiology/coralbay_random", kwargs={"feature_size": 12}, random_weights=True, roi=40
    )

    assert report.encoder is not None
    assert report.encoder["architecture"]["feature_size"] == 12
    assert report.as_dict()["encoder"]["patch_merging"] == "octants"
