"""Tests how predictions are brought back to the scan's own grid."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torchvision import tv_tensors

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import preparation
from eva_coralbay.evaluation import metrics, native_grid


def _ellipsoid(
    affine: npt.NDArray[np.float64],
    shape: tuple[int, int, int],
    radii_mm: tuple[float, float, float],
    center_mm: tuple[float, float, float],
) -> torch.Tensor:
    """Which voxels of a grid have their center in an ellipsoid; axes are those of the patient."""
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = indices @ affine[:3, :3].T + affine[:3, 3]
    distance = ((world - center_mm) / np.array(radii_mm)) ** 2
    return torch.from_numpy((distance.sum(axis=-1) <= 1).astype(np.uint8))


def _one_hot(labels: torch.Tensor, n_classes: int = 2) -> torch.Tensor:
    return functional.one_hot(labels.long(), n_classes).movedim(-1, 0).float()


def _scan(
    labels: torch.Tensor, affine: npt.NDArray[np.float64]
) -> tuple[eva_tv_tensors.Volume, tv_tensors.Mask]:
    hounsfield = torch.where(labels > 0, 50.0, -1000.0)[None]
    volume = eva_tv_tensors.Volume(hounsfield, affine=torch.from_numpy(affine))
    return volume, tv_tensors.Mask(labels[None])


def _dice(first: torch.Tensor, second: torch.Tensor) -> float:
    a, b = first > 0, second > 0
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def test_a_small_ellipsoid_on_thick_slices_is_scored_as_it_is() -> None:
    """A lesion of 12 x 12 x 14 mm on slices of 5 mm, drawn perfectly by the model.

    On the grid of 1.5 mm its truth is made of steps of three or four equal slices, which a perfect
    prediction does not have; on the scan's own grid it loses a third of that.
    """
    native = grid_lib.straight_affine((5.0, 0.8, 0.8), (0.0, 0.0, 0.0))
    shape, radii, center = (12, 40, 40), (6.0, 6.0, 7.0), (-15.0, -15.0, 29.0)
    truth = _ellipsoid(native, shape, radii, center)
    prepared = preparation.prepare(
        *_scan(truth, native), preparation.Preparation((1.5, 1.5, 1.5), -2000.0)
    )
    drawn = _ellipsoid(prepared.grid.affine, prepared.grid.shape, radii, center)
    resampled = _dice(drawn, prepared.read_mask(prepared.whole)[0])
    restored = native_grid.restore_labels(
        _one_hot(drawn), prepared.grid, grid_lib.Grid(shape, native)
    )
    assert resampled == pytest.approx(0.832, abs=0.005)
    assert _dice(restored, truth) == pytest.approx(0.945, abs=0.005)


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_what_was_cropped_alone_comes_back_voxel_for_voxel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    depth, height, width = rng.integers(3, 12, size=3).tolist()
    affine = grid_lib.straight_affine(rng.uniform(0.5, 5, size=3).tolist(), (7.0, -3.0, 11.0))
    native = grid_lib.Grid((depth, height, width), affine)
    labels = torch.from_numpy(rng.integers(0, 4, size=native.shape).astype(np.uint8))
    box = tuple(slice(int(rng.integers(0, n - 1)), n) for n in native.shape)
    logits = _one_hot(labels[box], 4)
    restored = native_grid.restore_labels(logits, native.cut(box), native)
    assert torch.equal(restored[box], labels[box])
    restored[tuple(slice(max(e.start - 1, 0), None) for e in box)] = 0
    assert not restored.any(), "what lies more than a voxel outside was cropped as air"


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 1.5), (3.0, 3.0, 3.0)])
def test_organs_come_back_over_a_resampling(spacing: tuple[float, float, float]) -> None:
    """The prediction is the resampled truth; what is lost is what the spacing cannot show."""
    native = grid_lib.straight_affine((2.5, 0.9, 0.9), (100.0, 50.0, -20.0))
    center = tuple((native @ [14, 40, 44, 1])[:3])
    truth = _ellipsoid(native, (28, 80, 90), (22.0, 26.0, 24.0), center)
    prepared = preparation.prepare(*_scan(truth, native), preparation.Preparation(spacing, -175.0))
    logits = _one_hot(prepared.read_mask(prepared.whole)[0])
    restored = native_grid.restore_labels(
        logits, prepared.grid, grid_lib.Grid(tuple(truth.shape), native)
    )
    assert _dice(restored, truth) > (0.975 if spacing[0] == 1.5 else 0.945)


def test_a_tilted_gantry_is_followed() -> None:
    """Axes that are oblique to each other: the prediction is sheared back."""
    native = grid_lib.straight_affine((3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    native[1, 0] = 1.2  # a slice further up lies further forward
    center = tuple((native @ [12, 30, 30, 1])[:3])
    truth = _ellipsoid(native, (24, 60, 60), (18.0, 20.0, 22.0), center)
    volume, mask = _scan(truth, native)
    prepared = preparation.prepare(volume, mask, preparation.Preparation((2.0, 2.0, 2.0), -175.0))
    drawn = _ellipsoid(prepared.grid.affine, prepared.grid.shape, (18.0, 20.0, 22.0), center)
    restored = native_grid.restore_labels(
        _one_hot(drawn), prepared.grid, grid_lib.Grid(tuple(truth.shape), native)
    )
    assert _dice(restored, truth) > 0.96


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    native = grid_lib.Grid((9, 10, 11), grid_lib.straight_affine((2.0, 1.0, 1.0), (0, 0, 0)))
    prepared = grid_lib.Grid((12, 7, 8), grid_lib.straight_affine((1.5, 1.5, 1.5), (0, 0, 0)))
    logits = torch.randn(3, *prepared.shape, generator=torch.Generator().manual_seed(0))
    whole = native_grid.restore_labels(logits, prepared, native)
    monkeypatch.setattr(native_grid, "CHUNK_VALUES", 1)
    assert torch.equal(native_grid.restore_labels(logits, prepared, native), whole)
    assert len(whole.unique()) == 3


def test_the_metric_scores_both_grids() -> None:
    truth = torch.zeros((4, 8, 8), dtype=torch.uint8)
    truth[1:3, 2:6, 2:6] = 1
    native = native_grid.NativeCase(truth, truth, (5.0, 1.0, 1.0))
    coarse = torch.zeros((1, 4, 4, 4), dtype=torch.uint8)
    coarse[0, 1:3, 1:3, 1:3] = 1
    moved = coarse.roll(1, dims=3)
    metric = metrics.CaseSegmentation(["background", "organ"])
    metric.update(moved, coarse[:, None], {"case": ["a"], "native": [native]})
    assert metric.means["dice"] == metric.means["nsd"] == 1.0
    assert metric.means["hd95"] == 0.0
    assert metric.means["dice_resampled"] == 0.5
