"""Tests what an encoder's input has to be."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import zoo
from eva_coralbay.models.preprocessing import Preprocessing

_VALID: dict[str, Any] = {
    "spacing": (1.5, 1.5, 1.5),
    "orientation": "SPL",
    "hu_clip": (-175.0, 250.0),
    "hu_offset": -175.0,
    "hu_scale": 425.0,
}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"spacing": (1.5, 1.5)}, "three positive numbers"),
        ({"spacing": (1.5, 0.0, 1.5)}, "three positive numbers"),
        ({"spacing": (1.5, float("inf"), 1.5)}, "three positive numbers"),
        ({"orientation": "SPR!"}, "one each of"),
        ({"orientation": "SSL"}, "one each of"),
        ({"hu_clip": (250.0, -175.0)}, "lower, upper"),
        ({"hu_scale": 0.0}, "hu_scale must be positive"),
    ],
)
def test_refuses_what_cannot_be(fault: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaCoralbayError, match=message):
        Preprocessing(**_VALID | fault)


def test_normalizes_as_the_published_code() -> None:
    hu = torch.tensor([-2000.0, -1024.0, -175.0, 37.5, 250.0, 3000.0])

    voco = zoo.ENTRIES["radiology/voco_b"].preprocessing
    fmcib = zoo.ENTRIES["radiology/fmcib"].preprocessing
    voxelfm = zoo.ENTRIES["radiology/voxelfm"].preprocessing

    assert voco is not None and fmcib is not None and voxelfm is not None
    assert voco.normalize(hu).tolist() == [0.0, 0.0, 0.0, 0.5, 1.0, 1.0]
    torch.testing.assert_close(fmcib.normalize(hu), (hu + 1024) / 3072)
    expected = (hu.clamp(-1000, 1900) + 573.8) / 461.3
    torch.testing.assert_close(voxelfm.normalize(hu), expected)
    np.testing.assert_allclose(voxelfm.normalize(hu.numpy()), expected)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SPL", "PIR"])
def test_orients_as_monai(orientation: str) -> None:
    """From our SPL, by MONAI's transform as the oracle, and back."""
    volume = torch.arange(2 * 3 * 4, dtype=torch.float32).view(1, 2, 3, 4)
    preprocessing = Preprocessing(**_VALID | {"orientation": orientation})
    # index axes (S, P, L) of a volume in RAS+ coordinates
    affine = torch.tensor([[0.0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    expected = Orientation(axcodes=orientation)(MetaTensor(volume, affine=affine))

    oriented = preprocessing.orient(volume)

    assert torch.equal(oriented, torch.as_tensor(expected))
    assert torch.equal(preprocessing.orient_back(oriented), volume)
    assert np.array_equal(preprocessing.orient(volume.numpy()), oriented.numpy())
    batch = preprocessing.orient(volume[None])
    assert torch.equal(batch[0], oriented)


def test_every_orientation_comes_back() -> None:
    volume = torch.rand(2, 3, 4)
    for axes in itertools.permutations(("LR", "AP", "IS")):
        for codes in itertools.product(*axes):
            stated = Preprocessing(**_VALID | {"orientation": "".join(codes)})
            assert torch.equal(stated.orient_back(stated.orient(volume)), volume)
