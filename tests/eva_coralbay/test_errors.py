"""Tests how an error that ends a program is shown."""

import sys

import pytest
from lightning.fabric.utilities import exceptions

from eva_coralbay import errors


class _Earlier:
    """The hook that a package sets when it is imported, as `exceptiongroup` does."""

    __module__ = "exceptiongroup._formatting"

    def __init__(self) -> None:
        self.seen: list[BaseException] = []

    def __call__(self, kind: type[BaseException], error: BaseException, traceback: object) -> None:
        self.seen.append(error)


@pytest.fixture
def earlier(monkeypatch: pytest.MonkeyPatch) -> _Earlier:
    hook = _Earlier()
    monkeypatch.setattr(sys, "excepthook", hook)
    return hook


def test_other_errors_go_to_the_hook_that_was_there(
    earlier: _Earlier, capsys: pytest.CaptureFixture[str]
) -> None:
    errors.show_messages_alone()
    errors.show_messages_alone()

    bug, mistake = KeyError("a"), errors.DatasetError("Case a is broken.")
    sys.excepthook(KeyError, bug, None)
    sys.excepthook(errors.DatasetError, mistake, None)

    assert earlier.seen == [bug]
    assert capsys.readouterr().err.startswith("error: Case a is broken.\n")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(2, "No such file", "/proc/x"), "[Errno 2] No such file: '/proc/x'"),
        (MemoryError("8 TiB"), "there is too little memory (8 TiB); free some"),
        (OSError("a\x1b[31m"), "a\\x1b[31m"),
        (exceptions.MisconfigurationException("No supported gpu"), "No supported gpu"),
    ],
)
def test_errors_of_the_machine_are_shown_as_the_command_shows_them(
    earlier: _Earlier, capsys: pytest.CaptureFixture[str], error: Exception, message: str
) -> None:
    errors.show_messages_alone()

    sys.excepthook(type(error), error, None)

    assert earlier.seen == []
    assert capsys.readouterr().err.startswith(f"error: {message}\n")


def test_the_traceback_is_shown_to_who_asks_for_it(
    earlier: _Earlier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(errors.DEBUG_VARIABLE, "1")
    errors.show_messages_alone()

    mistake = errors.DatasetError("Case a is broken.")
    sys.excepthook(errors.DatasetError, mistake, None)

    assert earlier.seen == [mistake]
