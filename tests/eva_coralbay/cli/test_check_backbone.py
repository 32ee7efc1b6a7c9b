"""Tests `eva-coralbay check-backbone`."""

import json

import pytest

from eva_coralbay.cli import main

_KEEPS = "tests.eva_coralbay.models.test_contract.Keeps"
_MIXES_BATCH = "tests.eva_coralbay.models.test_contract.MixesBatch"


def test_check_backbone_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = main.main(["check-backbone", _KEEPS, "--roi", "64", "--kwarg", "width=3"])

    output = capsys.readouterr().out
    assert exit_code == 0
    assert "embedding [B, E]" in output
    assert "[1, 1, 64, 64, 64] -> [1, 3]" in output
    assert "The backbone keeps the contract." in output


def test_check_backbone_fails(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = main.main(["check-backbone", _MIXES_BATCH, "--roi", "64"])

    assert exit_code == 1
    assert "The backbone does not keep the contract." in capsys.readouterr().out


def test_check_backbone_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [_KEEPS, "--json", "--roi", "64", "--in-channels", "2", "--kwarg", "in_channels=2"]
    exit_code = main.main(["check-backbone", *arguments])

    report = json.loads(capsys.readouterr().out)
    assert exit_code == 0
    assert report["backbone"] == _KEEPS and report["holds"]
    assert report["findings"][0] == {"check": "builds", "holds": True, "seen": "6 parameters"}
