"""The probe inside eva's own evaluation session."""

import pathlib
from typing import Any

import pytest
from eva.core.trainers import functional

from eva_coralbay.data import SegmentationData, phantom, transforms
from eva_coralbay.data.datasets import NnUNet
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import ProbeModule, Trainer
from eva_coralbay.evaluation.probe import classifier_file, curve_metric
from eva_coralbay.results import case_table, label_curves, record, scores
from tests.eva_coralbay.evaluation.probe import toy


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("phantom")
    phantom.write_dataset(str(folder), cases=6, val_cases=2, seed=0)
    return folder


def _run(data: pathlib.Path, out: pathlib.Path, *, workers: int = 0, **kwargs: Any) -> pathlib.Path:
    """Runs the probe as `eva fit` does and returns the folder of the run."""
    module = ProbeModule(encoder=toy.ENCODER, task="phantom", roi_size=(16, 16, 16), **kwargs)
    datamodule = SegmentationData(
        dataset={
            "class_path": "eva_coralbay.data.datasets.NnUNet",
            "init_args": {"root": str(data)},
        },
        protocol="probe",
        spacing=(8.0, 8.0, 8.0),
        num_workers=workers,
    )
    trainer = Trainer(
        task="phantom",
        task_version="2",
        protocol="probe",
        default_root_dir=str(out),
        n_runs=1,
        refresh_rate=0,
        accelerator="cpu",
        enable_model_summary=False,
    )
    functional.run_evaluation_session(trainer, module, datamodule, n_runs=1)
    (folder,) = out.glob("*/run_0")
    return folder


@pytest.fixture(scope="module")
def run(data: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return _run(data, tmp_path_factory.mktemp("run"))


def test_the_record_has_the_curve_and_follows_from_the_case_table(run: pathlib.Path) -> None:
    written = record.Record.read(run / "record_val_last.json")
    rows = case_table.read(run / "record_val_last.cases.csv")

    assert written.protocol == "probe"
    curve = {f"dice_resampled_{name}" for name in ("at_1", "at_2", "curve")}
    assert {"dice", "nsd", "hd95", "dice_resampled", *curve} <= set(written.metrics)
    assert "dice_resampled_at_4" not in written.metrics
    found = scores.summarize(rows)
    assert set(written.metrics) == set(found)
    for name, value in written.metrics.items():
        assert scores.is_close(value, found[name], 1e-12), name
    assert written.metrics["dice"] > 0.2
    assert written.cost.fit_seconds is not None and written.cost.fit_seconds > 0


def test_the_curve_has_every_case_and_draw(run: pathlib.Path) -> None:
    points = label_curves.read(run / "curve_val.csv").points

    assert sorted({(point.labeled_cases, point.draw) for point in points}) == [
        *((size, draw) for size in (1, 2) for draw in range(10)),
        (4, 0),
    ]
    assert len(points) == 21 * 2
    written = record.Record.read(run / "record_val_last.json")
    of_all = [point.score for point in points if point.labeled_cases == 4]
    assert sum(of_all) / len(of_all) == pytest.approx(written.metrics["dice_resampled"])
    intervals = label_curves.summarize(points)
    for mean, low, high in intervals.values():
        assert low <= mean <= high
    assert intervals[4][0] == pytest.approx(written.metrics["dice_resampled"])
    assert (run / "curve_val.png").read_bytes()[:4] == b"\x89PNG"
    assert (run / "cases_val.png").is_file()


def test_a_repetition_with_workers_is_equal_to_the_last_digit(
    data: pathlib.Path, run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    again = _run(data, tmp_path, workers=2)

    for name in ("record_val_last.cases.csv", "curve_val.csv"):
        assert (run / name).read_bytes() == (again / name).read_bytes()


def test_maps_that_do_not_count_change_the_scores(
    data: pathlib.Path, run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    last = _run(data, tmp_path, maps="last")

    ours, theirs = (
        record.Record.read(folder / "record_val_last.json").metrics["dice"]
        for folder in (last, run)
    )
    assert ours is not None and theirs is not None and ours < theirs


def test_the_saved_probe_segments_as_the_run_did(
    run: pathlib.Path, data: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The Dice of the first case, from the file, is that of the case table."""
    module = classifier_file.read(run / classifier_file.NAME)
    dataset = NnUNet(str(data), "val", transforms=transforms.EvalTransform(spacing=(8.0, 8.0, 8.0)))
    dataset.setup()
    image, mask, metadata = dataset[0]
    labels = module.compute_logits(image[None])[0].argmax(dim=0)
    found = curve_metric.dice(labels[None], mask[0], n_classes=len(module.classes))[0]
    rows = {
        row.class_name: row.value
        for row in case_table.read(run / "record_val_last.cases.csv")
        if row.case == metadata["case"] and row.metric == "dice_resampled"
    }
    assert module.classes == dataset.classes and len(rows) == len(found)
    for name, value in zip(module.classes[1:], found.tolist(), strict=True):
        assert rows[name] == pytest.approx(value, abs=1e-6)


def test_a_saved_probe_is_refused_with_another_encoder_and_when_damaged(
    run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    module = classifier_file.read(run / classifier_file.NAME)
    module.encoder_sha256 = "0" * 64
    classifier_file.write(tmp_path / "other.safetensors", module)
    with pytest.raises(EvaCoralbayError, match="other weights"):
        classifier_file.read(tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes((run / classifier_file.NAME).read_bytes()[:100])
    with pytest.raises(EvaCoralbayError, match=r"damaged\.safetensors.*run the probe again"):
        classifier_file.read(tmp_path / "damaged.safetensors")
