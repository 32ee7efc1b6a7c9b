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


def test_all_variables_that_are_read_are_known() -> None:
    assert sorted(READ) == list(eva_variables.READ)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("HU_WINDOWS", "HU_WINDOW"),
        ("spacing", "SPACING"),
        ("BATCHSIZE", "BATCH_SIZE"),
        ("CHECKPOINTS", "CHECKPOINT"),
        ("N_RUN", "N_RUNS"),
    ],
)
def test_a_misspelled_variable_is_named_with_the_right_one(
    log: list[str], name: str, meant: str
) -> None:
    eva_variables.check({name: "1", meant: "1"})

    assert log == [f"WARNING The environment variable {name} has no effect here. Is {meant} meant?"]


def test_variables_of_other_programs_are_none_of_ours(log: list[str]) -> None:
    names = (
        "PATH",
        "HOME",
        "SLURM_NTASKS",
        "CUDA_VISIBLE_DEVICES",
        "OMP_NUM_THREADS",
        "PWD",
        "LANG",
    )
    eva_variables.check(dict.fromkeys((*names, *eva_variables.READ), "1") | {"SEEDS": ""})

    assert log == []
