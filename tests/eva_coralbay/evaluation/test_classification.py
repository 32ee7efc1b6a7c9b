"""Tests of the classification module and of its scores by patient."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from eva.core import trainers
from eva.core.data import dataloaders, datamodules
from eva.core.data.datamodules import schemas
from sklearn import metrics as sklearn_metrics
from torch.utils import data as torch_data

from eva_coralbay.errors import DatasetError, EvaCoralbayError
from eva_coralbay.evaluation import ClassificationModule, EmbeddingsWriter, Recorder, metrics
from eva_coralbay.results import case_table, record, scores
from tests.eva_coralbay.evaluation import toy

CLASSES = ["normal", "ill"]


class ToyDataset(torch_data.Dataset):
    """Volumes that are brighter if ill; two a patient."""

    classes = CLASSES

    def __init__(
        self, prefix: str, embeddings_root: pathlib.Path | None = None, scheme: str = "v1@1"
    ) -> None:
        self.case_ids = [f"{prefix}_{index}" for index in range(8)]
        self._root = embeddings_root
        self._scheme = scheme

    def describe_inputs(self) -> dict[str, Any]:
        return {"split scheme": self._scheme}

    def embeddings_of(self) -> dict[str, Any] | None:
        if self._root is None:
            return None
        try:
            return json.loads((self._root / "embeddings.json").read_text())
        except FileNotFoundError as error:
            raise DatasetError("not complete") from error

    def filename(self, index: int) -> str:
        return f"{self.case_ids[index]}.npy"

    def __len__(self) -> int:
        return len(self.case_ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        label = index // 2 % 2
        if self._root is None:
            generator = torch.Generator().manual_seed(index)
            data = torch.rand(1, 4, 5, 6, generator=generator) + 2 * label
        else:
            (data,) = torch.load(self._root / f"{self.case_ids[index]}.pt", weights_only=True)
        patient = f"{self.case_ids[0]}_{index // 2}"
        return data, torch.tensor(label), {"case": self.case_ids[index], "patient": patient}


def _data(
    embeddings_root: pathlib.Path | None = None, scheme: str = "v1@1"
) -> datamodules.DataModule:
    loader = dataloaders.DataLoader(
        batch_size=4, persistent_workers=False, prefetch_factor=None, num_workers=0
    )
    parts = ("train", "val", "test")
    return datamodules.DataModule(
        datasets=schemas.DatasetsSchema(
            **{part: ToyDataset(part, embeddings_root, scheme) for part in parts},
            predict=[ToyDataset(part, None, scheme) for part in parts],
        ),
        dataloaders=schemas.DataloadersSchema(
            train=loader, val=loader, test=loader, predict=loader
        ),
    )


def _trainer(root: pathlib.Path, *callbacks: Any, **arguments: Any) -> Any:
    savers = [
        toy.callbacks.ModelCheckpoint(filename="best", monitor="val/auroc", mode="max"),
        toy.callbacks.ModelCheckpoint(filename="last"),
    ]
    return toy.trainer(str(root), [], callbacks=[*savers, *callbacks], **arguments)


def _module(*, pooled: bool = True, slope: float = 1.0, **arguments: Any) -> ClassificationModule:
    encoder = {
        "class_path": f"{toy.__name__}.ToyEncoder",
        "init_args": {"pooled": pooled, "dropout": 0.5, "slope": slope},
    }
    return ClassificationModule(encoder=encoder, lr=0.1, **arguments)


def _recorder() -> Recorder:
    return Recorder(task="toy", task_version="1")


def _tables(root: pathlib.Path, part: str = "test") -> list[pathlib.Path]:
    return sorted(root.rglob(f"record_{part}_last.cases.csv"))


def test_a_session_leaves_records_by_case(tmp_path: pathlib.Path) -> None:
    trainer = _trainer(tmp_path, _recorder(), max_steps=20, val_check_interval=10, n_runs=2)
    trainer.run_evaluation_session(_module(), _data())
    assert len(_tables(tmp_path)) == 2
    for table in _tables(tmp_path):
        read = record.Record.read(table.with_name("record_test_last.json"))
        rows: Any = case_table.read(table)
        assert read.cases.rows == len(rows) == 8 * len(CLASSES)
        assert read.split.n == 8 and read.protocol == "frozen"
        assert [row.truth for row in rows[:4]] == [1, 0, 1, 0]
        assert len({row.patient for row in rows}) == 4
        assert read.metrics == scores.summarize_classification(rows, CLASSES)
        assert read.metrics["balanced_accuracy"] == 1.0


def test_a_run_equals_a_single_run_with_its_seed(tmp_path: pathlib.Path) -> None:
    for name, seed, n_runs in (("both", 0, 2), ("alone", 1, 1)):
        trainer = _trainer(tmp_path / name, _recorder(), n_runs=n_runs)
        trainer.run_evaluation_session(_module(seed=seed), _data())
    first, second = _tables(tmp_path / "both")
    (alone,) = _tables(tmp_path / "alone")
    assert alone.read_text() == second.read_text() != first.read_text()


@pytest.mark.parametrize(("protocol", "moves"), [("frozen", False), ("finetuned", True)])
def test_what_is_trained_and_saved(tmp_path: pathlib.Path, protocol: Any, moves: bool) -> None:
    module = _module(protocol=protocol)
    trainer = _trainer(tmp_path)
    trainer.fit(module, datamodule=_data())
    after = {name: value.clone() for name, value in module.encoder.state_dict().items()}
    torch.manual_seed(0)
    fresh = _module(protocol=protocol)
    _trainer(tmp_path / "again", max_steps=0).fit(fresh, datamodule=_data())
    equal = [torch.equal(after[name], value) for name, value in fresh.encoder.state_dict().items()]
    assert all(equal) != moves
    (saved,) = (path for path in tmp_path.rglob("last.ckpt"))
    names = torch.load(saved, weights_only=True)["state_dict"]
    assert any(name.startswith("encoder.") for name in names) == moves
    assert {"head.weight", "head.bias"} <= set(names)


def test_embeddings_give_what_volumes_do(tmp_path: pathlib.Path) -> None:
    """The embeddings of `predict`, and then heads on them, equal the online run."""
    module = _module()
    root = tmp_path / "embeddings"
    trainer = _trainer(tmp_path / "offline", EmbeddingsWriter(str(root)), _recorder())
    data = _data(root)
    trainers.infer_model(trainer, module, data, return_predictions=False, enable_clone=True)
    assert len(list(root.glob("*.pt"))) == 24
    trainer.run_evaluation_session(module, data)
    _trainer(tmp_path / "again", _recorder()).run_evaluation_session(_module(), _data(root))
    _trainer(tmp_path / "online", _recorder()).run_evaluation_session(_module(), _data())
    tables = [_tables(tmp_path / name)[0] for name in ("offline", "again", "online")]
    values = [[row.value for row in case_table.read(table)] for table in tables]
    assert values[0] == values[1]
    np.testing.assert_allclose(values[0], values[2], atol=1e-5)
    hashes = [
        record.Record.read(table.with_name("record_test_last.json")).model.weights_sha256
        for table in tables
    ]
    assert hashes[0] is not None and len(set(hashes)) == 1


def test_other_embeddings_are_rejected(tmp_path: pathlib.Path) -> None:
    """Weights, what else the encoder computes with, and the data are all compared."""
    trainer = _trainer(tmp_path, EmbeddingsWriter(str(tmp_path / "embeddings")))
    data = _data(tmp_path / "embeddings")
    trainers.infer_model(trainer, _module(), data, return_predictions=False, enable_clone=True)
    others = {
        "weights": (_module(seed=1), data),
        "encoder": (_module(slope=2.0), data),
        "split scheme": (_module(), _data(tmp_path / "embeddings", "voco@1")),
    }
    for part, (module, other) in others.items():
        with pytest.raises(
            EvaCoralbayError, match=f"settings that differ:\n  - {part}: .*\nChoose .*delete"
        ):
            _trainer(tmp_path / "out").run_evaluation_session(module, other)
    with pytest.raises(EvaCoralbayError, match="'finetuned' trains the encoder"):
        _trainer(tmp_path / "out").run_evaluation_session(_module(protocol="finetuned"), data)
    (tmp_path / "embeddings" / "embeddings.json").unlink()
    with pytest.raises(DatasetError, match="not complete"):
        _trainer(tmp_path / "out").run_evaluation_session(_module(), data)


def test_feature_maps_are_rejected(tmp_path: pathlib.Path) -> None:
    with pytest.raises(EvaCoralbayError, match="one embedding .* not feature maps"):
        _trainer(tmp_path).fit(_module(pooled=False), datamodule=_data())


def _score(
    probabilities: Any, truths: Any, patients: Any, classes: list[str] | None = None
) -> metrics.CaseClassification:
    metric = metrics.CaseClassification(classes or CLASSES)
    metadata = {"case": [f"case_{index}" for index in range(len(truths))], "patient": patients}
    metric.update(torch.tensor(probabilities), torch.tensor(truths), metadata)
    return metric


def test_a_patient_is_scored_once() -> None:
    """Three wrong scans of one patient weigh as much as the one scan of another."""
    ill = [0.9, 0.8, 0.6, 0.4, 0.1]
    probabilities = [[1 - value, value] for value in ill]
    metric = _score(probabilities, [0, 0, 0, 1, 0], ["a", "a", "a", "b", "c"])
    assert metric.means["balanced_accuracy"] == pytest.approx((1 / 2 + 0) / 2)
    assert metric.means["auroc"] == pytest.approx(1 / 2)
    assert [row.value for row in metric.rows[:2]] == pytest.approx([0.1, 0.9])
    assert metric.rows[0] == case_table.PredictionRow(
        "case_0", "normal", "probability", metric.rows[0].value, 1, "a"
    )


def test_a_task_can_be_scored_by_case() -> None:
    """A patient of several classes is an error in others."""
    probabilities = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
    metric = _score(probabilities, [0, 1, 0], ["a", "a", "b"])
    with pytest.raises(EvaCoralbayError, match="Patient 'a' has cases of several true classes"):
        _ = metric.means
    metric.unit = "case"
    assert metric.means["balanced_accuracy"] == 1.0
    assert metric.fresh().unit == "case"


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_values_equal_scikit_learn(n_classes: int) -> None:
    rng = np.random.default_rng(n_classes)
    truths = np.arange(40) % n_classes
    logits = rng.normal(size=(40, n_classes)) + 1.5 * np.eye(n_classes)[truths]
    probabilities = torch.tensor(logits).softmax(dim=1).numpy()
    names = [f"class {index}" for index in range(n_classes)]
    means = _score(probabilities, truths, list(map(str, range(40))), names).means
    predicted = probabilities.argmax(axis=1)
    scores = probabilities[:, 1] if n_classes == 2 else probabilities
    one_hot = truths if n_classes == 2 else np.eye(n_classes)[truths]
    assert means["balanced_accuracy"] == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(truths, predicted)
    )
    assert means["auroc"] == pytest.approx(sklearn_metrics.roc_auc_score(one_hot, scores))
    assert means["auprc"] == pytest.approx(
        sklearn_metrics.average_precision_score(one_hot, scores, average="macro")
    )


def test_calibration_error_equals_the_definition() -> None:
    rng = np.random.default_rng(0)
    ill = rng.uniform(0.01, 0.99, size=200)
    truths = (rng.uniform(size=200) < ill**2).astype(int)
    means = _score(np.stack([1 - ill, ill], axis=1), truths, list(map(str, range(200)))).means
    confidence, hits = np.maximum(ill, 1 - ill), (ill > 0.5) == truths
    bins = np.minimum((confidence * 15).astype(int), 14)
    expected = sum(
        abs(confidence[bins == index].mean() - hits[bins == index].mean()) * (bins == index).mean()
        for index in np.unique(bins)
    )
    assert means["calibration_error"] == pytest.approx(expected, abs=1e-6)


def test_what_is_not_defined_is_nan() -> None:
    one_class = _score([[0.9, 0.1]], [0], ["a"]).means
    assert one_class["balanced_accuracy"] == 1.0
    assert np.isnan(one_class["auroc"]) and np.isnan(one_class["auprc"])
    assert all(map(np.isnan, metrics.CaseClassification(CLASSES).means.values()))


@pytest.mark.parametrize(
    ("probabilities", "truths", "message"),
    [
        ([[0.9, 0.1]], [2], "not all below 2 classes"),
        ([[0.9, 0.1, 0.0]], [0], r"probabilities of shape \[B, 2\]"),
        ([[0.9, 0.1]], [[0]], r"targets of \[B\]"),
        ([[0.9, 0.9]], [0], "do not add up to 1"),
        ([[float("nan"), 0.5]], [0], "contain NaN"),
    ],
)
def test_what_is_no_prediction_is_rejected(probabilities: Any, truths: Any, message: str) -> None:
    with pytest.raises(EvaCoralbayError, match=message):
        _score(probabilities, truths, ["a"])


def test_case_ids_are_unique() -> None:
    metric = _score([[0.9, 0.1]], [0], ["a"])
    with pytest.raises(EvaCoralbayError, match="scored twice"):
        metric.update(torch.tensor([[0.5, 0.5]]), torch.tensor([1]), {"case": ["case_0"]})


def test_predictions_round_trip(tmp_path: pathlib.Path) -> None:
    rows = _score([[0.1 + 0.2, 0.7]], [1], ["p, 1"]).rows
    table = case_table.write(tmp_path / "cases.csv", rows)
    assert (tmp_path / "cases.csv").read_text().splitlines()[0] == (
        "case,class,metric,value,truth,patient"
    )
    assert case_table.read(tmp_path / "cases.csv") == rows
    assert table.rows == 2


@pytest.mark.parametrize("protocol", ["probe", "probe-native", "external"])
def test_a_protocol_without_a_head_is_refused(protocol: Any) -> None:
    with pytest.raises(EvaCoralbayError, match=rf"not trained by the protocol '{protocol}'"):
        ClassificationModule(encoder={}, protocol=protocol)
