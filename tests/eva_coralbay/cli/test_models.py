"""Tests the command `models`."""

import json
import pathlib

import pytest
from huggingface_hub import constants

from eva_coralbay.cli import main
from eva_coralbay.models import weight_sources, zoo


def test_table_fits_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    assert main.main(["models"]) == 0

    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for name in zoo.ENTRIES:
        assert name in printed
    assert "53.2 RAS" in printed
    assert "hash unknown: radiology/ct_fm, " in " ".join(printed.split())


def test_json_has_every_fact(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["models", "--json"]) == 0

    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert list(entries) == list(zoo.ENTRIES)
    voco = entries["radiology/voco_b"]
    assert voco["unpinned"] is None and "newest" in entries["radiology/ct_fm"]["unpinned"]
    assert voco["weights"].endswith("#VoCo_B_SSL_head.pt")
    assert voco["maps"][-1] == {"channels": 768, "stride": [32, 32, 32]}
    assert voco["preprocessing"]["hu_clip"] == [-175.0, 250.0]
    assert "btcv" in voco["pretraining_tasks"]
    assert entries["radiology/coralbay_random"]["downloaded"] is None


def test_says_whether_weights_are_downloaded(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    path = weight_sources.path_of_url(str(zoo.ENTRIES["radiology/fmcib"].weights))
    path.parent.mkdir(parents=True)
    path.touch()

    main.main(["models", "--json"])

    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert entries["radiology/fmcib"]["downloaded"] is True
    assert entries["radiology/voco_b"]["downloaded"] is False
