"""The errors that a user can cause and fix, and how they are shown."""

import os
import sys
from types import TracebackType

from eva_coralbay import _messages

DEBUG_VARIABLE = "EVA_CORALBAY_DEBUG"
"""The environment variable that shows the traceback of these errors, too; any value but 0."""


class EvaCoralbayError(ValueError):
    """Something that the user can fix: a file, an argument or a configuration is wrong.

    The message says what is wrong, where, and what to do. The command and `eva fit` print it alone;
    any other error is a bug and keeps its traceback.
    """


class DatasetError(EvaCoralbayError):
    """A case, a file or a description of a data set cannot be used.

    The message names the case and the file, and says what is wrong and what to do.
    """


def is_debugging() -> bool:
    """Whether the user has asked for tracebacks."""
    return os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")


def show_messages_alone() -> None:
    """Lets an :class:`EvaCoralbayError` that ends the program print its message alone."""
    # a debugger or a notebook has its own
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _show


def get_message(error: BaseException) -> str:
    """Returns the message of an error, without the traceback of the data worker it comes from.

    Args:
        error: The error. PyTorch puts the traceback of a data worker into the message.
    """
    message = str(error)
    if not message.startswith("Caught ") or "\nOriginal Traceback " not in message:
        return message
    kind = type(error)
    _, separator, original = message.rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")
    return original.strip() if separator else message


def _show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Prints the message of an error of the user, and any other error with its traceback."""
    if isinstance(error, EvaCoralbayError) and not is_debugging():
        message = _messages.printable_lines(get_message(error))
        print(f"error: {message}\n(Set {DEBUG_VARIABLE}=1 to see the traceback.)", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)
