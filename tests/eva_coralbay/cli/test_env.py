"""Tests `eva-coralbay env`."""

import json
from importlib import metadata

import pytest

from eva_coralbay.cli import main


def test_states_versions_devices_and_disk(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["env", "--json"]) == 0

    facts = json.loads(capsys.readouterr().out)
    assert facts["packages"]["eva-coralbay"] == metadata.version("eva-coralbay")
    assert facts["packages"]["torch"] == metadata.version("torch")
    assert facts["system"]["disk of this folder"].endswith(" GiB free")
    assert "mps" in facts["devices"]


def test_prints_the_same_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["env"]) == 0

    output = capsys.readouterr().out
    assert "kaiko-eva" in output and "GiB" in output
