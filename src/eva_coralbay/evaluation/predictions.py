"""Scores label maps that another program has predicted, such as nnU-Net, as our own are scored."""

import datetime
import os
import pathlib
from typing import Any

import torch
from loguru import logger

from eva_coralbay import _messages, _progress
from eva_coralbay.data import datasets, nifti, task_datasets
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import metrics, native_grid, provenance
from eva_coralbay.models import recorded_name
from eva_coralbay.results import case_table, record
from eva_coralbay.results import folder as results_folder
from eva_coralbay.tasks import catalog

_PROTOCOL = "external"
"""The protocol of the records: they are never ranked with what was trained here."""

_OWN_VERSION = "2"
"""The version of own data, as their configs state it."""


def score(
    folder: str | os.PathLike[str],
    task: str,
    root: str,
    out: str | os.PathLike[str],
    *,
    model: str,
    seed: int = 0,
    fold: int | None = None,
) -> record.Record:
    """Scores the label maps in a folder on the scans' own grids.

    The cases are those that a run of the task is scored on: the test cases, or the validation cases
    where there are none or a fold is given. Each has a file `<case>.nii.gz` or `<case>.nii` on the
    grid of its scan, whose values are the positions of the labels in the task, 0 for the
    background. It writes

        <out>/seed_<seed>/
            record_<part>_last.json
            record_<part>_last.cases.csv

    Args:
        folder: The folder of the label maps.
        task: The id of the task, or "nnunet" or "msd" for own scans in that layout.
        root: The folder of the data set.
        out: The folder to write to.
        model: What has predicted them, `<organization>/<model>`.
        seed: The number of the training, where there are several.
        fold: For own scans, which entry of `splits_final.json` has the cases; the first if None.

    Returns:
        The record.

    Raises:
        EvaCoralbayError: If the task is no segmentation, the name is none or that of a published
            encoder, a label map is missing, lies on another grid or has other values, or the
            folder has the record of another model, task or split.
    """
    problem = results_folder.find_bad_model_name(model)
    if problem is not None:
        raise EvaCoralbayError(f"The name of the model {problem}")
    if recorded_name.is_of_encoder(model):
        raise EvaCoralbayError(
            f"'{model}' is the name of an encoder, but another program has trained the network "
            "that predicted: name the two of them, such as nnunet/resenc_m."
        )
    dataset = _build(task, root, fold)
    place, name = pathlib.Path(out) / f"seed_{seed}", f"record_{dataset.split}_last"
    _check_place(place / f"{name}.json", dataset, task, model)
    paths = _find(pathlib.Path(folder), dataset.case_ids)
    metric = metrics.CaseSegmentation()
    metrics.configure(metric, dataset)
    for case, path in _progress.bar(paths.items(), desc="Scoring", unit="case", total=len(paths)):
        metric.add(case, _read(dataset, case, path))

    place.mkdir(parents=True, exist_ok=True)
    result = _describe(
        dataset,
        task,
        model=model,
        seed=seed,
        metrics=metric.means,
        cases=case_table.write(place / f"{name}.cases.csv", metric.rows).model_dump(),
    )
    result.write(place / f"{name}.json")
    return result


def _build(task: str, root: str, fold: int | None) -> datasets.SegmentationDataset:
    """Returns the cases that a run of a task is scored on."""
    if fold is not None and task in catalog.TASKS:
        raise EvaCoralbayError(f"'{task}' has a split of its own: leave out the fold.")
    arguments = {} if fold is None else {"fold": fold}
    every = task_datasets.build_segmentation(task, root, **arguments)
    split = "test" if fold is None and every.has_split("test") else "val"
    dataset = task_datasets.build_segmentation(task, root, split=split, **arguments)
    dataset.setup()
    return dataset


def _check_place(
    path: pathlib.Path, dataset: datasets.SegmentationDataset, task: str, model: str
) -> None:
    """Checks that a record can be written, and that none of something else would be replaced."""
    blocking = [folder for folder in path.parents if folder.exists() and not folder.is_dir()]
    if blocking:
        raise EvaCoralbayError(f"'{blocking[0]}' is a file: write to a folder.")
    if not path.exists():
        return
    known = record.Record.read(path)
    before = known.task.id, known.model.id, known.split.ids_sha256
    if before != (task, model, record.ids_sha256(dataset.case_ids)):
        raise EvaCoralbayError(
            f"'{path}' is the record of {known.model.id} on {known.split.n} {known.split.part} "
            f"cases of {known.task.id}, not of these: write to another folder."
        )


def _find(folder: pathlib.Path, cases: list[str]) -> dict[str, pathlib.Path]:
    """Returns the label map of each case."""
    if not folder.is_dir():
        raise EvaCoralbayError(f"There is no folder '{folder}'.")
    files: dict[str, pathlib.Path] = {}
    for path in sorted(filter(nifti.is_nifti, folder.iterdir())):
        case = path.name[: path.name.lower().rindex(".nii")]
        other = files.setdefault(case, path)
        if other != path and case in cases:
            raise EvaCoralbayError(
                f"'{folder}' has two label maps of case '{case}', {other.name} and {path.name}: "
                "remove one."
            )
    missing = [case for case in cases if case not in files]
    if missing:
        found = _messages.list_names(sorted(files), limit=3) or "none"
        raise EvaCoralbayError(
            f"'{folder}' lacks {len(missing)} of {len(cases)} cases: "
            f"{_messages.list_names(missing)}. A label map is called <case>.nii.gz; there are "
            f"those of {found}."
        )
    surplus = sorted(files.keys() - set(cases))
    if surplus:
        logger.warning(f"Not of this split, so not scored: {_messages.list_names(surplus)}")
    return {case: files[case] for case in cases}


def _read(
    dataset: datasets.SegmentationDataset, case: str, path: pathlib.Path
) -> native_grid.NativeCase:
    """Reads the prediction and the truth of a case."""
    truth, grid = dataset.read_truth(case)
    predicted = nifti.read_mask(
        str(path),
        case=case,
        like=grid,
        labels=range(len(dataset.classes)),
        needs_code=dataset.needs_code,
    )
    return native_grid.NativeCase(
        predicted.as_subclass(torch.Tensor)[0],
        truth.as_subclass(torch.Tensor)[0],
        grid_lib.spacing(grid.affine),
    )


def _describe(
    dataset: datasets.SegmentationDataset, task: str, *, model: str, **values: Any
) -> record.Record:
    """Returns the record; how the label maps came about is not known."""
    known = catalog.TASKS.get(task)
    data = provenance.describe_data(dataset)
    unknown = ("revision", "weights_sha256", "license", "training_datasets", "parameters")
    return record.Record.model_validate(
        {
            "task": {
                "id": task,
                "version": _OWN_VERSION if known is None else known.version,
                "config_sha256": None,
            },
            "model": {"id": model, **dict.fromkeys(unknown)},
            "date": datetime.datetime.now(datetime.timezone.utc).date(),
            "protocol": _PROTOCOL,
            "split": {
                "name": data.split_name,
                "part": dataset.split,
                "n": len(dataset),
                "ids_sha256": record.ids_sha256(dataset.case_ids),
            },
            "checkpoint": {"selection": "last", "step": None},
            "dataset": {"name": data.name, "checksums": data.checksums, "license": data.license},
            "environment": provenance.describe_environment(torch.device("cpu")).model_dump(),
            "cost": dict.fromkeys(("fit_seconds", "peak_memory_bytes", "seconds_per_volume")),
            "config": None,
            "robustness": None,
            **values,
        }
    )
