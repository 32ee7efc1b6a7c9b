"""Tests that the settings of the tasks are those of their configs, and of what was released.

Results are checked against these settings, so a change of one makes all results of the task
invalid: raise the task's version with it, and write the settings of the new one by
`nox -s generate`.
"""

import functools
import json
import os
import pathlib
import re
from typing import Any
from unittest import mock

import jsonargparse
import pytest
import yaml
from eva.core import interface

from eva_coralbay.results import run_config
from eva_coralbay.tasks import catalog, protocols
from eva_coralbay.tasks import settings as settings_lib
from tests.eva_coralbay.tasks import generate

_ROOT = pathlib.Path(__file__).parents[3]

_CONFIGS = _ROOT / "configs/vision/radiology"

_FROZEN = protocols.PROTOCOLS["frozen"]

_ids = [f"{mode}-{task.id}" for task, mode in generate.ALL]


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


def _released(version: str) -> dict[str, Any]:
    return json.loads((generate.RELEASED / f"settings_{version}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("task", "mode"), generate.ALL, ids=_ids)
def test_they_are_those_of_the_config(task: catalog.Task, mode: settings_lib.Mode) -> None:
    config = _resolve(generate.config_path(task, mode))
    trainer = config["trainer"]["init_args"]
    protocol = protocols.PROTOCOLS[trainer["protocol"]]

    assert run_config.settings(config) == settings_lib.settings(task, mode)
    assert (trainer["task"], str(trainer["task_version"])) == (task.id, task.version)
    assert protocol.mode == mode
    assert not run_config.find_changes(config, task.id, task.version, protocol)


@pytest.mark.parametrize(("task", "mode"), generate.ALL, ids=_ids)
def test_a_released_version_does_not_change(task: catalog.Task, mode: settings_lib.Mode) -> None:
    expected = _released(task.version)[f"{task.id}, {mode}"]
    assert settings_lib.settings(task, mode) == expected


def test_every_version_up_to_the_current_one_was_released() -> None:
    for task in catalog.TASKS.values():
        versions = settings_lib.list_versions(task.id)
        assert versions[-1] == task.version
        assert all(f"{task.id}, online" in _released(version) for version in versions)


def test_every_config_is_of_a_task_or_of_own_data() -> None:
    names = {path.stem for mode in generate.MODES for path in (_CONFIGS / mode).rglob("*.yaml")}
    assert names == {*catalog.TASKS, "msd", "nnunet", "phantom"}


@pytest.mark.parametrize("version", ["0", "99"])
def test_there_are_none_of_other_versions(version: str) -> None:
    assert settings_lib.find("btcv", version, "online") is None
    assert settings_lib.find("own", "1", "online") is None
    assert settings_lib.list_versions("own") == []


def test_the_decoder_for_any_maps_counts_as_the_one_of_the_task() -> None:
    config = _resolve(_CONFIGS / "online/segmentation/openkbp.yaml")
    version = catalog.TASKS["openkbp"].version
    for class_path, is_equal in [
        ("eva_coralbay.evaluation.pyramid_decoder.PyramidDecoder", True),
        ("some.other.Decoder", False),
    ]:
        config["model"]["init_args"]["decoder"] = {
            "class_path": class_path,
            "init_args": {"channels": [4, 8]},
        }
        found = run_config.find_changes(config, "openkbp", version, _FROZEN)
        assert (not found) == is_equal


def test_changes_are_found() -> None:
    config = _resolve(_CONFIGS / "online/segmentation/btcv.yaml")
    config["trainer"]["init_args"]["max_steps"] = 6
    config["data"]["init_args"]["dataset"]["init_args"]["split_scheme"] = "voco"
    config["model"]["init_args"]["lr_warmup"] = 5
    config["model"]["init_args"]["decoder"]["init_args"]["feature_size"] = "12"
    version = catalog.TASKS["btcv"].version
    assert run_config.find_changes(config, "btcv", version, _FROZEN) == {
        "data.init_args.dataset.init_args.split_scheme": ("voco", None),
        "model.init_args.lr_warmup": (5, None),
        "trainer.max_steps": (6, 20000),
    }
    assert run_config.find_changes(config, "own", version, _FROZEN) == {}


def test_every_key_of_the_machine_is_one_that_a_config_has() -> None:
    """A key that is left out of the settings though no config has it would be dead."""
    golden = (_ROOT / "tests/eva_coralbay/resolved_configs.json").read_text(encoding="utf-8")
    keys = {part for key in re.findall(r'"([\w.]+)":', golden) for part in key.split(".")}
    assert {*run_config.MACHINE_KEYS, *run_config.OTHER_MODEL_KEYS} <= keys
