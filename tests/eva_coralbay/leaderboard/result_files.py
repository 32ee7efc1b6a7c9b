"""Writes the files of a result, as a run and its submission do."""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml

from eva_coralbay import _atomic_files
from eva_coralbay.results import case_table, record, run_config, scores
from eva_coralbay.results import folder as results_folder
from eva_coralbay.tasks import catalog, protocols
from eva_coralbay.tasks import settings as task_settings
from eva_coralbay.tasks import splits as splits_lib

_OWN_SETTINGS = {
    "trainer": {"max_steps": 6},
    "model": {"class_path": "Module", "init_args": {}},
    "data": {"class_path": "Data", "init_args": {"dataset": {"class_path": "Set"}}},
}
"""The settings of own data."""


def write(
    root: pathlib.Path,
    *,
    model: str = "lab/net",
    task: str = "btcv",
    version: str = "1",
    seed: int = 0,
    rows: Sequence[case_table.Row] | None = None,
    **changes: Any,
) -> results_folder.Entry:
    """Writes a record, its case table and its configuration where they belong.

    Args:
        root: The results folder.
        model: The name of the model.
        task: A task of the leaderboard, or a name of own data.
        version: The version of the task.
        seed: The seed of the run, which the values follow from.
        rows: The rows of the case table, drawn if None.
        changes: Other fields of the record.
    """
    protocol = changes.get("protocol", "frozen")
    part = "val" if protocol == "frozen-eva" else "test"
    cases, name = [f"case_{index}" for index in range(4)], "fold_0"
    if task in catalog.TASKS:
        splits = splits_lib.read_splits(task)
        scheme = "voco" if protocol == "frozen-eva" else splits.default
        cases, name = splits.schemes[scheme][part], f"{scheme}@{splits.version}"
    rows = draw_rows(cases, class_names(task), seed) if rows is None else rows
    config = describe(task=task, version=version, model=model, protocol=protocol, seed=seed)
    content = yaml.safe_dump(config).encode()
    result = record.Record.model_validate(
        {
            "task": {"id": task, "version": version, "config_sha256": run_config.sha256(config)},
            "model": {
                "id": model,
                "revision": None,
                "weights_sha256": "1" * 64,
                "license": None,
                "training_datasets": None,
                "parameters": 6,
            },
            "protocol": protocol,
            "seed": seed,
            "split": {
                "name": name,
                "part": part,
                "n": len(cases),
                "ids_sha256": record.ids_sha256(cases),
            },
            "checkpoint": {
                "selection": "best" if part == "val" else "last",
                "step": config["trainer"]["init_args"]["max_steps"],
            },
            "dataset": {"name": task, "checksums": {"images": "2" * 64}, "license": "CC-BY-4.0"},
            "environment": {
                "packages": {"eva-coralbay": "0.1.0", "monai": "1.5.0"},
                "python": "3.11.7",
                "torch": "2.7.0",
                "cuda": None,
                "device": "cpu x86_64",
            },
            "cost": {"fit_seconds": 1.5, "peak_memory_bytes": 1000, "seconds_per_volume": 0.5},
            "metrics": scores.summarize(rows),
            "cases": {"file": "", "sha256": "0" * 64, "rows": 0, "excluded": 0},
            "config": {
                "file": f"seed_{seed}.config.yaml",
                "sha256": hashlib.sha256(content).hexdigest(),
            },
            "robustness": None,
            **changes,
        }
    )
    entry = results_folder.Entry(root / results_folder.relative_path(result), result)
    _atomic_files.write_atomically(entry.config_path, content)
    table = case_table.write(entry.cases_path, rows)
    result = result.model_copy(update={"cases": table})
    result.write(entry.path)
    return results_folder.Entry(entry.path, result)


def class_names(task: str) -> list[str]:
    """Returns the classes of the case table of a task."""
    if task not in catalog.TASKS:
        return ["lung", "liver"]
    return list(catalog.TASKS[task].classes)


def draw_rows(cases: Sequence[str], classes: Sequence[str], seed: int) -> list[case_table.CaseRow]:
    """Draws the rows of a segmentation, of which the first has no value."""
    generator = np.random.default_rng(seed)
    rows = []
    for case in cases:
        for name in classes:
            truth, predicted = (int(size) for size in generator.integers(1, 10**6, size=2))
            common = int(generator.integers(0, min(truth, predicted), endpoint=True))
            value = 2 * common / (truth + predicted)
            rows.append(case_table.CaseRow(case, name, "dice", value, truth, predicted))
    rows[0] = case_table.CaseRow(cases[0], classes[0], "dice", None, 0, 0)
    return rows


def describe(
    *, task: str, model: str, protocol: str, seed: int, version: str = "1"
) -> dict[str, Any]:
    """Returns a resolved configuration."""
    names = {
        "task": task,
        "task_version": version,
        "model": model,
        "protocol": protocol,
        "n_runs": 1,
    }
    mode = protocols.PROTOCOLS[protocol].mode
    settings = task_settings.find(task, version, mode) or _OWN_SETTINGS
    module = settings["model"]
    own = {"seed": seed, "protocol": protocol, "encoder": {"class_path": "Net"}}
    return {
        "trainer": {"class_path": "Trainer", "init_args": {**names, **settings["trainer"]}},
        "model": {**module, "init_args": {**module["init_args"], **own}},
        "data": settings["data"],
    }
