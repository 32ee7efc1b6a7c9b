"""Tests that the settings of the leaderboard's tasks are those of their configs.

Results are checked against these settings, so a change of one makes all results of the task
invalid: raise the task's version with it, and keep the old settings. To write them anew:

    python -m tests.eva_coralbay.leaderboard.test_settings
"""

import functools
import json
import os
import pathlib
from typing import Any
from unittest import mock

import jsonargparse
import pytest
import yaml
from eva.core import interface

from eva_coralbay.results import run_config
from eva_coralbay.tasks import catalog, protocols

_ROOT = pathlib.Path(__file__).parents[3]
_SETTINGS = _ROOT / "src/eva_coralbay/leaderboard/settings.json"

_OWN = ("msd", "nnunet", "phantom")
"""Configs of data that are none of the leaderboard's."""

_FROZEN = protocols.PROTOCOLS["frozen"]

_PATHS = sorted(
    path
    for mode in ("online", "offline")
    for path in (_ROOT / "configs/vision/radiology" / mode).rglob("*.yaml")
    if path.stem not in _OWN
)
"""The configs of the leaderboard's tasks."""


@functools.lru_cache(maxsize=1)
def _parser() -> jsonargparse.ArgumentParser:
    return jsonargparse.auto_parser(
        interface.Interface, parser_mode="omegaconf", fail_untyped=False
    )


def _resolve(path: pathlib.Path) -> dict[str, Any]:
    """Returns a config as a run has it whose user sets no variable."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    with mock.patch.dict(os.environ, kept, clear=True):
        config = _parser().parse_args(["fit", "--config", str(path)])
        return yaml.safe_load(_parser().dump(config, skip_none=False))["fit"]


def _name(config: dict[str, Any]) -> str:
    trainer = config["trainer"]["init_args"]
    mode = protocols.PROTOCOLS[trainer["protocol"]].mode
    return f"{trainer['task']}@{trainer['task_version']}, {mode}"


@pytest.mark.parametrize("path", _PATHS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_they_are_those_of_the_config(path: pathlib.Path) -> None:
    config = _resolve(path)
    assert json.loads(_SETTINGS.read_text())[_name(config)] == run_config.settings(config)
    assert _name(config).endswith(path.parts[-3])
    assert not run_config.find_changes(
        config, path.stem, "1", protocols.PROTOCOLS[config["trainer"]["init_args"]["protocol"]]
    )


def test_every_task_has_settings() -> None:
    names = {name.split("@")[0] for name in json.loads(_SETTINGS.read_text())}
    assert names == set(catalog.TASKS)


def test_changes_are_found() -> None:
    config = _resolve(_ROOT / "configs/vision/radiology/online/segmentation/btcv.yaml")
    config["trainer"]["init_args"]["max_steps"] = 6
    config["data"]["init_args"]["dataset"]["init_args"]["split_scheme"] = "voco"
    config["model"]["init_args"]["lr_warmup"] = 5
    config["model"]["init_args"]["decoder"]["init_args"]["feature_size"] = "12"
    assert run_config.find_changes(config, "btcv", "1", _FROZEN) == {
        "data.init_args.dataset.init_args.split_scheme": ("voco", None),
        "model.init_args.lr_warmup": (5, None),
        "trainer.max_steps": (6, 20000),
    }
    assert run_config.find_changes(config, "own", "1", _FROZEN) == {}


if __name__ == "__main__":
    configs = [_resolve(path) for path in _PATHS]
    content = {_name(config): run_config.settings(config) for config in configs}
    _SETTINGS.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
