"""What Lightning calls, by an entry point, whenever a trainer is built in this environment."""

import sys
from types import TracebackType

from eva_coralbay import errors


def callbacks_factory() -> list:
    """Prepares a program that uses eva's vision models for our backbones and errors.

    It makes our backbones known to eva, and lets an :class:`errors.EvaCoralbayError` that ends the
    program print its message alone. eva has no hook of its own for plugins, but it looks a
    backbone up only after the trainer is built. A program that has nothing to do with eva pays for
    no import.

    Returns:
        An empty list: there is no callback to add.
    """
    if "eva.vision" in sys.modules:
        from eva_coralbay.models import registry

        registry.register_backbones()
        # a debugger or a notebook has its own
        if sys.excepthook is sys.__excepthook__:
            sys.excepthook = _show
    return []


def _show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Prints the message of an error of the user, and any other error with its traceback."""
    if isinstance(error, errors.EvaCoralbayError) and not errors.is_debugging():
        print(
            f"error: {errors.get_message(error)}\n"
            f"(Set {errors.DEBUG_VARIABLE}=1 to see the traceback.)",
            file=sys.stderr,
        )
    else:
        sys.__excepthook__(kind, error, traceback)
