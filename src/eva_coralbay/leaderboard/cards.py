"""What is known of a model, with sources: weights, license, pre-training, and overlap with tasks.

A card is a YAML file `leaderboard/models/<org>__<model>.yaml`. What nobody has published is null or
"unknown", never a guess.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import pydantic

from eva_coralbay import _invalid_fields
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.results import bounded_reading, record

OverlapKind = Literal["none", "unlabeled-train", "labeled-train", "test", "unknown"]
"""What of a task's cases a model was pre-trained on, by the split that is ranked.

`none`: no case. `unlabeled-train`, `labeled-train`: cases that are not scored, without or with
their labels. `test`: cases that are scored, whether with labels or not. `unknown`: not published.
"""

MAX_BYTES: Final = 100_000
"""The most bytes of the file of a card."""

_NAME = r"[A-Za-z0-9-](?:_?[A-Za-z0-9.-])*"
"""A part of the name of a model: no two underscores in a row, which stand for the slash."""

_Id = Annotated[str, pydantic.Field(pattern=f"^{_NAME}(/{_NAME})+$")]
"""The name of a model, <organization>/<model>."""

Url = Annotated[str, pydantic.Field(pattern=r"^https?://[^\s\"<>]+$")]
"""An address on the web."""


class _Part(pydantic.BaseModel):
    """A part of a card: immutable, without unknown fields."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Weights(_Part):
    """The file of the weights."""

    url: Url
    """Where it is."""

    sha256: record.Sha256 | None
    """Its hash, `None` if none is published."""

    loaded_sha256: record.Sha256 | None = None
    """The `model.weights_sha256` of its records: the hash of the encoder's weights as loaded."""


class PretrainingSet(_Part):
    """Scans that a model was pre-trained on."""

    name: str
    """Name of the data set."""

    scans: record.Count | None
    """The number of scans, `None` if it is not published."""

    use: Literal["unlabeled", "labeled", "unknown"]
    """Whether their labels were used."""

    source: Url
    """Where this is said."""


class Overlap(_Part):
    """What is known of the overlap of a model's pre-training with the data of a task."""

    kind: OverlapKind
    """The strongest overlap that is certain."""

    note: str | None = None
    """What is known beyond the kind, e.g. how many cases."""

    source: Url | None = None
    """Where it is said; `None` if nothing is known."""

    @pydantic.model_validator(mode="after")
    def _check_source(self) -> "Overlap":
        """Checks that what is claimed has a source."""
        if self.kind != "unknown" and self.source is None and self.note is None:
            raise ValueError(f"an overlap of kind '{self.kind}' needs a `source` or a `note`")
        return self


class ModelCard(_Part):
    """What is known of a model."""

    id: _Id
    """The id in the records: for eva's models, the name in eva's registry."""

    name: str
    """What its authors call it."""

    revision: str | None
    """Revision of the published weights."""

    weights: Weights | None
    """The file of the weights, `None` if there is none."""

    license: str | None
    """License of the weights."""

    parameters: record.Count | None
    """The encoder's number of parameters as published, rounded as there."""

    pretraining: list[PretrainingSet] | None
    """What it was pre-trained on: empty for random weights, `None` if it is unknown."""

    overlap: dict[str, Overlap]
    """The overlap by the id of the task; a task that is not there is unknown."""

    sources: list[Url]
    """Where the facts are from."""

    notes: list[str] = []
    """What a reader should know."""


class CardError(EvaCoralbayError):
    """A file is not a model card. The message lists everything that is wrong with it."""

    def __init__(self, path: str | os.PathLike[str], faults: Sequence[tuple[str, str]]) -> None:
        """Initializes the error.

        Args:
            path: The path of the file.
            faults: By fault the field, empty if it is the file as a whole, and what is wrong
                with it and what to do.
        """
        self.faults = list(faults)
        lines = [": ".join(filter(None, fault)) for fault in faults]
        super().__init__("\n  ".join([f"{path} is not a model card:", *lines]))


def overlap(card: ModelCard | None, task_id: str) -> Overlap:
    """Returns the overlap of a model's pre-training with the data of a task.

    Args:
        card: The card of the model, `None` if there is none.
        task_id: The id of the task.
    """
    if card is None:
        return Overlap(kind="unknown", note="The model has no card.")
    if card.pretraining == []:
        return Overlap(kind="none", note="The weights are random.")
    return card.overlap.get(
        task_id, Overlap(kind="unknown", note="The card does not mention this task.")
    )


def read(path: str | os.PathLike[str]) -> ModelCard:
    """Reads a card.

    Args:
        path: The path of the YAML file.

    Raises:
        CardError: If the file is not a card, or is not named after the model.
    """
    try:
        card = ModelCard.model_validate(bounded_reading.read_yaml(path, max_bytes=MAX_BYTES))
    except bounded_reading.ForeignFileError as error:
        message = str(error).removeprefix(f"{path} ")
        raise CardError(path, [("", f"it {message}")]) from error
    except pydantic.ValidationError as error:
        faults = [_explain(detail) for detail in error.errors(include_url=False)]
        raise CardError(path, faults) from error
    expected = f"{card.id.replace('/', '__')}.yaml"
    if pathlib.Path(path).name != expected:
        raise CardError(path, [("id", f"is '{card.id}', so name the file {expected}.")])
    return card


def find(folder: str | os.PathLike[str]) -> dict[str, ModelCard]:
    """Reads all cards of a folder.

    Args:
        folder: The folder; if it is not there, there are no cards.

    Returns:
        The cards by the id of the model.

    Raises:
        CardError: If a file is not a card, naming it.
    """
    cards = [read(path) for path in sorted(pathlib.Path(folder).glob("*.yaml"))]
    return {card.id: card for card in cards}


def _explain(detail: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the field of an error of pydantic, and what is wrong with it and what to do."""
    where = ".".join(map(str, detail["loc"]))
    if detail["type"] == "missing":
        return where, "is missing: write null if it is not known."
    if detail["type"] == "extra_forbidden":
        return where, "is not a field of a card: correct its name, or remove it."
    if detail["type"] == "model_type":
        return where, f"has to be a mapping of fields, got {str(detail['input'])[:50]!r}."
    return where, f"{_invalid_fields.describe(detail)}."
