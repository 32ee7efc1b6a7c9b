"""Tests of the variables that have no effect."""

import pathlib
import re

import pytest

from eva_coralbay import evaluation
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import eva_variables

CONFIGS = pathlib.Path(__file__).parents[3] / "configs"

READ = {
    name
    for path in CONFIGS.rglob("*.yaml")
    for name in re.findall(r"oc\.env: *(\w+)", path.read_text())
}
"""The variables that our configs read."""


def test_an_evaluation_does_not_start_with_a_variable_that_has_no_effect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPACING_T", "3.0")
    monkeypatch.setenv("SCALE_INTENSITY_MIN", "-1000")

    with pytest.raises(EvaCoralbayError, match="SCALE_INTENSITY_MIN: .*HU_WINDOW(?s:.*)SPACING_T"):
        evaluation.Trainer(task="btcv", task_version="2")


def test_no_variable_that_is_read_is_refused() -> None:
    assert not READ & set(eva_variables.INSTEAD)


def test_what_is_named_instead_is_read() -> None:
    named = set(re.findall(r"[A-Z]{2,}_?[A-Z]*", " ".join(eva_variables.INSTEAD.values())))

    assert named - {"HU"} <= READ


def test_an_empty_variable_is_none() -> None:
    eva_variables.check({"SPACING_T": "", "SPACING": "[3, 3, 3]", "PATH": "/bin"})
