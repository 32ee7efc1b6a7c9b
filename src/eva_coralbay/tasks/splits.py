"""The splits of the tasks: which case is for training, for validation, for the test."""

import functools
import json
from importlib import resources
from typing import NamedTuple

from eva_coralbay.errors import EvaCoralbayError


class Splits(NamedTuple):
    """The splits of a task, as its file in `splits/` has them."""

    version: str
    """The version of the lists."""

    source: str
    """Where the case ids are from."""

    default: str
    """The scheme that is ranked."""

    schemes: dict[str, dict[str, list[str]]]
    """The case ids by split by scheme."""


@functools.cache
def read_splits(task: str) -> Splits:
    """Reads the splits of a task.

    Args:
        task: The id of the task.

    Raises:
        EvaCoralbayError: If the file is that of another task, or a case is in two splits of a
            scheme or twice in one.
    """
    file = resources.files("eva_coralbay.tasks") / "splits" / f"{task}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    if content["task"] != task:
        raise EvaCoralbayError(f"Splits of '{task}': the file is that of '{content['task']}'.")
    schemes = {
        scheme: {split: cases for split, cases in lists.items() if split != "source"}
        for scheme, lists in content["splits"].items()
    }
    for scheme, lists in schemes.items():
        cases = sum(lists.values(), [])
        if len(cases) != len(set(cases)):
            raise EvaCoralbayError(
                f"Splits of '{task}', scheme '{scheme}': a case is listed twice."
            )
    return Splits(content["version"], content["source"], content["default"], schemes)
