"""Tests the embedding of one scan and of its regions."""

import dataclasses
import os
import pathlib

import numpy as np
import pytest
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from torch import nn

import eva_coralbay
from eva_coralbay.data import preparation, scans, transforms, volume_transforms
from eva_coralbay.data.datasets import classification
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import ClassificationModule
from eva_coralbay.inference import embed as embed_lib
from eva_coralbay.inference import model_input, regions
from eva_coralbay.models.encoder import CoralBayEncoder
from eva_coralbay.models.networks import segresnet
from eva_coralbay.models.preprocessing import Preprocessing
from tests.eva_coralbay.data import volumes
from tests.eva_coralbay.data.datasets import classification_layouts as layouts
from tests.eva_coralbay.data.datasets.layouts import few_cases
from tests.eva_coralbay.inference import toy
from tests.eva_coralbay.pretraining import scans as scan_files

_SIZE, _SIZE_MM, _WINDOW = (40, 36, 36), (50.0, 54.0, 45.0), (-1000.0, 400.0)


def _crop_input(size: tuple[int, ...] = _SIZE) -> Preprocessing:
    spacing = tuple(mm / n for mm, n in zip(_SIZE_MM, size, strict=True))
    return Preprocessing.of_window(*_WINDOW, spacing=spacing, orientation="SPL", window=size)


def test_a_point_has_the_embedding_of_the_classification_of_nodules(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the files of LUNA25 through data set, transform and module, and from a NIfTI file."""
    splits = few_cases("luna25", monkeypatch, count=1)
    cases = layouts.all_cases(splits)
    layouts.write_luna25(tmp_path, cases)
    # texture, and a spacing that the 32 bits of a NIfTI header hold
    texture = np.random.default_rng(0).normal(scale=60.0, size=(64, 128, 128))
    for case in cases:
        blocks = tmp_path / "luna25_nodule_blocks"
        block = (layouts.nodule_block() + texture).astype(np.int16)
        np.save(blocks / "image" / f"{case}.npy", block)
        stated = np.array(layouts.metadata((1.25, 0.75, 0.75)), dtype=object)
        np.save(blocks / "metadata" / f"{case}.npy", stated)
    crop = volume_transforms.CropTransform(size=_SIZE, size_mm=_SIZE_MM, hu_window=_WINDOW)
    dataset = classification.LUNA25(str(tmp_path), "val", transforms=crop)
    dataset.setup()
    torch.manual_seed(0)
    encoder = CoralBayEncoder(feature_size=12).eval()
    data, _, _ = dataset[0]
    with torch.no_grad():
        batch = (data[None], torch.tensor([0]), {})
        expected = ClassificationModule(encoder=encoder).predict_step(batch)[0].numpy()

    loaded = dataset.load_data(0)
    affine = np.asarray(loaded.affine)
    middle = affine @ [*(length // 2 for length in loaded.shape[1:]), 1.0]
    path = tmp_path / "scan.nii.gz"
    scan_files.write_nifti(path, loaded[0].numpy().astype(np.int16), affine, orientation="RAS")
    scan = eva_coralbay.read_scan(path)
    found = eva_coralbay.embed(
        scan,
        encoder,
        region=regions.Point("nodule", tuple(middle[:3])),
        preprocessing=_crop_input(),
    )
    assert found.dtype == np.float32 and found.shape == (12 * 24,)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("orientation", ["SPL", "RAS", "LPI"])
def test_a_whole_scan_is_what_the_segmentation_sees(
    tmp_path: pathlib.Path, orientation: str
) -> None:
    path = scan_files.write_nifti(tmp_path / "a.nii.gz", scan_files.hounsfield())
    scan = eva_coralbay.read_scan(path)
    volume = _volume(scan)
    evaluated = transforms.EvalTransform(spacing=(3.0, 3.0, 3.0), hu_window=(-200.0, 300.0))
    loaded = preparation.prepare(volume, None, evaluated.preparation)
    image = evaluated.image_of(loaded)

    preprocessing = dataclasses.replace(toy.small_input(orientation), window=(4, 4, 4))
    made = model_input.of_scan(volume, preprocessing)
    turned = preprocessing.orient(image)
    torch.testing.assert_close(torch.from_numpy(made.image), turned, rtol=0, atol=1e-6)
    expected = preprocessing.orient_affine(loaded.grid.affine, image.shape[1:])
    np.testing.assert_allclose(made.affine, expected, atol=1e-9)


def test_spacing_and_window_follow_the_axes_of_the_encoder(tmp_path: pathlib.Path) -> None:
    shape = (20, 24, 30)
    affine = scan_files.affine(spacing=(1.0, 1.0, 1.0))
    path = scan_files.write_nifti(tmp_path / "a.nii.gz", scan_files.hounsfield(shape=shape), affine)
    preprocessing = Preprocessing.of_window(
        -2000.0, 300.0, spacing=(2.0, 3.0, 4.0), orientation="RAS", window=(40, 9, 7)
    )
    made = model_input.of_scan(_volume(eva_coralbay.read_scan(path)), preprocessing)
    # 30 voxels to the left at 2 mm, 24 to posterior at 3 mm, 20 to superior at 4 mm
    assert made.image.shape == (1, 40, 9, 7)
    np.testing.assert_allclose(made.affine[:3, :3], np.diag([2.0, 3.0, 4.0]), atol=1e-12)


def test_the_mean_is_that_of_all_windows(tmp_path: pathlib.Path) -> None:
    path = scan_files.write_nifti(tmp_path / "a.nii.gz", scan_files.hounsfield(shape=(22, 40, 36)))
    encoder = toy.ToyPyramid(preprocessing=toy.small_input()).eval()
    made = model_input.of_scan(_volume(eva_coralbay.read_scan(path)), toy.small_input())
    image = torch.from_numpy(made.image)
    starts = [sorted({0, length - 16}) for length in image.shape[1:]]
    windows = [
        image[None, :, d : d + 16, h : h + 16, w : w + 16]
        for d in starts[0]
        for h in starts[1]
        for w in starts[2]
    ]
    assert 1 < len(windows) <= 8
    with torch.no_grad():
        maps = [encoder.forward_features(window) for window in windows]
        mean = torch.stack([encoder(window)[0] for window in windows]).mean(dim=0)
    maximum = torch.cat(
        [torch.stack([m[i].amax((2, 3, 4))[0] for m in maps]).amax(0) for i in (0, 1)]
    )

    np.testing.assert_allclose(eva_coralbay.embed(path, encoder), mean, atol=1e-6)
    both = eva_coralbay.embed(path, encoder, pool="mean+max")
    np.testing.assert_allclose(both, torch.cat([mean, maximum]), atol=1e-6)


def test_a_mask_pools_what_lies_in_it(tmp_path: pathlib.Path) -> None:
    """A bright cube and the rest have the fine features of their own intensities."""
    array = np.full((32, 32, 32), -100, dtype=np.int16)
    array[8:24, 8:24, 8:24] = 200
    path = scan_files.write_nifti(
        tmp_path / "a.nii.gz", array, scan_files.affine(spacing=(3.0, 3.0, 3.0))
    )
    scan = eva_coralbay.read_scan(path)
    encoder = toy.ToyPyramid(preprocessing=toy.small_input()).eval()
    nn.init.zeros_(encoder.fine.weight)
    encoder.fine.weight.data[:, 0, 1, 1, 1] = 1.0
    nn.init.zeros_(encoder.fine.bias)
    inside = torch.from_numpy(scan.array > 0)
    bright, dark = (
        eva_coralbay.embed(scan, encoder, region=regions.Masked("m", mask), pool="mean+max")
        for mask in (inside, ~inside)
    )
    width = encoder.fine.out_channels
    np.testing.assert_allclose(bright[:width], 0.8, atol=1e-6)
    np.testing.assert_allclose(bright[3 * width : 4 * width], 0.8, atol=1e-6)
    np.testing.assert_allclose(dark[:width], 0.2, atol=1e-6)

    # the same voxels as a box in the world
    corners = scan.affine @ np.array([[7.6, 7.6, 7.6, 1.0], [23.4, 23.4, 23.4, 1.0]]).T
    low, high = corners[:3].min(axis=1), corners[:3].max(axis=1)
    box = regions.Box("b", tuple(low), tuple(high))
    of_box = eva_coralbay.embed(scan, encoder, region=box, pool="mean+max")
    np.testing.assert_allclose(of_box, bright, atol=1e-6)


def test_a_region_of_all_voxels_of_one_window_is_the_scan(tmp_path: pathlib.Path) -> None:
    array = scan_files.hounsfield(shape=(16, 16, 16))
    affine = scan_files.affine(spacing=(3.0, 3.0, 3.0))
    path = scan_files.write_nifti(tmp_path / "a.nii.gz", array, affine)
    encoder = toy.ToyPyramid(
        preprocessing=dataclasses.replace(toy.small_input(), hu_clip=(-2000.0, 300.0))
    ).eval()
    scan = eva_coralbay.read_scan(path)
    everything = regions.Masked("all", torch.ones(16, 16, 16, dtype=torch.bool))
    np.testing.assert_allclose(
        eva_coralbay.embed(scan, encoder, region=everything, pool="mean+max"),
        eva_coralbay.embed(scan, encoder, pool="mean+max"),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "region",
    [
        regions.Point("p", (999.0, 0.0, 0.0)),
        regions.Box("b", (999.0, 0.0, 0.0), (1000.0, 9.0, 9.0)),
        regions.Masked("m", torch.zeros(scan_files.SHAPE, dtype=torch.bool)),
    ],
)
def test_refuses_a_region_outside_of_the_scan(
    tmp_path: pathlib.Path, region: regions.Region
) -> None:
    path = scan_files.write_nifti(tmp_path / "a.nii.gz", scan_files.hounsfield())
    encoder = toy.ToyPyramid(preprocessing=toy.small_input())
    with pytest.raises(EvaCoralbayError, match=f"'{region.name}'.*--roi-space"):
        eva_coralbay.embed(path, encoder, region=region)


def test_refuses_what_is_no_scan_in_hu(tmp_path: pathlib.Path) -> None:
    scaled = (scan_files.hounsfield() + 1000.0) / 2000.0
    path = scan_files.write_nifti(tmp_path / "a.nii.gz", scaled.astype(np.float32))
    with pytest.raises(EvaCoralbayError, match=r"a.nii.gz.*scaled to \[0, 1\]"):
        eva_coralbay.embed(path, toy.ToyPyramid())


def test_refuses_an_embedding_that_is_not_finite(tmp_path: pathlib.Path) -> None:
    """As that of an array with NaN, which no file with such values can become."""
    scan = eva_coralbay.read_scan(
        scan_files.write_nifti(tmp_path / "a.nii.gz", scan_files.hounsfield())
    )
    array = np.array(scan.array, dtype=np.float32)
    array[len(array) // 2] = np.nan
    with pytest.raises(EvaCoralbayError, match="NaN or infinite"):
        eva_coralbay.embed(scan._replace(array=array), toy.ToyPyramid())


def test_names_a_scan_whose_hu_seem_to_be_shifted(tmp_path: pathlib.Path, log: list[str]) -> None:
    path = scan_files.write_nifti(tmp_path / "a.nii.gz", scan_files.hounsfield() - 200)
    eva_coralbay.embed(path, toy.ToyPyramid(preprocessing=toy.small_input()))
    assert any("a.nii.gz' is used, but its soft tissue has about" in line for line in log)


def test_refuses_feature_maps_of_an_encoder_without_any(tmp_path: pathlib.Path) -> None:
    path = scan_files.write_nifti(tmp_path / "a.nii.gz", scan_files.hounsfield())
    pooling = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten())
    with_maps = nn.Conv3d(1, 2, 1)
    assert eva_coralbay.embed(path, pooling, preprocessing=toy.small_input()).shape == (1,)
    with pytest.raises(EvaCoralbayError, match="forward_features"):
        eva_coralbay.embed(path, pooling, pool="max", preprocessing=toy.small_input())
    with pytest.raises(EvaCoralbayError, match="out_indices"):
        eva_coralbay.embed(path, with_maps, preprocessing=toy.small_input())


@pytest.mark.parametrize(
    ("encoder", "size"),
    [
        (CoralBayEncoder(feature_size=12), 48),
        (CoralBayEncoder(feature_size=12, embeddings_type="head"), 48),
        (segresnet.SegResNetEncoder(init_filters=8, blocks_down=(1, 1)), 16),
        (segresnet.SegResNetDSEncoder(init_filters=8, blocks_down=(1, 1), norm="batch"), 16),
    ],
)
def test_the_embedded_maps_of_our_encoders_are_those_of_their_embedding(
    encoder: nn.Module, size: int
) -> None:
    """Pooling the maps over a region that is everything gives the network's own embedding."""
    image = np.random.default_rng(0).random((1, size, size, size), dtype=np.float32)
    window = (size, size, size)
    made = model_input.ModelInput(image, np.eye(4))
    whole = made._replace(inside=np.ones(window, dtype=bool))
    expected = embed_lib.encode(made, encoder.eval(), window=window).embedding
    found = embed_lib.encode(whole, encoder.eval(), window=window).embedding
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_refuses_an_impossible_input() -> None:
    multiples = dataclasses.replace(toy.small_input(), window=None, multiple_of=(14, 14, 14))
    with pytest.raises(EvaCoralbayError, match="multiples of"):
        model_input.choose(multiples)
    assert model_input.choose(multiples, window=(14, 28, 14)).window == (14, 28, 14)
    with pytest.raises(EvaCoralbayError, match="hu_clip"):
        model_input.choose(None, hu_window=(10.0, 10.0))
    assert model_input.choose(None) == model_input.DEFAULT


def test_real_scan() -> None:
    """A clinical scan: positions in the world, whatever the order of the stored axes."""
    if "EVA_CORALBAY_REAL_DATA" not in os.environ:
        pytest.skip("EVA_CORALBAY_REAL_DATA names no folder of real scans")
    folder = pathlib.Path(os.environ["EVA_CORALBAY_REAL_DATA"], "ct", "lidc_0001_slab")
    encoder = toy.ToyPyramid(preprocessing=toy.small_input())
    scan = eva_coralbay.read_scan(folder / "image.nii.gz")
    middle = scan.affine @ [*(length // 2 for length in scan.array.shape), 1.0]
    point = regions.Point("middle", tuple(middle[:3]))
    found = eva_coralbay.embed(scan, encoder, region=point)
    turned = volumes.rotation((0.0, 0.0, 0.0)) @ scan.affine
    again = eva_coralbay.embed(scan._replace(affine=turned), encoder, region=point)
    np.testing.assert_array_equal(found, again)
    assert eva_coralbay.embed(folder / "image.nii.gz", encoder).shape == (9,)


def _volume(scan: scans.Scan) -> eva_tv_tensors.Volume:
    return eva_tv_tensors.Volume(
        torch.from_numpy(scan.array)[None], affine=torch.from_numpy(scan.affine)
    )
