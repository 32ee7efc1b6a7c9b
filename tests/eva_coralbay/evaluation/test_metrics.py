"""Tests of the case-wise metric."""

import copy
import math
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from eva.core.metrics import structs
from eva.vision import losses as eva_losses
from hypothesis import strategies as st
from monai.metrics import meandice

from eva_coralbay.data import label_values
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import label_maps, metrics, native_grid, surfaces

_CLASSES = ["background", "liver", "spleen", "kidney"]


@pytest.fixture(params=[1, 2**18], ids=["a slice at once", "all at once"], autouse=True)
def chunk_voxels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs every test with chunks of a slice, too, as no test volume fills a real one."""
    monkeypatch.setattr(label_maps, "CHUNK_VOXELS", request.param)


def _naive_dice(pred: np.ndarray, truth: np.ndarray, label: int) -> float | None:
    """Dice of one class by its definition."""
    a, b = pred == label, truth == label
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else None


def _label_maps(seed: int, n_cases: int, n_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two label maps [B, D, H, W], in which classes are often absent."""
    rng = np.random.default_rng(seed)
    shape = (n_cases, *rng.integers(1, 6, size=3))
    maps = []
    for _ in range(2):
        present = rng.choice(n_classes, size=rng.integers(1, n_classes + 1), replace=False)
        maps.append(torch.from_numpy(rng.choice(present, size=shape)))
    return maps[0].to(torch.uint8), maps[1]


@hypothesis.given(
    seed=st.integers(0, 2**32 - 1), n_cases=st.integers(1, 3), n_classes=st.integers(2, 20)
)
@hypothesis.settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_rows_equal_the_definition(seed: int, n_cases: int, n_classes: int) -> None:
    """Every row equals the naive computation of its case and class."""
    preds, target = _label_maps(seed, n_cases, n_classes)
    metric = metrics.CaseSegmentation([str(label) for label in range(n_classes)])
    ids = [f"case_{index}" for index in range(n_cases)]
    metric.update(preds, target[:, None], {"case": ids})

    rows = iter(metric.rows)
    for index, case in enumerate(ids):
        for label in range(1, n_classes):
            row = next(rows)
            pred, truth = preds[index].numpy(), target[index].numpy()
            assert (row.case, row.class_name, row.metric) == (case, str(label), "dice")
            assert row.value == _naive_dice(pred, truth, label)
            assert row.truth_voxels == (truth == label).sum()
            assert row.predicted_voxels == (pred == label).sum()
    assert next(rows, None) is None


@pytest.mark.parametrize("seed", range(5))
def test_values_equal_monai_where_it_defines_them(seed: int) -> None:
    """MONAI defines Dice for the classes that are in the truth."""
    preds, target = _label_maps(seed, 3, 4)
    metric = metrics.CaseSegmentation(_CLASSES)
    metric.update(preds, target)

    one_hot = [
        torch.nn.functional.one_hot(labels.long(), 4).movedim(-1, 1) for labels in (preds, target)
    ]
    reference = meandice.compute_dice(*one_hot, include_background=False).flatten()
    assert not reference.isnan().all()
    for row, expected in zip(metric.rows, reference.tolist(), strict=True):
        if not math.isnan(expected):
            assert row.value == pytest.approx(expected, abs=1e-6)


def _volume(*labels: int) -> torch.Tensor:
    return torch.tensor(labels, dtype=torch.uint8).reshape(1, -1, 1, 1)


def test_means_leave_out_what_is_absent_from_both() -> None:
    """Absent from both: excluded; from one: 0; a case mean is over its defined classes."""
    metric = metrics.CaseSegmentation(_CLASSES)
    metric.update(_volume(1, 1, 0, 0), _volume(1, 1, 0, 0), {"case": ["perfect"]})
    metric.update(_volume(1, 0, 0, 0), _volume(1, 2, 0, 0), {"case": ["missed"]})
    metric.update(_volume(0, 0, 0, 0), _volume(0, 0, 0, 0), {"case": ["empty"]})

    values = {(row.case, row.class_name): row.value for row in metric.rows}
    assert values["missed", "spleen"] == 0
    assert values["perfect", "spleen"] is None
    assert metric.means["dice"] == (1 + 0.5) / 2
    assert metric.means["dice_liver"] == 1
    assert metric.means["dice_spleen"] == 0
    assert math.isnan(metric.means["dice_kidney"])


def test_no_case_gives_every_key() -> None:
    """A monitored key exists even if nothing was scored."""
    means = metrics.CaseSegmentation(_CLASSES).compute()
    assert list(means) == ["dice", "dice_liver", "dice_spleen", "dice_kidney"]
    assert all(value.isnan() for value in means.values())


def test_in_the_collections_of_eva() -> None:
    """It survives eva's clones, takes its keywords, and is reset with the collection."""
    schema = structs.MetricsSchema(evaluation=metrics.CaseSegmentation())
    collection = copy.deepcopy(structs.MetricModule.from_schema(schema)).validation_metrics
    metric = metrics.find_case_metric(collection)
    assert metric is not None
    metric.classes = _CLASSES
    for case in ("a", "b"):
        collection.update(
            preds=_volume(1, 2),
            target=_volume(1, 1)[:, None],
            metadata={"case": [case]},
            loss=torch.tensor(0.0),
            dataloader_idx=0,
        )
    assert collection.compute()["val/dice_liver"].item() == pytest.approx(2 / 3)
    assert [row.case for row in metric.rows] == ["a"] * 3 + ["b"] * 3
    collection.reset()
    assert metric.rows == []
    assert structs.MetricModule.from_schema(schema).test_metrics.prefix == "test/"


def test_without_ids_cases_are_numbered() -> None:
    """The data sets of eva give no case ids."""
    metric = metrics.CaseSegmentation(["background", "liver"])
    metric.update(_volume(1), _volume(1), {})
    metric.update(torch.cat([_volume(1)] * 2), torch.cat([_volume(1)] * 2))
    assert [row.case for row in metric.rows] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("preds", "target", "metadata", "message"),
    [
        (_volume(1, 1), _volume(1), None, r"\(1, 2, 1, 1\) and \(1, 1, 1, 1\)"),
        (_volume(4), _volume(1), {"case": ["x"]}, "prediction of case 'x' has labels from 4 to 4"),
        (
            _volume(1),
            _volume(1).long() - 3,
            {"case": ["x"]},
            "truth of case 'x' has labels from -2",
        ),
        (_volume(1), _volume(1), {"case": ["x", "y"]}, "2 case ids for 1 cases"),
        (_volume(1), _volume(1), {"case": ["known"]}, "'known' is scored twice"),
    ],
)
def test_errors_name_the_case(
    preds: torch.Tensor, target: torch.Tensor, metadata: dict[str, list[str]], message: str
) -> None:
    """A wrong input is rejected and leaves no row behind."""
    metric = metrics.CaseSegmentation(_CLASSES)
    metric.update(_volume(1), _volume(1), {"case": ["known"]})
    with pytest.raises(EvaCoralbayError, match=message):
        metric.update(preds, target, metadata)
    assert len(metric.rows) == 3


def test_errors_of_use() -> None:
    """Without classes, or on training crops, it says what to do."""
    with pytest.raises(EvaCoralbayError, match="set its attribute `classes`"):
        metrics.CaseSegmentation().update(_volume(1), _volume(1))
    with pytest.raises(EvaCoralbayError, match="`evaluation`"):
        metrics.CaseSegmentation(_CLASSES)(_volume(1), _volume(1))


def test_several_devices_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distributed sampler repeats cases, which would be counted twice."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(EvaCoralbayError, match="`devices` to 1"):
        metrics.CaseSegmentation(_CLASSES).update(_volume(1), _volume(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n_classes", [1, 2, 14])
def test_argmax_equals_torch(n_classes: int, dtype: torch.dtype) -> None:
    """The labels are those of the definition, for any memory layout."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, n_classes, 5, 4, 3, generator=generator).to(dtype)
    for view in (logits, logits.transpose(-1, -3), logits[..., ::2]):
        labels = label_maps.argmax_labels(view)
        assert labels.dtype == torch.uint8
        # ties are frequent in half precision, and torch does not say which of them it takes
        chosen = view.gather(1, labels[:, None].long())
        assert torch.equal(chosen, view.amax(1, keepdim=True))


def test_argmax_of_ties_is_the_lowest_label() -> None:
    """So that labels do not depend on the device."""
    logits = torch.zeros(1, 3, 2, 2, 2)
    logits[:, 1:, 0] = 1
    assert torch.equal(
        label_maps.argmax_labels(logits),
        torch.tensor([1, 0]).repeat_interleave(4).reshape(1, 2, 2, 2),
    )


def test_argmax_of_many_classes() -> None:
    """Labels above 255 do not fit in uint8."""
    logits = torch.zeros(1, 300, 1, 1, 1)
    logits[0, 299] = 1
    labels = label_maps.argmax_labels(logits)
    assert labels.dtype == torch.int16
    assert labels.item() == 299


@pytest.mark.parametrize("label", [0, 2])
def test_argmax_rejects_nan(label: int) -> None:
    """A diverged model must not pass as one that predicts background."""
    logits: Any = torch.zeros(1, 3, 4, 2, 2)
    logits[0, label, 3, 1, 0] = math.nan
    with pytest.raises(EvaCoralbayError, match="diverged"):
        label_maps.argmax_labels(logits)


def test_argmax_rejects_other_shapes() -> None:
    with pytest.raises(EvaCoralbayError, match=r"\(3, 4, 4\)"):
        label_maps.argmax_labels(torch.zeros(3, 4, 4))


def _native(
    truth: torch.Tensor, prediction: torch.Tensor, spacing: tuple[float, float, float]
) -> native_grid.NativeCase:
    return native_grid.NativeCase(prediction, truth, spacing)


def test_the_policy_of_empty_classes() -> None:
    """Absent from both: no value. From one of both: Dice and NSD 0, and the diagonal as HD95."""
    truth, prediction = torch.zeros((2, 3, 4, 6), dtype=torch.uint8)
    truth[1, 1:3, 1:3] = 1
    prediction[1, 2:4, 2:4] = 2
    metric = metrics.CaseSegmentation(_CLASSES, lesion_classes=["liver", "kidney"])
    native = _native(truth, prediction, (3.0, 1.0, 2.0))
    metric.update(prediction[None], truth[None], {"case": ["a"], "native": [native]})
    values = {(row.class_name, row.metric): row.value for row in metric.rows}
    diagonal = math.sqrt(9.0**2 + 4.0**2 + 12.0**2)
    for name in ("liver", "spleen"):
        assert [values[name, m] for m in ("dice", "nsd", "hd95")] == [0.0, 0.0, diagonal]
    assert [values["kidney", m] for m in ("dice", "nsd", "hd95", "dice_resampled")] == [None] * 4
    lesion_metrics = ("lesion_sensitivity", "lesion_false_positives", "lesion_f1")
    assert [values["liver", m] for m in lesion_metrics] == [0.0, 0.0, 0.0]
    assert [values["kidney", m] for m in lesion_metrics] == [None, 0.0, None]
    assert ("spleen", "lesion_f1") not in values
    assert metric.means["hd95"] == diagonal
    assert metric.means["lesion_false_positives"] == 0.0
    assert "lesion_f1_spleen" not in metric.means


def test_the_surface_metrics_are_those_of_the_whole_scan() -> None:
    """Each class is cut to its box, which must not change its surface."""
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.integers(0, 4, size=(7, 8, 9)).astype(np.uint8))
    prediction = truth.roll(1, dims=2)
    metric = metrics.CaseSegmentation(_CLASSES, tolerances_mm={"liver": 0.5, "spleen": 3.0})
    native = _native(truth, prediction, (2.0, 1.0, 1.0))
    metric.update(prediction[None], truth[None], {"case": ["a"], "native": [native]})
    values = {(row.class_name, row.metric): row.value for row in metric.rows}
    for label, (name, tolerance) in enumerate(
        [("liver", 0.5), ("spleen", 3.0), ("kidney", 2.0)], start=1
    ):
        whole = surfaces.measure(
            (truth == label).numpy(), (prediction == label).numpy(), (2.0, 1.0, 1.0)
        )
        assert values[name, "nsd"] == pytest.approx(whole.nsd(tolerance))
        assert values[name, "hd95"] == pytest.approx(whole.hausdorff())


def test_ignored_voxels_are_not_scored() -> None:
    """Whatever is predicted there, the values are those of a truth and a prediction without."""
    truth = torch.zeros((1, 4, 5, 6), dtype=torch.int16)
    truth[0, 1:3, 1:4, 1:4] = 1
    prediction = truth.to(torch.uint8)
    truth[0, :, :, 3:] = label_values.IGNORE_LABEL
    prediction[0, :, :, 4:] = 2
    metric = metrics.CaseSegmentation(_CLASSES)
    native = _native(truth[0], prediction[0], (1.0, 1.0, 1.0))
    metric.update(prediction, truth, {"case": ["a"], "native": [native]})
    assert metric.means["dice"] == metric.means["dice_resampled"] == metric.means["nsd"] == 1.0
    assert {row.predicted_voxels for row in metric.rows if row.class_name == "spleen"} == {0}


def test_the_loss_is_of_the_known_voxels() -> None:
    """Leaving out voxels is the same as a crop that does not have them."""
    criterion = eva_losses.DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True
    )
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator)
    truth = torch.randint(0, 3, (2, 1, 4, 5, 6), generator=generator)
    expected = criterion(logits[..., :4], truth[..., :4])
    truth[..., 4:] = label_values.IGNORE_LABEL
    assert criterion(*label_maps.select_known(logits, truth)) == pytest.approx(float(expected))
    whole = label_maps.select_known(logits[..., :4], truth[..., :4])
    assert whole[0].shape == (2, 3, 4, 5, 4), "nothing is left out, nothing is rearranged"
