"""Tests of the resolved configuration."""

import copy
import functools
import operator
import pathlib
from typing import Any

import pytest

from eva_coralbay.results import run_config


def _changed(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Returns a copy of a configuration with another value at a dotted path."""
    changed = copy.deepcopy(config)
    *parents, key = path.split(".")
    functools.reduce(operator.getitem, parents, changed)[key] = value
    return changed


_RESOLVED = {
    "trainer": {"init_args": {"max_steps": 10, "default_root_dir": "a", "n_runs": 1}},
    "model": {
        "class_path": "Module",
        "init_args": {
            "lr": 0.1,
            "seed": 0,
            "protocol": "frozen",
            "encoder": {"a": 1},
            "decoder": {
                "class_path": "Decoder",
                "init_args": {"feature_size": 48, "project_dims": None},
            },
        },
    },
    "data": {
        "init_args": {
            "datasets": {"val": {"class_path": "Data", "init_args": {"root": "a", "fold": 0}}},
            "dataloaders": {"val": {"batch_size": 1, "num_workers": 2}},
        }
    },
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("trainer.init_args.default_root_dir", "b"),
        ("trainer.init_args.n_runs", 5),
        ("trainer.init_args.accelerator", "gpu"),
        ("trainer.init_args.dry_run", True),
        ("trainer.init_args.callbacks", [{"class_path": "Bar"}]),
        ("model.init_args.seed", 1),
        ("model.init_args.protocol", "scratch"),
        ("model.init_args.encoder", {"a": 2}),
        ("model.init_args.decoder.init_args.feature_size", 8),
        ("model.init_args.decoder.init_args.project_dims", [8, 16]),
        ("model.init_args.lr", "0.1"),
        ("data.init_args.datasets.val.init_args.root", "b"),
        ("data.init_args.dataloaders.val.num_workers", 0),
    ],
)
def test_a_task_is_the_same_for_every_user_and_model(path: str, value: Any) -> None:
    changed = _changed(_RESOLVED, path, value)
    assert changed != _RESOLVED
    assert run_config.sha256(changed) == run_config.sha256(_RESOLVED)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("trainer.init_args.max_steps", 11),
        ("trainer.init_args.precision", "bf16-mixed"),
        ("model.class_path", "Other"),
        ("model.init_args.decoder.class_path", "Other"),
        ("model.init_args.lr", 0.2),
        ("data.init_args.datasets.val.init_args.fold", 1),
        ("data.init_args.dataloaders.val.batch_size", 2),
    ],
)
def test_another_task_has_another_hash(path: str, value: Any) -> None:
    changed = _changed(_RESOLVED, path, value)
    assert run_config.sha256(changed) != run_config.sha256(_RESOLVED)


_CLASSES = "trainer: {class_path: a, init_args: {}}\nmodel: {class_path: a, init_args: {}}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not a resolved configuration: it needs trainer, model, data"),
        (_CLASSES + "data: {class_path: a}\n", "is not a resolved configuration"),
        (_CLASSES + "data: {class_path: a, init_args: {b: .nan}}", "JSON does not have"),
        ("a: [", "is not a YAML file"),
        ("a: !!python/object/apply:os.getcwd []", "is not a YAML file.*python/object"),
        ("[" * 1500, "is not a YAML file"),
        ("a: &a [1]\nb: &b [*a, *a]\n" + "c: [" + "*b, " * 10**4 + "]", "more than 20000 values"),
        ("&a [*a]", "nested more than 60 deep"),
    ],
)
def test_other_files_are_rejected(tmp_path: pathlib.Path, content: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        run_config.read(path)


def test_a_configuration_is_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(_CLASSES + "data: {class_path: b, init_args: {c: 1}}\n")
    assert run_config.read(path)["data"] == {"class_path": "b", "init_args": {"c": 1}}
