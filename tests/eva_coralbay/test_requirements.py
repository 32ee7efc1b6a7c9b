"""Tests that releases of dependencies that compute other values are excluded."""

import pathlib

import pytest
import torch
from packaging import requirements
from torchmetrics import segmentation

_PROJECT = pathlib.Path(__file__).parents[2] / "pyproject.toml"


def _dependency(name: str) -> requirements.Requirement:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads(_PROJECT.read_text())["project"]
    (found,) = (
        each for each in map(requirements.Requirement, project["dependencies"]) if each.name == name
    )
    return found


@pytest.mark.parametrize(
    ("version", "is_allowed"),
    [
        ("1.6.0", True), ("1.6.1", True), ("1.6.2", False), ("1.6.3", False), ("1.7.0", False),
        ("1.7.1", False), ("1.7.4", False), ("1.8.0", True), ("1.8.2", True), ("2.0.0", False),
    ],
)  # fmt: skip
def test_torchmetrics_of_other_dice_are_excluded(version: str, is_allowed: bool) -> None:
    assert _dependency("torchmetrics").specifier.contains(version) == is_allowed


def test_the_installed_torchmetrics_give_a_perfect_prediction_1() -> None:
    """The excluded ones give 43 / 46 = 0.9348: 0 for each of three tumors that are not there."""
    metric = segmentation.DiceScore(
        num_classes=3, include_background=False, average="macro", input_format="index"
    )
    for case in range(23):
        labels = torch.zeros(1, 4, 4, 4, dtype=torch.long)
        labels[:, 0], labels[:, 1] = 1, 0 if case < 3 else 2
        metric.update(labels, labels)
    assert metric.compute() == pytest.approx(1.0)
