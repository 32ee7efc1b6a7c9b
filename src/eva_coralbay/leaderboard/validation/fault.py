"""A fault of a results folder: where it is, what is wrong, and what to do."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator

import pydantic

from eva_coralbay import _invalid_fields, _messages


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that is wrong with a results folder."""

    path: pathlib.Path
    """The file or folder."""

    where: str
    """The field of a record or a line of a table; empty if it is the file as a whole."""

    message: str
    """What is wrong and what to do."""

    is_warning: bool = False
    """Whether the results can be shown nevertheless."""

    def __str__(self) -> str:
        """Returns it in one line."""
        level = "warning" if self.is_warning else "error"
        return _messages.printable(
            ": ".join(filter(None, (level, str(self.path), self.where, self.message)))
        )

    def as_dict(self) -> dict[str, str]:
        """Returns it as JSON has it."""
        return {
            "level": "warning" if self.is_warning else "error",
            "path": str(self.path),
            "where": self.where,
            "message": self.message,
        }


def explain(path: pathlib.Path, error: ValueError) -> Iterator[Fault]:
    """Yields why a record cannot be read, each field apart."""
    cause = error.__cause__
    if isinstance(cause, pydantic.ValidationError):
        for detail in cause.errors(include_url=False):
            where = ".".join(map(str, detail["loc"]))
            yield Fault(path, where, f"{_invalid_fields.describe(detail)}.")
    elif isinstance(cause, json.JSONDecodeError):
        yield Fault(path, f"line {cause.lineno}", f"is not valid JSON: {cause.msg}.")
    else:
        yield Fault(path, "", without_path(error, path))


def without_path(error: Exception, path: pathlib.Path) -> str:
    """Returns a message without the path that it begins with."""
    return str(error).removeprefix(str(path)).lstrip(",: ")
