"""Tests the scoring on perturbed scans, in memory and inside eva's own evaluation session."""

import copy
import dataclasses
import pathlib
from typing import Any

import jsonargparse
import numpy as np
import numpy.typing as npt
import pytest
import torch
from eva.core import interface
from eva.core.trainers import functional
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils import data as torch_data

from eva_coralbay.data import SegmentationData, phantom, preparation, transforms
from eva_coralbay.data.datasets import NnUNet
from eva_coralbay.evaluation import SegmentationModule, Trainer, metrics, recorder, robustness
from eva_coralbay.results import record
from tests.eva_coralbay.evaluation import toy

_CONFIGS = pathlib.Path(__file__).parents[3] / "configs/vision/radiology/online/segmentation"
_WINDOW = (-200.0, 300.0)
_SPACING = (18.0, 18.0, 18.0)


class Identity(nn.Module):
    """An encoder whose only feature map is the scan. It counts how often it is called."""

    calls = 0

    def forward(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        type(self).calls += 1
        return [tensor]


class Thresholds(nn.Module):
    """A decoder that says of each voxel alone which class has the nearest intensity."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        centers = torch.linspace(0, 1, out_channels).reshape(1, -1, 1, 1, 1)
        self.centers = nn.Parameter(centers)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return -((features[0] - self.centers) ** 2)


def _scan(seed: int, shape: tuple[int, int, int] = (5, 6, 7)) -> preparation.LoadedScan:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, *shape, generator=generator) * 1500 - 700
    mask = torch.randint(0, 3, (1, *shape), generator=generator, dtype=torch.uint8)
    return preparation.LoadedScan(image, mask, np.diag([2.0, 2.0, 2.0, 1.0]))


def _perturb(
    scan: preparation.PreparedScan, **perturbation: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    scoring = transforms.EvalTransform(hu_window=_WINDOW)
    return robustness.PerturbedTransform(scoring, robustness.Perturbation(**perturbation))(scan)


def test_nothing_done_is_the_transform_itself() -> None:
    image, mask = transforms.EvalTransform(hu_window=_WINDOW)(_scan(0))
    same_image, same_mask = _perturb(_scan(0))
    assert torch.equal(image, same_image) and torch.equal(mask, same_mask)


@pytest.mark.parametrize(
    ("perturbation", "window"),
    [
        ({"window_shift": 50.0}, (-150.0, 350.0)),
        ({"window_scale": 0.8}, (-150.0, 250.0)),
        ({"window_scale": 1.25}, (-262.5, 362.5)),
    ],
)
def test_the_window_moves(perturbation: dict[str, float], window: tuple[float, float]) -> None:
    scan = _scan(1)
    low, high = window
    hounsfield = scan.read_image(scan.whole).numpy()
    image, mask = _perturb(scan, **perturbation)
    assert image.numpy() == pytest.approx(np.clip((hounsfield - low) / (high - low), 0, 1))
    assert torch.equal(mask, scan.read_mask(scan.whole))


def test_a_moved_window_does_not_change_the_preparation() -> None:
    scoring = transforms.EvalTransform(spacing=(3.0, 2.0, 1.0), hu_window=_WINDOW)
    moved = robustness.PerturbedTransform(scoring, robustness.Perturbation(window_shift=50.0))
    assert moved.preparation == scoring.preparation


@given(n_slices=st.integers(1, 9), seed=st.integers(0, 100))
@settings(deadline=None, max_examples=25)
def test_thick_slices_are_means_of_two_on_the_same_grid(n_slices: int, seed: int) -> None:
    image = _scan(seed, (n_slices, 2, 3)).read_image((slice(0, n_slices), slice(0, 2), slice(0, 3)))
    thick = robustness.thicken_slices(image).numpy()[0]
    assert thick == pytest.approx(_thicken_by_hand(image.numpy()[0]), abs=1e-3)


def _thicken_by_hand(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Averages two slices each and interpolates between their centers, column by column."""
    n_slices = len(image)
    pairs = [[start, min(start + 1, n_slices - 1)] for start in range(0, n_slices, 2)]
    centers = [start + 0.5 for start in range(0, n_slices, 2)]
    columns = image.reshape(n_slices, -1).T.astype(np.float64)
    thick = [
        np.interp(np.arange(n_slices), centers, [column[pair].mean() for pair in pairs])
        for column in columns
    ]
    return np.array(thick).T.reshape(image.shape)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flip_moves_the_labels_too(axis: int) -> None:
    image, mask = transforms.EvalTransform(hu_window=_WINDOW)(_scan(2))
    flipped_image, flipped_mask = _perturb(_scan(2), flipped_axis=axis)
    assert np.array_equal(np.flip(image.numpy()[0], axis), flipped_image.numpy()[0])
    assert np.array_equal(np.flip(mask.numpy()[0], axis), flipped_mask.numpy()[0])


def test_the_labels_of_pairs_are_swapped_in_every_flip_and_nowhere_else() -> None:
    scoring = transforms.EvalTransform(hu_window=_WINDOW, mirror_pairs=[(1, 2)])
    _, mask = scoring(_scan(4))
    for name, perturbation in robustness.PERTURBATIONS.items():
        _, perturbed = robustness.PerturbedTransform(scoring, perturbation)(_scan(4))
        counts = [int((perturbed == label).sum()) for label in range(3)]
        labels = (0, 2, 1) if name.startswith("flip_") else (0, 1, 2)
        assert counts == [int((mask == label).sum()) for label in labels], name


def test_perturbations_differ() -> None:
    images = [
        robustness.PerturbedTransform(transforms.EvalTransform(), perturbation)(_scan(3))[0]
        for perturbation in robustness.PERTURBATIONS.values()
    ]
    assert len({image.numpy().tobytes() for image in images}) == len(images) == 7


@pytest.fixture(scope="module", name="root")
def _root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("phantom")
    phantom.write_dataset(
        str(folder), cases=3, val_cases=2, shape=(24, 24, 24), spacing_mm=(13.0, 18.0, 18.0)
    )
    return folder


def _evaluate(
    root: pathlib.Path,
    out: pathlib.Path,
    *,
    protocol: Any = "frozen",
    has_test: bool = False,
    **arguments: Any,
) -> dict[str, record.Record]:
    """Runs an evaluation session, and returns the records of its validation cases by selection."""
    Identity.calls = 0
    trainer = Trainer(
        task="toy",
        task_version="1",
        protocol=protocol,
        default_root_dir=str(out),
        n_runs=1,
        max_steps=2,
        val_check_interval=1,
        refresh_rate=0,
        accelerator="cpu",
        enable_model_summary=False,
        **arguments,
    )
    module = SegmentationModule(
        encoder={"class_path": f"{__name__}.Identity"},
        decoder={"class_path": f"{__name__}.Thresholds"},
        protocol=protocol,
        roi_size=(16, 16, 16),
        lr=1e-3,
    )
    data = SegmentationData(
        dataset={
            "class_path": "eva_coralbay.data.datasets.NnUNet",
            "init_args": {"root": str(root)},
        },
        protocol=protocol,
        roi_size=(16, 16, 16),
        num_samples=1,
        spacing=_SPACING,
        hu_window=_WINDOW,
        batch_size=1,
        num_workers=0,
    )
    if has_test:
        data.datasets = dataclasses.replace(data.datasets, test=copy.copy(data.datasets.val))
    functional.run_evaluation_session(trainer, module, data)
    paths = {name: next(out.rglob(f"record_val_{name}.json")) for name in ("last", "best")}
    return {name: record.Record.read(path) for name, path in paths.items()}


def test_a_model_that_sees_voxels_alone_loses_nothing_by_flips(
    root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    records = _evaluate(root, tmp_path, robustness=1)

    measured, unperturbed = records["last"].robustness, records["last"].metrics
    assert measured is not None and set(measured) == set(robustness.PERTURBATIONS)
    assert unperturbed["dice"] is not None and 0 < unperturbed["dice"] < 1
    # it cannot tell left from right, so the kidneys are the exception
    organs = ("liver", "spleen", "lungs", "spine")
    unpaired = [f"{kind}_{name}" for kind in ("dice", "dice_resampled") for name in organs]
    for name, values in measured.items():
        assert set(values) == {metric for metric in unperturbed if "hd95" not in metric}
        is_same = all(values[metric] == unperturbed[metric] for metric in unpaired)
        assert is_same == name.startswith("flip_"), name
    assert records["best"].robustness is None


def test_a_perfect_prediction_scores_1_on_paired_organs_in_every_flip() -> None:
    """The left kidney of a body is on the right of its mirror image, where it is a right one."""
    mask = torch.zeros((1, 8, 9, 10), dtype=torch.uint8)
    mask[0, 2:5, 3:6, 1:3], mask[0, 2:5, 3:6, 7:9] = 1, 2
    mask[0, 6, 0, 5] = 3  # a nose, which says where the front and the head are
    scan = preparation.LoadedScan(torch.zeros(mask.shape), mask, np.eye(4))
    scoring = transforms.EvalTransform(mirror_pairs=[(1, 2)])
    for axis in range(3):
        flip = robustness.Perturbation(flipped_axis=axis)
        _, target = robustness.PerturbedTransform(scoring, flip)(scan)
        scorer = metrics.CaseSegmentation(["background", "right_kidney", "left_kidney", "nose"])
        scorer.update(_name_sides(target > 0, nose=target == 3)[None, 0], target[None])
        assert scorer.means["dice"] == 1.0, axis


def _name_sides(organs: torch.Tensor, *, nose: torch.Tensor) -> torch.Tensor:
    """Names two kidneys as an anatomist does, who sees where the front and the head are."""
    center = _middle(organs & ~nose)
    up, front, _ = np.sign(_middle(nose) - center)
    labels = torch.where(nose, 3, 0).to(torch.uint8)
    # the head up and the front ahead (towards smaller H), left is where W grows
    left_is_up = up * -front > 0
    halves = torch.arange(organs.shape[-1]) > center[2]
    left = halves if left_is_up else ~halves
    labels[organs & ~nose & left] = 2
    labels[organs & ~nose & ~left] = 1
    return labels


def _middle(voxels: torch.Tensor) -> npt.NDArray[np.float64]:
    return torch.argwhere(voxels[0]).double().mean(dim=0).numpy()


def test_without_labels_of_a_mirror_image_there_are_no_flips(tmp_path: pathlib.Path) -> None:
    phantom.write_dataset(
        str(tmp_path), cases=3, val_cases=1, shape=(16, 24, 24), spacing_mm=(20.0, 18.0, 18.0)
    )
    transform = transforms.EvalTransform(spacing=_SPACING)
    dataset = NnUNet(str(tmp_path), "val", transforms=transform, prepared=False)
    names = [name for name, _ in robustness.perturb(torch_data.DataLoader(dataset))]
    transform.mirror_pairs = ()
    allowed = [name for name, _ in robustness.perturb(torch_data.DataLoader(dataset))]
    assert names == [name for name in robustness.PERTURBATIONS if not name.startswith("flip_")]
    assert allowed == list(robustness.PERTURBATIONS)


def test_perturbed_values_are_those_of_the_weights_that_count(
    root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Computed by hand from the best checkpoint, which is the one that counts here."""
    read = _evaluate(root, tmp_path, protocol="frozen-eva", robustness=True)["best"]
    (checkpoint,) = tmp_path.rglob("best.ckpt")
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    centers = weights["decoder.centers"].numpy().reshape(-1, 1, 1, 1)

    dataset = NnUNet(
        str(root),
        "val",
        transforms=transforms.EvalTransform(spacing=_SPACING, hu_window=(-150.0, 350.0)),
        prepared_root=str(tmp_path / "prepared"),
    )
    dataset.setup()
    values = []
    for image, target, _ in (dataset[index] for index in range(len(dataset))):
        predicted = np.abs(image.numpy() - centers).argmin(axis=0)
        values.append(_mean_dice(predicted, target.numpy()[0], len(centers)))
    assert read.robustness is not None
    assert read.robustness["window_plus_50_hu"]["dice_resampled"] == pytest.approx(
        np.mean(values), abs=1e-3
    )
    assert read.metrics["dice_resampled"] != pytest.approx(np.mean(values), abs=5e-3)


def _mean_dice(
    predicted: npt.NDArray[np.integer], truth: npt.NDArray[np.integer], n_classes: int
) -> float:
    pairs = [(predicted == label, truth == label) for label in range(1, n_classes)]
    defined = [(a, b) for a, b in pairs if (a | b).any()]
    return float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in defined]))


def test_it_costs_nothing_unless_asked_for(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    plain = _evaluate(root, tmp_path / "plain")
    calls = Identity.calls
    measured = _evaluate(root, tmp_path / "measured", robustness=True)

    assert plain["last"].robustness is None
    assert plain["last"].metrics == measured["last"].metrics
    assert plain["last"].cases == measured["last"].cases
    assert calls < Identity.calls
    scored = (Identity.calls - calls) / len(robustness.PERTURBATIONS)
    assert scored == int(scored) and 0 < scored < calls


def test_where_there_are_test_cases_only_they_are_perturbed(
    root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    records = _evaluate(root, tmp_path, has_test=True, robustness=True)
    test = record.Record.read(next(tmp_path.rglob("record_test_last.json")))
    assert records["last"].robustness is None
    assert test.robustness is not None and test.metrics == records["last"].metrics


def test_configs_ask_for_it_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = jsonargparse.auto_parser(
        interface.Interface, parser_mode="omegaconf", fail_untyped=False
    )
    for value in (None, "1"):
        if value:
            monkeypatch.setenv("ROBUSTNESS", value)
        config = parser.parse_args(["fit", f"--config={_CONFIGS / 'phantom.yaml'}"])
        assert config.fit.trainer.init_args.robustness == bool(value)


def test_other_data_sets_are_refused_before_the_training(tmp_path: pathlib.Path) -> None:
    callback = recorder.Recorder(task="toy", task_version="1", robustness=True)
    with pytest.raises(ValueError, match="ROBUSTNESS perturbs .* but those of ToyDataset do not"):
        toy.trainer(str(tmp_path), [callback]).fit(toy.ToyModule(), datamodule=toy.datamodule())
    assert not list(tmp_path.rglob("*.ckpt"))
