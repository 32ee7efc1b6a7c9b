"""The probe of a classification inside eva's own evaluation session."""

import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from eva.core.trainers import functional
from sklearn import linear_model, pipeline, preprocessing

from eva_coralbay.data import ClassificationData, volume_transforms
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import EmbeddingProbeModule, Trainer
from eva_coralbay.evaluation.probe import embedding_module, encoders, subsets
from eva_coralbay.results import case_table, label_curves, record, scores
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import classification_layouts as layouts
from tests.eva_coralbay.data.datasets.layouts import few_cases
from tests.eva_coralbay.evaluation import toy

_OF_TWO_MAPS = {"channels": [4, 4], "strides": [1, 2], "seed": 0}

_ENCODER = {
    "class_path": f"{toy.__name__}.ToyEncoder",
    "init_args": {**_OF_TWO_MAPS, "pooled": True},
}

_CURVE = {
    f"{prefix}balanced_accuracy_{point}"
    for prefix in ("", "knn_")
    for point in ("at_1", "at_2", "at_5", "curve")
}


@pytest.fixture(scope="module")
def splits() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield few_cases("nodule_mnist_3d", patch, count=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, splits: splits_lib.Splits) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("nodules")
    layouts.write_nodule_mnist_3d(folder, layouts.all_cases(splits))
    return folder


def _datamodule(data: pathlib.Path, **arguments: Any) -> ClassificationData:
    return ClassificationData(
        dataset={
            "class_path": "eva_coralbay.data.datasets.classification.NoduleMNIST3D",
            "init_args": {"root": str(data)},
        },
        transform=volume_transforms.ResizeTransform(size=(12, 12, 12), window=(0.0, 255.0)),
        protocol="probe",
        **{"num_workers": 0, **arguments},
    )


def _run(data: pathlib.Path, out: pathlib.Path, *, encoder: Any = None, **data_arguments: Any):
    """Runs the probe as `eva fit` does and returns the module and the folder of the run."""
    module = EmbeddingProbeModule(encoder=encoder or _ENCODER, task="nodule_mnist_3d")
    trainer = Trainer(
        task="nodule_mnist_3d",
        task_version="2",
        protocol="probe",
        default_root_dir=str(out),
        n_runs=1,
        refresh_rate=0,
        accelerator="cpu",
    )
    datamodule = _datamodule(data, **data_arguments)
    functional.run_evaluation_session(trainer, module, datamodule, n_runs=1)
    (folder,) = out.glob("*/run_0")
    return folder


@pytest.fixture(scope="module")
def run(data: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return _run(data, tmp_path_factory.mktemp("run"))


def test_the_record_has_both_classifiers_and_follows_from_the_case_table(
    run: pathlib.Path,
) -> None:
    written = record.Record.read(run / "record_test_last.json")
    rows = case_table.read(run / "record_test_last.cases.csv")

    assert (written.protocol, written.checkpoint.step) == ("probe", 0)
    assert {"balanced_accuracy", "auroc", "knn_balanced_accuracy", "knn_auroc"} <= set(
        written.metrics
    )
    assert set(written.metrics) >= _CURVE
    found = scores.summarize(rows)
    assert set(found) == set(written.metrics)
    for name, value in written.metrics.items():
        assert scores.is_close(value, found[name], 1e-12), name
    assert scores.headline_metric(written.metrics) == "balanced_accuracy"
    # the brighter volumes are of one class
    assert (written.metrics["balanced_accuracy"] or 0.0) > 0.8


def test_the_curve_has_every_draw(run: pathlib.Path) -> None:
    metric, points = label_curves.read(run / "curve_test.csv")

    assert metric == "balanced_accuracy"
    assert sorted({(point.labeled_cases, point.draw) for point in points}) == [
        *((size, draw) for size in (1, 2, 5) for draw in range(10)),
        (8, 0),
    ]
    written = record.Record.read(run / "record_test_last.json")
    summary = label_curves.summarize(points)
    assert summary[8].mean == pytest.approx(written.metrics["balanced_accuracy"])
    assert summary[1].mean == pytest.approx(written.metrics["balanced_accuracy_at_1"])
    assert (run / "curve_test.png").read_bytes()[:4] == b"\x89PNG"


def test_it_equals_scikit_learn_on_embeddings_that_were_written_out(
    data: pathlib.Path, run: pathlib.Path
) -> None:
    """Of each subset by itself, from nothing but its embeddings, with the strength 0.1 of one."""
    datamodule = _datamodule(data)
    datamodule.prepare_data()
    datamodule.setup("fit")
    datamodule.setup("test")
    encoder, known = toy.ToyEncoder(**_ENCODER["init_args"]).eval(), datamodule.datasets
    dumped = {}
    for dataset in (known.train, known.test):
        for index in range(len(dataset)):
            volume, label, metadata = dataset[index]
            embedding = embedding_module.embed(encoder, volume)
            dumped[metadata["case"]] = (embedding, int(label))
    train = {case: subsets.LabeledCase(case, dumped[case][1]) for case in known.train.case_ids}
    truths = np.array([dumped[case][1] for case in known.test.case_ids])
    tested = np.stack([dumped[case][0] for case in known.test.case_ids])

    values = []
    for subset in subsets.draw_by_class("nodule_mnist_3d", train, n_classes=2):
        if subset.size == 1:
            cases = sorted(subset.cases)
            model = pipeline.make_pipeline(
                preprocessing.StandardScaler(),
                linear_model.LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000),
            ).fit(np.stack([dumped[case][0] for case in cases]), [dumped[c][1] for c in cases])
            predicted = model.predict(tested)
            values.append(np.mean([(predicted[truths == k] == k).mean() for k in (0, 1)]))
    assert len(values) == 10
    written = record.Record.read(run / "record_test_last.json")
    assert written.metrics["balanced_accuracy_at_1"] == pytest.approx(float(np.mean(values)))


def test_a_repetition_is_equal_whatever_the_workers_and_the_batch_size(
    data: pathlib.Path, run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    again = _run(data, tmp_path, num_workers=2, batch_size=5)

    for name in ("record_test_last.cases.csv", "record_val_last.cases.csv", "curve_test.csv"):
        assert (run / name).read_bytes() == (again / name).read_bytes()


def test_feature_maps_are_averaged(
    data: pathlib.Path, run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    maps = {**_ENCODER, "init_args": _OF_TWO_MAPS}

    averaged = _run(data, tmp_path, encoder=maps)

    ours, theirs = (
        [row.value for row in case_table.read(folder / "record_test_last.cases.csv")]
        for folder in (averaged, run)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def _embed_slices(images: torch.Tensor) -> torch.Tensor:
    return images.mean(dim=(2, 3))


@pytest.mark.parametrize("by_map", [False, True])
def test_a_2d_network_takes_part_by_slices(by_map: bool) -> None:
    volume = torch.rand(1, 5, 6, 7)
    network = (lambda images: [images]) if by_map else _embed_slices
    encoder = encoders.SliceEncoder(network, mean=(0.0,) * 3, std=(1.0,) * 3)

    embedding = embedding_module.embed(encoder, volume)

    np.testing.assert_allclose(embedding, np.full(3, float(volume.mean())), rtol=1e-5)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(1, 4, 3, 3), r"gives \[\(1, 4, 3, 3\)\].*needs an embedding"),
        ([], "needs an embedding"),
        (torch.full((1, 4), torch.nan), "not finite"),
    ],
)
def test_what_is_no_embedding_is_rejected(output: Any, message: str) -> None:
    with pytest.raises(EvaCoralbayError, match=message):
        embedding_module.embed(lambda _: output, torch.zeros(1, 2, 2, 2))
