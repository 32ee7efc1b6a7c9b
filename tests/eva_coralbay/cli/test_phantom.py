"""Tests `eva-coralbay phantom`."""

import json
import pathlib

from eva_coralbay.cli import main


def test_phantom(tmp_path: pathlib.Path) -> None:
    arguments = ["--cases", "2", "--val-cases", "1", "--seed", "3"]
    exit_code = main.main(["phantom", str(tmp_path / "data"), *arguments])

    assert exit_code == 0
    assert len(list((tmp_path / "data" / "imagesTr").iterdir())) == 2
    splits = json.loads((tmp_path / "data" / "splits_final.json").read_text())
    assert len(splits[0]["val"]) == 1
