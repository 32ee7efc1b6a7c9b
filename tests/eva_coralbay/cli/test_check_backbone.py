"""Tests `eva-coralbay check-backbone`."""

import json
from typing import Any

import pytest

from eva_coralbay.cli import main
from eva_coralbay.models import contract, zoo

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


def test_all_or_one() -> None:
    for arguments in ([], [_KEEPS, "--all"]):
        assert main.main(["check-backbone", *arguments]) == 1


def _check_quickly(backbone: str, **kwargs: Any) -> contract.Report:
    """Stands for the check, which takes a minute: the first encoder passes, all others fail."""
    holds = backbone == next(iter(zoo.ENTRIES))
    return contract.Report(backbone, [contract.Finding("looks", holds, "seen")], 12.3, 0.5, None)


def test_all_of_the_zoo(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each as soon as it is done, and the exit code of the worst."""
    monkeypatch.setattr(contract, "check", _check_quickly)
    first, second = list(zoo.ENTRIES)[:2]

    assert main.main(["check-backbone", "--all", "--random-weights"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert f"ok        12 s   0.50 GiB  {first}" in lines
    assert f"FAILS     12 s   0.50 GiB  {second}" in lines and "      looks: seen" in lines
    assert lines[-1] == f"1 of {len(zoo.ENTRIES)} encoders keep the contract."

    assert main.main(["check-backbone", "--all", "--random-weights", "--json"]) == 1
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [report["backbone"] for report in reports] == list(zoo.ENTRIES)
    assert [report["holds"] for report in reports[:2]] == [True, False]


@pytest.mark.slow
def test_every_encoder_of_the_zoo_keeps_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check-backbone", "--all", "--random-weights", "--roi", "64", "--json"]

    exit_code = main.main(arguments)

    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {report["backbone"] for report in reports} == set(zoo.ENTRIES)
    failed = {
        (report["backbone"], finding["check"]): finding["seen"]
        for report in reports
        for finding in report["findings"]
        if finding["holds"] is False
    }
    assert failed == {} and exit_code == 0


def test_check_backbone_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [_KEEPS, "--json", "--roi", "64", "--in-channels", "2", "--kwarg", "in_channels=2"]
    exit_code = main.main(["check-backbone", *arguments])

    report = json.loads(capsys.readouterr().out)
    assert exit_code == 0
    assert report["backbone"] == _KEEPS and report["holds"]
    assert report["findings"][0] == {"check": "builds", "holds": True, "seen": "6 parameters"}
