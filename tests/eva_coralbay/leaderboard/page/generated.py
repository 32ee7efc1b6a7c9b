"""Generated results: real record files, case tables and configurations."""

import dataclasses
import datetime
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from eva_coralbay.results import case_table, record, scores
from eva_coralbay.results import folder as results_folder

MODELS: dict[str, float] = {
    "radiology/coralbay": 0.84,
    "radiology/voco_b": 0.82,
    "radiology/universal_swinunetr": 0.835,
    "radiology/ct_fm": 0.78,
    "radiology/coralbay_random": 0.6,
    "example/no_card": 0.7,
}
"""The level of each model."""

PARAMETERS = {"radiology/voco_b": 53_000_000, "radiology/coralbay_random": 3_400_000}
"""The parameters of models that differ from the others."""

TASKS: dict[str, list[str]] = {
    "btcv": ["spleen", "liver", "pancreas", "left adrenal gland", "aorta"],
    "lits17": ["liver", "tumour"],
    "phantom": ["ball", "box", "tube"],
}
"""The classes of each task."""

N_CASES = {"btcv": 9, "lits17": 26, "phantom": 6}
"""The number of cases of each task."""

FEW_LABELS = ("dice_resampled", *(f"dice_resampled_at_{n_cases}" for n_cases in (1, 2, 5, 10)))
"""The metrics of a probe beside `dice`."""

_UNKNOWN = "0" * 64


def write_results(
    root: pathlib.Path,
    *,
    models: Sequence[str] = tuple(MODELS),
    tasks: Sequence[str] = tuple(TASKS),
    seeds: int = 2,
    kind: Literal["measured", "demo"] = "measured",
    protocol: str = "frozen",
) -> list[pathlib.Path]:
    """Writes the runs of every model on every task.

    Args:
        root: The results folder.
        models: The ids of the models.
        tasks: The ids of the tasks.
        seeds: The number of runs of each.
        kind: The kind of the records.
        protocol: The protocol of the records.

    Returns:
        The paths of the records.
    """
    return [
        write_run(root, model=model, task=task, seed=seed, kind=kind, protocol=protocol)
        for model in models
        for task in tasks
        for seed in range(seeds)
    ]


def write_run(
    root: pathlib.Path,
    *,
    model: str,
    task: str,
    seed: int = 0,
    kind: Literal["measured", "demo"] = "measured",
    protocol: str = "frozen",
    n_cases: int | None = None,
) -> pathlib.Path:
    """Writes a run.

    Returns:
        The path of the record.
    """
    rows = _rows(model, task, seed, N_CASES.get(task, 6) if n_cases is None else n_cases)
    if protocol == "probe":
        rows += [_weaken(row, metric) for metric in FEW_LABELS for row in rows]
    path = root / "draft.json"
    table = case_table.write(path.with_name("draft.cases.csv"), rows)
    entry = _record(model, task, seed, kind, protocol, rows, table)
    target = root / results_folder.relative_path(entry)
    target.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("draft.cases.csv").rename(target.with_name(f"{target.stem}.cases.csv"))
    config = f"task: {task}\nmodel: {model}\nseed: {seed}\n".encode()
    target.with_name(f"{target.stem}.config.yaml").write_bytes(config)
    update = {
        "cases": table.model_copy(update={"file": f"{target.stem}.cases.csv"}),
        "config": record.ConfigFile(
            file=f"{target.stem}.config.yaml", sha256=hashlib.sha256(config).hexdigest()
        ),
    }
    entry.model_copy(update=update).write(target)
    return target


def _rows(model: str, task: str, seed: int, n_cases: int) -> list[case_table.CaseRow]:
    """Returns the rows: case and class are hard for all models, with noise of each run."""
    names = TASKS.get(task, ["organ"])
    task_generator = np.random.default_rng(len(task))
    hardness = task_generator.normal(0, 0.05, (n_cases, len(names)))
    hardness[0] -= 0.25
    generator = np.random.default_rng([len(model), seed, len(task)])
    values = MODELS.get(model, 0.7) + hardness + generator.normal(0, 0.015, hardness.shape)
    rows = []
    for case in range(n_cases):
        for index, name in enumerate(names):
            # the last class is not in every case
            value = None if case == 2 and index == len(names) - 1 > 0 else values[case, index]
            rows.append(
                case_table.CaseRow(
                    case=f"case_{case:03d}",
                    class_name=name,
                    metric="dice",
                    value=None if value is None else float(np.clip(value, 0, 1)),
                    truth_voxels=0 if value is None else 1000,
                    predicted_voxels=0 if value is None else 1100,
                )
            )
    return rows


def _record(
    model: str,
    task: str,
    seed: int,
    kind: Literal["measured", "demo"],
    protocol: str,
    rows: list[case_table.CaseRow],
    table: record.CaseTable,
) -> record.Record:
    cases = sorted({row.case for row in rows})
    metrics = scores.summarize(rows)
    return record.Record(
        kind=kind,
        task=record.Task(id=task, version="1", config_sha256=None),
        model=record.Model(
            id=model,
            revision=None,
            weights_sha256=_UNKNOWN,
            license=None,
            training_datasets=None,
            parameters=PARAMETERS.get(model, 53_200_000),
        ),
        protocol=protocol,
        seed=seed,
        split=record.Split(
            name="v1@1", part="test", n=len(cases), ids_sha256=record.ids_sha256(cases)
        ),
        checkpoint=record.Checkpoint(selection="last", step=20000),
        dataset=record.Dataset(name=task, checksums=None, license="CC-BY-4.0"),
        environment=record.Environment(
            packages={"eva-coralbay": "0.1.0", "kaiko-eva": "0.4.5", "monai": None},
            python="3.11.7",
            torch="2.7.0+cu128",
            cuda="12.8" if kind == "measured" else None,
            device="NVIDIA H100" if kind == "measured" else "cpu x86_64",
        ),
        cost=record.Cost(
            fit_seconds=200.0 * len(model), peak_memory_bytes=2**33, seconds_per_volume=3.5
        ),
        metrics=dict(metrics),
        cases=table,
        date=datetime.date(2026, 11, 1 + seed),
        config=None,
        robustness={"window_shifted": {"dice": metrics["dice"] - 0.05}},
    )


def _weaken(row: case_table.CaseRow, metric: str) -> case_table.CaseRow:
    """Returns a row of another metric, which is less with fewer labeled cases."""
    n_cases = int(metric.rpartition("_")[2]) if "_at_" in metric else 20
    value = None if row.value is None else row.value * (1 - 0.4 / n_cases)
    return dataclasses.replace(row, metric=metric, value=value)
