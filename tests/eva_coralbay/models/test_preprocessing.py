"""Tests what an encoder's input has to be."""

import itertools
import os
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from monai import transforms
from monai.data import MetaTensor

from eva_coralbay.data import nifti, resampling
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import zoo
from eva_coralbay.models.preprocessing import Preprocessing

REAL_DATA = os.environ.get("EVA_CORALBAY_REAL_DATA")

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
        ({"hu_scale": float("inf")}, "hu_scale must be positive"),
        ({"hu_offset": float("nan")}, "hu_offset must be a number"),
        ({"window": (0, 96, 96)}, "window must be three positive whole numbers"),
        ({"window": (96, 96)}, "window must be three positive whole numbers"),
        ({"window": (96, 96, 96.5)}, "window must be three positive whole numbers"),
        ({"window": (96, 96, 96), "multiple_of": (1, 14, 14)}, r"multiples of \(1, 14, 14\)"),
        ({"multiple_of": (0, 1, 1)}, "multiple_of must be three positive whole numbers"),
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


@pytest.mark.skipif(not REAL_DATA, reason="EVA_CORALBAY_REAL_DATA names no folder with real CT")
@pytest.mark.parametrize(
    "name",
    [
        "radiology/voco_b",  # Self-supervised/utils/data_trans.py, line 62
        "radiology/suprem_swin_unetr",  # supervised_pretraining/dataset/dataloader_bdmap.py, 173
        "radiology/universal_swinunetr",  # dataset/dataloader.py, line 231
        "radiology/merlin",  # merlin/data/monai_transforms.py
        "radiology/ct_fm",  # experiments/fm/frameworks/intrasample_simclr.yaml
    ],
)
def test_input_is_that_of_the_original_pipeline(name: str) -> None:
    """Of a real scan: orientation, spacing and intensities, in this order, by MONAI."""
    stated = zoo.ENTRIES[name].preprocessing
    assert stated is not None and stated.spacing is not None and stated.hu_clip is not None
    path = sorted((pathlib.Path(REAL_DATA or "") / "openkbp_oar" / "imagesTr").iterdir())[0]
    original = transforms.Compose(
        [
            transforms.LoadImage(ensure_channel_first=True),
            transforms.Orientation(axcodes=stated.orientation),
            transforms.Spacing(pixdim=stated.spacing, mode="bilinear"),
            transforms.ScaleIntensityRange(
                a_min=stated.hu_clip[0], a_max=stated.hu_clip[1], b_min=0.0, b_max=1.0, clip=True
            ),
        ]
    )
    expected = torch.as_tensor(original(path))

    scan = nifti.read_scan(str(path), case="case")
    affine = stated.orient_affine(np.asarray(scan.affine), scan.shape[1:])
    turned = stated.orient(scan.as_subclass(torch.Tensor))
    turned = eva_tv_tensors.Volume(turned, affine=torch.from_numpy(affine))
    actual = stated.normalize(resampling.resample(turned, stated.spacing).as_subclass(torch.Tensor))

    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) < 1e-3


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SPL", "PIR"])
def test_orients_as_monai(orientation: str) -> None:
    """From our SPL, by MONAI's transform as the oracle, and back."""
    volume = torch.arange(2 * 3 * 4, dtype=torch.float32).view(1, 2, 3, 4)
    preprocessing = Preprocessing(**_VALID | {"orientation": orientation})
    # index axes (S, P, L) of a volume in RAS+ coordinates
    affine = torch.tensor([[0.0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    expected = transforms.Orientation(axcodes=orientation)(MetaTensor(volume, affine=affine))

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
