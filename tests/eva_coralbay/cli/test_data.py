"""Tests `eva-coralbay prepare` and `inspect`."""

import pathlib

import pytest

from eva_coralbay.cli import main
from tests.eva_coralbay.data.datasets import layouts


def test_prepare_and_inspect(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path / "own", ["a", "b"])
    arguments = ["nnunet", "--root", str(tmp_path / "own")]

    prepared_root = str(tmp_path / "prepared")
    exit_codes = [
        main.main(["prepare", *arguments, "--workers", "1", "--prepared-root", prepared_root]),
        main.main(["inspect", *arguments, "--case", "b", "--out", str(tmp_path / "b.png")]),
    ]

    output = capsys.readouterr().out
    assert exit_codes == [0, 0]
    assert "All 2 cases of 'own' are prepared and intact." in output
    assert len(list((tmp_path / "prepared").rglob("*.scan"))) == 2
    assert "4 x 5 x 6" not in output and "6 x 5 x 4" in output  # (D, H, W), unlike in the file
    assert "spleen" in output
    assert f"picture: {tmp_path / 'b.png'}" in output
    assert (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["prepare", "nnunet", "--root", "nowhere"],
        ["inspect", "btvc", "--root", ".", "--case", "a"],
    ],
)
def test_errors_are_one_message(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = main.main(arguments)

    captured = capsys.readouterr()
    assert exit_code == 1
    assert captured.out == ""
    assert captured.err.startswith("eva-coralbay: error: There is no ")
