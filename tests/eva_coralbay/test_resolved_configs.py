"""Tests that the resolved config of each task is the one that is on record.

`resolved_configs.json` was made from the configs before they shared any file, by the parser of
`eva fit`. Whoever changes a value on purpose writes it anew and explains the difference:

    python -m tests.eva_coralbay.test_resolved_configs

What was changed on purpose since: the versions and HU windows of the tasks (version 2), and the
trainer, which names `enable_model_summary` (false) itself and keeps `plugins` for its checkpoints;
`openkbp`, whose training is short (version 2).

A key that is not on record is an argument with a default, which a class got since then.
"""

import functools
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import jsonargparse
import pytest
import yaml
from eva.core import interface

_CONFIGS = pathlib.Path(__file__).parents[2] / "configs/vision/radiology"

_GOLDEN = pathlib.Path(__file__).with_name("resolved_configs.json")

_NAMES = sorted(
    path.relative_to(_CONFIGS).with_suffix("").as_posix()
    for mode in ("online", "offline")
    for path in (_CONFIGS / mode).rglob("*.yaml")
)

_PROBES = sorted(f"probe/{path.stem}" for path in (_CONFIGS / "probe").glob("*.yaml"))

_RECORDED = sorted(
    name
    for folder in json.loads(_GOLDEN.read_text(encoding="utf-8"))["default"].values()
    for name in folder
)
"""The configs on record; those of newer tasks are compared with the catalog alone."""

_OF_NEWER_LIGHTNING = ("trainer.init_args.enable_autolog_hparams",)
"""Arguments on record that the lowest release of Lightning has not."""

_VARIABLES = {
    "ACCELERATOR": "cpu",
    "BATCH_SIZE": "3",
    "CHANNEL_PROJECTION_DIMS": "[1, 2]",
    "CHECKPOINT": "some/file.ckpt",
    "CLASS_WEIGHTS": "[0.5, 2.0]",
    "DATA_ROOT": "/some/data",
    "DOWNLOAD_DATA": "true",
    "DRY_RUN": "true",
    "EMBEDDINGS_ROOT": "/some/embeddings",
    "FOLD": "3",
    "HU_WINDOW": "[-1001.0, 500.0]",
    "IN_FEATURES": "24",
    "LOG_EVERY_N_STEPS": "7",
    "LR_VALUE": "0.02",
    "LR_VALUE_END": "0.002",
    "MAX_ROTATION": "5.0",
    "MAX_STEPS": "11",
    "MODEL_NAME": "some/model",
    "MONITOR_METRIC": "val/other",
    "NUM_DEVICES": "2",
    "N_DATA_WORKERS": "9",
    "N_RUNS": "8",
    "OUTPUT_ROOT": "/some/out",
    "OUT_INDICES": "4",
    "PRECISION": "bf16-mixed",
    "PREDICT_BATCH_SIZE": "6",
    "PREPARED": "false",
    "PREPARED_ROOT": "/some/store",
    "PROTOCOL": "finetuned",
    "ROBUSTNESS": "true",
    "ROI_SIZE": "[32, 64, 64]",
    "SAMPLE_BATCH_SIZE": "5",
    "SAMPLE_CLASS_RATIOS": "[1.0, 3.0]",
    "SEED": "13",
    "SIZE_MM": "[40.0, 41.0, 42.0]",
    "SPACING": "[2.0, 3.0, 4.0]",
    "SPLIT_SCHEME": "voco",
    "SW_BATCH_SIZE": "2",
    "SW_MONITOR_OVERLAP": "0.1",
    "SW_OVERLAP": "0.2",
    "TASK": "some_task",
    "TQDM_REFRESH_RATE": "0",
    "UNCHECKED_CASES": "[case_07]",
    "VAL_CHECK_INTERVAL": "12",
    "WEIGHT_DECAY": "0.3",
}
"""Another value than the default for every variable that a config of a task reads."""


@pytest.mark.parametrize("name", _RECORDED)
@pytest.mark.parametrize("variant", ["default", "variables"])
def test_it_is_the_one_on_record(name: str, variant: str) -> None:
    resolved = _flatten(_resolve(name, _VARIABLES if variant == "variables" else {}))
    expected = {
        key: value
        for key, value in _read_golden(variant)[name].items()
        if key in resolved or key not in _OF_NEWER_LIGHTNING
    }
    assert {key: resolved.get(key, "missing") for key in expected} == expected


def test_every_variable_of_a_config_is_tried() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in _CONFIGS.rglob("*.yaml"))
    tried = set(_VARIABLES)
    assert tried <= set(re.findall(r"oc\.env:(\w+)", text))
    for name in _NAMES:
        config = (_CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
        assert set(re.findall(r"oc\.env:(\w+)", config)) <= tried


@pytest.mark.parametrize("name", _NAMES)
def test_the_command_line_overrides_what_is_shared(name: str) -> None:
    overrides = {
        "trainer.init_args.max_steps": 5,
        "trainer.init_args.n_runs": 2,
        "model.init_args.lr": 0.5,
        "data.init_args.batch_size": 7,
        "data.init_args.num_workers": 0,
    }
    options = [part for key, value in overrides.items() for part in (f"--{key}", str(value))]

    resolved = _flatten(_resolve(name, {}, *options))

    assert resolved == {**_flatten(_resolve(name, {})), **overrides}


@pytest.mark.parametrize("name", [*_NAMES, *_PROBES])
def test_a_task_takes_few_lines(name: str) -> None:
    assert len((_CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()) <= 25


@functools.lru_cache(maxsize=1)
def _parser() -> jsonargparse.ArgumentParser:
    return jsonargparse.auto_parser(
        interface.Interface, parser_mode="omegaconf", fail_untyped=False
    )


def _resolve(name: str, variables: Mapping[str, str], *options: str) -> dict[str, Any]:
    """Returns a config as `eva fit` reads it where only some variables are set."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    with mock.patch.dict(os.environ, {**kept, **variables}, clear=True):
        path = _CONFIGS / f"{name}.yaml"
        config = _parser().parse_args(["fit", "--config", str(path), *options])
        return yaml.safe_load(_parser().dump(config, skip_none=False))["fit"]


def _flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a config by their dotted keys; lists are values."""
    return dict(_leaves(config))


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _read_golden(variant: str) -> dict[str, dict[str, Any]]:
    """Reads the flat configs on record; a folder's first config is whole, of others the changes."""
    folders = json.loads(_GOLDEN.read_text(encoding="utf-8"))[variant]
    configs = {}
    for folder in folders.values():
        whole: dict[str, Any] = {}
        for name, changes in folder.items():
            config = {**whole, **changes}
            configs[name] = {key: value for key, value in config.items() if value != "absent"}
            whole = whole or changes
    return configs


def _write_golden() -> None:
    content: dict[str, Any] = {}
    for variant, variables in (("default", {}), ("variables", _VARIABLES)):
        folders = content.setdefault(variant, {})
        for name in _NAMES:
            folder = folders.setdefault(name.rpartition("/")[0], {})
            whole = next(iter(folder.values()), {})
            config = dict.fromkeys(whole, "absent") | _flatten(_resolve(name, variables))
            folder[name] = {
                key: value for key, value in config.items() if whole.get(key, "absent") != value
            }
    _GOLDEN.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write_golden()
