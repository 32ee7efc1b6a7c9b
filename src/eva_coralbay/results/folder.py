"""The results folder: where the record of each run lies.

<org>__<model>/<revision>/<task>@<version>/<protocol>/
seed_<s>.json           the record
seed_<s>.cases.csv      its case table
seed_<s>.config.yaml    its resolved configuration
verified.txt                the records that somebody else has repeated
"""

import dataclasses
import os
import pathlib
import re
from typing import Final

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.results import case_table
from eva_coralbay.results import record as record_lib

UNVERSIONED: Final = "unversioned"
"""The folder of weights without a revision."""

VERIFIED: Final = "verified.txt"
"""The file in the results folder that lists the records somebody else has repeated.

It has the format of `sha256sum`: a line a record, with the hash and the path of its file.
"""

_VERIFIED_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S.*)")
"""A line of that file."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
"""What a part of a path may be."""

_MODEL_NAME = re.compile(r"(?!.*__)[A-Za-z0-9-]([A-Za-z0-9._-]{0,98}[A-Za-z0-9.-])?")
"""What a part of a model's name may be, so that no two models have the same folder."""

_NAME_RULE = (
    "is {!r}, but a name has at most 100 letters, digits, dots, underscores and hyphens, and does "
    "not begin with a dot."
)
"""What is wrong with another name."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A record and where it lies."""

    path: pathlib.Path
    """The path of the record."""

    record: record_lib.Record

    @property
    def cases_path(self) -> pathlib.Path:
        """The path of the case table."""
        return self.path.with_name(f"{self.path.stem}.cases.csv")

    @property
    def config_path(self) -> pathlib.Path:
        """The path of the resolved configuration."""
        return self.path.with_name(f"{self.path.stem}.config.yaml")

    @property
    def rows(self) -> list[case_table.Row]:
        """The rows of the case table.

        Raises:
            EvaCoralbayError: If it is not a case table, naming the line.
        """
        return case_table.read(self.cases_path)


def find(folder: str | os.PathLike[str]) -> list[Entry]:
    """Reads all records of a results folder. It takes them as they are: see `validation`.

    Args:
        folder: The results folder, or one below it.

    Returns:
        The entries, sorted by path.

    Raises:
        EvaCoralbayError: If the folder is not there, or a record cannot be read, naming the file.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise EvaCoralbayError(f"There is no folder {folder}.")
    return [Entry(path, record_lib.Record.read(path)) for path in sorted(root.rglob("*.json"))]


def relative_path(result: record_lib.Record) -> pathlib.PurePosixPath:
    """Returns where a record belongs, relative to the results folder.

    Args:
        result: The record.

    Raises:
        EvaCoralbayError: If a name is missing, or has other characters than letters, digits, dots,
            underscores and hyphens or begins with a dot, naming the field.
    """
    for field, problem in find_bad_names(result).items():
        raise EvaCoralbayError(f"`{field}` {problem}")
    return pathlib.PurePosixPath(
        "__".join(str(result.model.id).split("/")),
        UNVERSIONED if result.model.revision is None else result.model.revision,
        f"{result.task.id}@{result.task.version}",
        str(result.protocol),
        f"seed_{result.seed}.json",
    )


def find_bad_names(result: record_lib.Record) -> dict[str, str]:
    """Finds what keeps a record from having a place in the results folder.

    Args:
        result: The record.

    Returns:
        By field what is wrong with it and what it should be; empty if nothing is.
    """
    names = {
        "task.id": result.task.id,
        "task.version": result.task.version,
        "protocol": result.protocol,
        "model.revision": UNVERSIONED if result.model.revision is None else result.model.revision,
    }
    problems = {field: _NAME_RULE.format(name) for field, name in names.items() if _is_bad(name)}
    problem = find_bad_model_name(result.model.id)
    if problem is not None:
        problems["model.id"] = problem
    if result.seed is None or result.seed < 0:
        problems["seed"] = f"is {result.seed}, but a result has one from 0 on."
    return problems


def find_bad_model_name(name: str | None) -> str | None:
    """Returns what is wrong with the name of a model and what it should be; None if nothing is.

    Args:
        name: The name.
    """
    parts = (name or "").split("/")
    if len(parts) > 1 and all(map(_MODEL_NAME.fullmatch, parts)):
        return None
    return (
        f"is {name!r}, but a model is named <organization>/<model>, both of letters, digits, dots, "
        "underscores and hyphens, without two underscores in a row, which stand for the slash in "
        "the name of its folder, and without a dot or an underscore at the start or an underscore "
        "at the end."
    )


def read_verified(root: str | os.PathLike[str]) -> dict[pathlib.Path, str]:
    """Reads which records somebody else has repeated.

    Args:
        root: The results folder.

    Returns:
        The SHA-256 by path of each record that is listed; empty if there is no list.

    Raises:
        EvaCoralbayError: If the list cannot be read, naming the line.
    """
    path = pathlib.Path(root) / VERIFIED
    if not path.is_file():
        return {}
    verified = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        match = _VERIFIED_LINE.fullmatch(line.rstrip())
        if match is None:
            raise EvaCoralbayError(
                f"{path}, line {number}: write the SHA-256 of a record and its path in this "
                "folder, as `sha256sum` prints them."
            )
        verified[pathlib.Path(root) / match[2]] = match[1]
    return verified


def _is_bad(name: str | None) -> bool:
    """Whether a name cannot be a part of a path."""
    return name is None or not _NAME.fullmatch(name)
