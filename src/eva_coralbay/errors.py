"""The errors that a user can cause and fix, and how they are shown."""

import math
import os
import sys
import types
from collections.abc import Callable, Sequence

from eva_coralbay import _messages

DEBUG_VARIABLE = "EVA_CORALBAY_DEBUG"
"""The environment variable that shows the traceback of these errors, too; any value but 0."""

_ShowError = Callable[[type[BaseException], BaseException, types.TracebackType | None], object]
"""What the interpreter calls with an error that ends the program."""

_PLAIN_HOOKS = ("sys", "exceptiongroup")
"""The packages whose hooks print the traceback and do no more; the second is set by an import."""


class EvaCoralbayError(ValueError):
    """Something that the user can fix: a file, an argument or a configuration is wrong.

    The message says what is wrong, where, and what to do. The command and `eva fit` print it
    alone, as they do all of :data:`SHOWN_ALONE`; any other error is a bug and keeps its traceback.
    """


class DatasetError(EvaCoralbayError):
    """A case, a file or a description of a data set cannot be used.

    The message names the case and the file, and says what is wrong and what to do.
    """


SHOWN_ALONE = (EvaCoralbayError, OSError, MemoryError)
"""The errors whose message is printed without a traceback: a file, a disk or a machine may be at
fault, but no bug."""

_MISUSE_OF_LIGHTNING = "MisconfigurationException"
"""The class of Lightning's errors about its arguments, such as a GPU that is not there. It is known
by its name here, as this module starts without Lightning."""


def check_at_least(lowest: int, number: float, name: str, variable: str) -> None:
    """Checks a number that a user gives.

    Args:
        lowest: The lowest that there may be.
        number: The number.
        name: The name of the argument.
        variable: The environment variable that sets it in the configs.

    Raises:
        EvaCoralbayError: If the number is below that, infinite or NaN.
    """
    if not lowest <= number < math.inf:
        bounds = f"{lowest} or more" if math.isfinite(number) else f"finite, and {lowest} or more"
        raise EvaCoralbayError(f"`{name}` ({variable}) must be {bounds}; got {number}.")


def check_list(numbers: Sequence[float] | float, name: str, variable: str) -> Sequence[float]:
    """Returns the numbers that a user gives, after checking that they are a list.

    A parser that takes lists alone would refuse a number in ten lines.

    Args:
        numbers: The numbers.
        name: The name of the argument.
        variable: The environment variable that sets it in the configs.

    Raises:
        EvaCoralbayError: If it is a single number.
    """
    if isinstance(numbers, int | float):
        raise EvaCoralbayError(
            f"`{name}` ({variable}) must be a list of numbers, such as [1, 2, 3]; got {numbers:g}."
        )
    return numbers


def is_debugging() -> bool:
    """Whether the user has asked for tracebacks."""
    return os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")


def show_messages_alone() -> None:
    """Lets an error of :data:`SHOWN_ALONE` that ends the program print its message alone.

    Any other error goes to the hook that was there before. The hook of a debugger stays.
    """
    if str(sys.excepthook.__module__).split(".")[0] in _PLAIN_HOOKS:
        sys.excepthook = _Hook(sys.excepthook)


def get_message(error: BaseException) -> str:
    """Returns the message of an error, as a terminal may show it.

    Args:
        error: The error. PyTorch puts the traceback of a data worker into the message: it is left
            out.
    """
    message = _messages.printable_lines(_without_traceback(error))
    if isinstance(error, MemoryError):
        return f"there is too little memory ({message or 'no details'}); free some"
    return message


def in_one_line(error: BaseException) -> str:
    """Says in one line what is wrong with one thing of many, such as a scan.

    Args:
        error: The error. One that no check foresaw is named by its kind, too.
    """
    message = " ".join(str(error).split())
    return message if isinstance(error, EvaCoralbayError) else f"{type(error).__name__}: {message}"


def _without_traceback(error: BaseException) -> str:
    message = str(error)
    if not message.startswith("Caught ") or "\nOriginal Traceback " not in message:
        return message
    kind = type(error)
    _, separator, original = message.rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")
    return original.strip() if separator else message


class _Hook:
    """Prints the message of some errors alone, and leaves any other error to another hook."""

    def __init__(self, other: _ShowError) -> None:
        self._other = other

    def __call__(
        self,
        kind: type[BaseException],
        error: BaseException,
        traceback: types.TracebackType | None,
    ) -> None:
        is_shown_alone = isinstance(error, SHOWN_ALONE) or kind.__name__ == _MISUSE_OF_LIGHTNING
        if is_shown_alone and not is_debugging():
            ending = f"(Set {DEBUG_VARIABLE}=1 to see the traceback.)"
            print(f"error: {get_message(error)}\n{ending}", file=sys.stderr)
        else:
            self._other(kind, error, traceback)
