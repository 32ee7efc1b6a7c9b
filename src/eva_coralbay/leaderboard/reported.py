"""Numbers that others have published. They are shown apart, and never ranked with measured ones.

There is a JSON file a model, `leaderboard/reported/<org>__<model>.json`, with a list of them.
"""

import os
import pathlib
from typing import Annotated, Final, Literal

import pydantic

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.leaderboard import cards as model_cards
from eva_coralbay.results import bounded_reading

MAX_BYTES: Final = 100_000
"""The most bytes of a file of numbers."""


class Source(pydantic.BaseModel):
    """Where a number is published."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    title: str
    """Title of the publication."""

    url: model_cards.Url
    """Where it is."""

    where: str
    """The table or the file in it."""


class Reported(pydantic.BaseModel):
    """A number that others have published."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["reported"]
    """It was not measured here."""

    model: str
    """The id of the model, as in the records."""

    task: str
    """The id of our task with the same data, or the name of the data set as published."""

    protocol: str
    """How it was measured, in words."""

    metric: str
    """Name of the metric, as published."""

    value: Annotated[float, pydantic.Field(ge=0, le=1)]
    """The value, as a fraction."""

    spread: Annotated[float, pydantic.Field(ge=0)] | None
    """Standard deviation as published, as a fraction."""

    n: Annotated[int, pydantic.Field(ge=1)] | None
    """The number of cases."""

    split: str
    """The cases, in words."""

    source: Source

    note: str | None
    """What a reader should know."""


def read(path: str | os.PathLike[str]) -> list[Reported]:
    """Reads the numbers of a model.

    Args:
        path: The path of the JSON file.

    Raises:
        EvaCoralbayError: If the file is not as it should be.
    """
    try:
        content = bounded_reading.read_json(path, max_bytes=MAX_BYTES)
        numbers = pydantic.TypeAdapter(list[Reported]).validate_python(content)
    except ValueError as error:
        raise EvaCoralbayError(f"{path} is not a list of reported numbers: {error}") from error
    expected = pathlib.Path(path).stem.replace("__", "/")
    others = sorted({number.model for number in numbers} - {expected})
    if others:
        raise EvaCoralbayError(
            f"{path} is for '{expected}', but has numbers of {', '.join(others)}."
        )
    return numbers


def find(folder: str | os.PathLike[str]) -> list[Reported]:
    """Reads all numbers of a folder, sorted by task, and by value from high to low.

    Args:
        folder: The folder; if it is not there, there are no numbers.

    Raises:
        EvaCoralbayError: If a file is not as it should be, naming it.
    """
    numbers = [
        number for path in sorted(pathlib.Path(folder).glob("*.json")) for number in read(path)
    ]
    return sorted(numbers, key=lambda number: (number.task, -number.value, number.model))
