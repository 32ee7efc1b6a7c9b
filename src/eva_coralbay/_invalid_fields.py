"""What pydantic finds wrong in a file, in the words of a message."""

from collections.abc import Mapping
from typing import Any

import pydantic

from eva_coralbay import _messages


def explain(error: ValueError) -> str:
    """Returns in one line why a model of pydantic cannot be made.

    Args:
        error: What pydantic has raised.

    Returns:
        The first few wrong fields with what is wrong of them and what was found; the message of the
        error itself if pydantic has not raised it.
    """
    if not isinstance(error, pydantic.ValidationError):
        return str(error)
    fields = map(_explain_field, error.errors(include_url=False))
    return _messages.list_names(fields, separator="; ")


def describe(detail: Mapping[str, Any]) -> str:
    """Returns what pydantic finds wrong in one field, and what was found there."""
    message = detail["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{message}, got {str(detail['input'])[:50]!r}"


def _explain_field(detail: Mapping[str, Any]) -> str:
    where = ".".join(map(str, detail["loc"]))
    return f"'{where}': {describe(detail)}" if where else describe(detail)
