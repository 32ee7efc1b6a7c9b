"""Tests what the command makes of arguments, errors and interruptions."""

import argparse
import io
import os
import pathlib
import subprocess
import sys

import pytest

from eva_coralbay import errors
from eva_coralbay.cli import _subcommand, main
from tests.eva_coralbay.leaderboard import run_files

_ROOT = pathlib.Path(__file__).parents[3]
"""The top of the repository."""

_RECORDS = str(_ROOT / "tests/eva_coralbay/results/data")
"""A folder with records."""

_MODELS = ["baseline/coralbay_random_12", "baseline/gaussian_derivatives"]
"""Two models with results in the repository."""

_SLOW_TO_IMPORT = ["torch", "lightning", "monai", "pandas", "matplotlib", "sklearn"]

_COMMANDS_OF_LIGHT_MODULES = """
import contextlib, os, sys

from eva_coralbay.cli import main

for arguments, slow in {commands}:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            code = main.main(arguments)
        except SystemExit as exit_:
            code = exit_.code
    assert not code, (arguments, code)
    loaded = sys.modules.keys() & slow
    assert not loaded, (arguments, loaded)
"""


class _Raises(_subcommand.Subcommand):
    """Raises an error."""

    name = "raise"
    help = "raise an error"
    examples = "eva-coralbay raise"
    error: BaseException

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int:
        raise self.error


@pytest.fixture(name="raises")
def _raises(monkeypatch: pytest.MonkeyPatch) -> _Raises:
    """Adds a command that raises the error that the test gives it."""
    command = _Raises()
    monkeypatch.setattr(main, "SUBCOMMANDS", (command,))
    return command


@pytest.mark.parametrize(
    "error",
    [errors.DatasetError("There is no [folder]."), FileNotFoundError(2, "No such file", "x.yaml")],
)
def test_an_error_of_the_user_is_one_line(
    error: Exception, raises: _Raises, capsys: pytest.CaptureFixture[str]
) -> None:
    raises.error = error

    assert main.main(["raise"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"eva-coralbay: error: {error}\n"


def test_too_little_memory_is_one_line(raises: _Raises, capsys: pytest.CaptureFixture[str]) -> None:
    raises.error = MemoryError("Unable to allocate 8 TiB")

    assert main.main(["raise"]) == 1
    assert capsys.readouterr().err == (
        "eva-coralbay: error: there is too little memory (Unable to allocate 8 TiB); free some\n"
    )


def test_what_a_terminal_obeys_is_escaped(
    raises: _Raises, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name of a file of somebody else may have it, too."""
    raises.error = errors.DatasetError("File '\x1b]0;owned\x07.nii': damaged.\nCopy it.")

    assert main.main(["raise"]) == 1

    expected = "eva-coralbay: error: File '\\x1b]0;owned\\x07.nii': damaged.\nCopy it.\n"
    assert capsys.readouterr().err == expected


def test_any_text_can_be_printed_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `LC_ALL=C`, or in a log, standard output may be ASCII."""

    class Say(_Raises):
        def run(self, arguments: argparse.Namespace) -> int:
            print("0.5 ± 0.1 \udcff")
            return 0

    said = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(said, encoding="ascii"))
    monkeypatch.setattr(main, "SUBCOMMANDS", (Say(),))

    assert main.main(["raise"]) == 0

    assert said.getvalue() == b"0.5 \\xb1 0.1 \\udcff\n"


def test_a_path_that_is_no_text_is_printed_byte_by_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python does so itself: a shell takes a path from it."""

    class Say(_Raises):
        def run(self, arguments: argparse.Namespace) -> int:
            print(os.fsdecode(b"/scans/\xff"))
            return 0

    said = io.BytesIO()
    stdout = io.TextIOWrapper(said, encoding="utf-8", errors="surrogateescape")
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(main, "SUBCOMMANDS", (Say(),))

    assert main.main(["raise"]) == 0

    assert said.getvalue() == b"/scans/\xff\n"


@pytest.mark.parametrize("arguments", [["--debug", "raise"], ["raise", "--debug"]])
def test_debug_shows_the_traceback(arguments: list[str], raises: _Raises) -> None:
    raises.error = errors.EvaCoralbayError("mine")
    with pytest.raises(errors.EvaCoralbayError, match="mine"):
        main.main(arguments)


def test_so_does_the_variable(raises: _Raises, monkeypatch: pytest.MonkeyPatch) -> None:
    raises.error = errors.EvaCoralbayError("mine")
    monkeypatch.setenv("EVA_CORALBAY_DEBUG", "1")
    with pytest.raises(errors.EvaCoralbayError, match="mine"):
        main.main(["raise"])


def test_a_bug_keeps_its_traceback(raises: _Raises) -> None:
    for error in (KeyError("a bug"), ValueError("a bug"), ZeroDivisionError("a bug")):
        raises.error = error
        with pytest.raises(type(error), match="a bug"):
            main.main(["raise"])


def test_an_interruption_is_one_line(raises: _Raises, capsys: pytest.CaptureFixture[str]) -> None:
    raises.error = KeyboardInterrupt()

    assert main.main(["raise"]) == 130
    assert capsys.readouterr().err == "eva-coralbay: interrupted\n"


def test_so_is_one_that_lightning_has_turned_into_an_exit(raises: _Raises) -> None:
    exit_ = SystemExit(1)
    exit_.__context__ = KeyboardInterrupt()
    raises.error = exit_

    assert main.main(["raise"]) == 130


def test_another_exit_keeps_its_code(raises: _Raises) -> None:
    raises.error = SystemExit(143)
    with pytest.raises(SystemExit) as exit_:
        main.main(["raise"])

    assert exit_.value.code == 143


def test_a_reader_that_goes_away_is_no_error() -> None:
    """As in `eva-coralbay results logs | head -1`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "eva_coralbay", "results", _RECORDS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1


def test_the_message_of_a_data_worker_is_that_of_the_error() -> None:
    message = (
        "Caught DatasetError in DataLoader worker process 0.\nOriginal Traceback (most recent call"
        ' last):\n  File "x.py", line 1, in f\neva_coralbay.errors.DatasetError: Case a is broken.'
    )
    assert errors.get_message(errors.DatasetError(message)) == "Case a is broken."


def test_windows_is_named_as_the_reason() -> None:
    code = "import sys; sys.platform = 'win32'; import eva_coralbay"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert result.returncode == 1
    assert "ImportError: eva-coralbay runs on Linux and macOS." in result.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main.main(["--version"])

    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith("eva-coralbay ")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main.main(["--print-completion", shell])

    assert exit_.value.code == 0
    assert "check-backbone" in capsys.readouterr().out


def test_commands_that_compute_nothing_start_at_once(tmp_path: pathlib.Path) -> None:
    found = next((_ROOT / "leaderboard/results").rglob("seed_0.json"))
    (tmp_path / "data").mkdir()
    run_files.write(tmp_path / "logs")
    leaderboard = [
        ["submit", str(tmp_path / "logs"), "--out", str(tmp_path / "results")],
        ["validate", "leaderboard/results"],
        ["verify", str(found)],
        ["sweep", "leaderboard/openkbp.yaml"],
        ["sweep", "probe/openkbp", "--models", "all"],
    ]
    statistics = [
        ["compare", *_MODELS, "--task", "openkbp", "--protocol", "probe"],
        ["build", "--out", str(tmp_path / "site")],
    ]
    commands = [
        ["--help"],
        ["--version"],
        ["tasks"],
        ["tasks", "--json"],
        ["tasks", "--root", str(tmp_path / "data")],
        ["models"],
        ["models", "--json"],
        ["results", _RECORDS],
        ["phantom", str(tmp_path / "phantom"), "--cases", "2", "--val-cases", "1"],
        ["config", "btcv"],
        ["config", "--copy", str(tmp_path / "configs"), "btcv"],
        *(["leaderboard", *command] for command in leaderboard),
    ]
    by_command = [
        *((command, {*_SLOW_TO_IMPORT, "scipy.stats"}) for command in commands),
        *((["leaderboard", *command], {*_SLOW_TO_IMPORT}) for command in statistics),
    ]
    result = subprocess.run(
        [sys.executable, "-c", _COMMANDS_OF_LIGHT_MODULES.format(commands=by_command)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("subcommand", [subcommand.name for subcommand in main.SUBCOMMANDS])
def test_help_shows_examples(subcommand: str, capsys: pytest.CaptureFixture[str]) -> None:
    _check_examples([subcommand], capsys)


@pytest.mark.parametrize(
    ("group", "subcommand"),
    [
        (group.name, subcommand.name)
        for group in main.SUBCOMMANDS
        if isinstance(group, _subcommand.Group)
        for subcommand in group.subcommands
    ],
)
def test_help_of_a_group_shows_examples(
    group: str, subcommand: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _check_examples([group, subcommand], capsys)


def _check_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main.main([*command, "--help"])

    assert exit_.value.code == 0
    examples = capsys.readouterr().out.partition("examples:")[2]
    assert f"eva-coralbay {' '.join(command)}" in examples


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["prepare", "btcv"], "required: --root"),
        (["prepare", "btcv", "--root", "x", "--workers", "0"], "a whole number of at least 1"),
        (["check-backbone", "x", "--kwarg", "width"], "'width' is not KEY=VALUE"),
        (["check-backbone", "x", "--roi", "0"], "a whole number of at least 1"),
        (["check-backbone", "x", "--in-channels", "0"], "a whole number of at least 1"),
        (["check-backbone", "x", "--kwarg", "width=[1"], "the value of 'width=[1' is not valid"),
        (["tasks", "--kind"], "unrecognized arguments: --kind"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main.main(arguments)

    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
