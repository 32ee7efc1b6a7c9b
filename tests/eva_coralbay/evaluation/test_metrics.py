"""Tests of the case-wise metric."""

import copy
import math
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from eva.core.metrics import structs
from hypothesis import strategies as st
from monai.metrics import meandice

from eva_coralbay.evaluation import metrics

_CLASSES = ["background", "liver", "spleen", "kidney"]


@pytest.fixture(params=[1, 2**18], ids=["a slice at once", "all at once"], autouse=True)
def chunk_voxels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs every test with chunks of a slice, too, as no test volume fills a real one."""
    monkeypatch.setattr(metrics, "_CHUNK_VOXELS", request.param)


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
    metric = metrics.CaseDice([str(label) for label in range(n_classes)])
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
    metric = metrics.CaseDice(_CLASSES)
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
    metric = metrics.CaseDice(_CLASSES)
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
    means = metrics.CaseDice(_CLASSES).compute()
    assert list(means) == ["dice", "dice_liver", "dice_spleen", "dice_kidney"]
    assert all(value.isnan() for value in means.values())


def test_in_the_collections_of_eva() -> None:
    """It survives eva's clones, takes its keywords, and is reset with the collection."""
    schema = structs.MetricsSchema(evaluation=metrics.CaseDice())
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
    metric = metrics.CaseDice(["background", "liver"])
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
            _volume(1).long() - 2,
            {"case": ["x"]},
            "truth of case 'x' has labels from -1",
        ),
        (_volume(1), _volume(1), {"case": ["x", "y"]}, "2 case ids for 1 cases"),
        (_volume(1), _volume(1), {"case": ["known"]}, "'known' is scored twice"),
    ],
)
def test_errors_name_the_case(
    preds: torch.Tensor, target: torch.Tensor, metadata: dict[str, list[str]], message: str
) -> None:
    """A wrong input is rejected and leaves no row behind."""
    metric = metrics.CaseDice(_CLASSES)
    metric.update(_volume(1), _volume(1), {"case": ["known"]})
    with pytest.raises(ValueError, match=message):
        metric.update(preds, target, metadata)
    assert len(metric.rows) == 3


def test_errors_of_use() -> None:
    """Without classes, or on training crops, it says what to do."""
    with pytest.raises(RuntimeError, match="set its attribute `classes`"):
        metrics.CaseDice().update(_volume(1), _volume(1))
    with pytest.raises(NotImplementedError, match="`evaluation`"):
        metrics.CaseDice(_CLASSES)(_volume(1), _volume(1))


def test_several_devices_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distributed sampler repeats cases, which would be counted twice."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(RuntimeError, match="`devices` to 1"):
        metrics.CaseDice(_CLASSES).update(_volume(1), _volume(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n_classes", [1, 2, 14])
def test_argmax_equals_torch(n_classes: int, dtype: torch.dtype) -> None:
    """The labels are those of the definition, for any memory layout."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, n_classes, 5, 4, 3, generator=generator).to(dtype)
    for view in (logits, logits.transpose(-1, -3), logits[..., ::2]):
        labels = metrics.argmax_labels(view)
        assert labels.dtype == torch.uint8
        # ties are frequent in half precision, and torch does not say which of them it takes
        chosen = view.gather(1, labels[:, None].long())
        assert torch.equal(chosen, view.amax(1, keepdim=True))


def test_argmax_of_ties_is_the_lowest_label() -> None:
    """So that labels do not depend on the device."""
    logits = torch.zeros(1, 3, 2, 2, 2)
    logits[:, 1:, 0] = 1
    assert torch.equal(
        metrics.argmax_labels(logits), torch.tensor([1, 0]).repeat_interleave(4).reshape(1, 2, 2, 2)
    )


def test_argmax_of_many_classes() -> None:
    """Labels above 255 do not fit in uint8."""
    logits = torch.zeros(1, 300, 1, 1, 1)
    logits[0, 299] = 1
    labels = metrics.argmax_labels(logits)
    assert labels.dtype == torch.int16
    assert labels.item() == 299


@pytest.mark.parametrize("label", [0, 2])
def test_argmax_rejects_nan(label: int) -> None:
    """A diverged model must not pass as one that predicts background."""
    logits: Any = torch.zeros(1, 3, 4, 2, 2)
    logits[0, label, 3, 1, 0] = math.nan
    with pytest.raises(ValueError, match="diverged"):
        metrics.argmax_labels(logits)


def test_argmax_rejects_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4, 4\)"):
        metrics.argmax_labels(torch.zeros(3, 4, 4))
