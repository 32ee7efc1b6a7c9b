"""What is known of a model, with sources: weights, licence, pre-training, and overlap with tasks.

A card is a YAML file `leaderboard/models/<org>__<model>.yaml`. What nobody has published is null or
"unknown", never a guess.
"""

import os
import pathlib
from typing import Annotated, Dict, List, Literal

import pydantic
import yaml

from eva_coralbay.leaderboard import record

OverlapKind = Literal["none", "unlabelled-train", "labelled-train", "test", "unknown"]
"""What of a task's cases a model was pre-trained on, by the split that is ranked.

`none`: no case. `unlabelled-train`, `labelled-train`: cases that are not scored, without or with
their labels. `test`: cases that are scored, whether with labels or not. `unknown`: not published.
"""

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


class PretrainingSet(_Part):
    """Scans that a model was pre-trained on."""

    name: str
    """Name of the data set."""

    scans: int | None
    """The number of scans, `None` if it is not published."""

    use: Literal["unlabelled", "labelled", "unknown"]
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

    id: str
    """The id in the records: for eva's models, the name in eva's registry."""

    name: str
    """What its authors call it."""

    revision: str | None
    """Revision of the published weights."""

    weights: Weights | None
    """The file of the weights, `None` if there is none."""

    licence: str | None
    """Licence of the weights."""

    parameters: int | None
    """The encoder's number of parameters as published, rounded as there."""

    pretraining: List[PretrainingSet] | None
    """What it was pre-trained on: empty for random weights, `None` if it is unknown."""

    overlap: Dict[str, Overlap]
    """The overlap by the id of the task; a task that is not there is unknown."""

    sources: List[Url]
    """Where the facts are from."""

    notes: List[str] = []
    """What a reader should know."""


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
        ValueError: If the file is no card, or is not named after the model.
    """
    try:
        content = yaml.safe_load(pathlib.Path(path).read_text(encoding="utf-8"))
        card = ModelCard.model_validate(content)
    except (yaml.YAMLError, pydantic.ValidationError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no model card: {error}") from error
    expected = f"{card.id.replace('/', '__')}.yaml"
    if pathlib.Path(path).name != expected:
        raise ValueError(f"{path} is the card of '{card.id}': name the file {expected}.")
    return card


def find(folder: str | os.PathLike[str]) -> Dict[str, ModelCard]:
    """Reads all cards of a folder.

    Args:
        folder: The folder; if it is not there, there are no cards.

    Returns:
        The cards by the id of the model.

    Raises:
        ValueError: If a file is no card, naming it.
    """
    cards = [read(path) for path in sorted(pathlib.Path(folder).glob("*.yaml"))]
    return {card.id: card for card in cards}
