"""Under which name a model is recorded: published names belong to the published weights."""

import dataclasses
import pathlib
import re
from typing import Any

from loguru import logger

from eva_coralbay.models import weight_sources, zoo

_REGISTRY = "radiology/"
"""How the names of encoders in eva's registry begin."""

_LOCAL = "local"
"""The organization of models whose weights are somebody's own."""


@dataclasses.dataclass(frozen=True)
class RecordedName:
    """The name that a model is recorded under."""

    id: str | None
    """The name, None where there is none."""

    revision: str | None
    """The revision of its weights, where they are from the Hub."""


def find_recorded_name(encoder: Any, name: str | None) -> RecordedName:
    """Decides under which name the results of an encoder are recorded.

    A name of the zoo, or of the Hub repository of its weights, can be taken by an encoder with
    those published weights only (or, for a name with random weights, by one that loaded none),
    whatever the case of its letters, with or without `@revision` and `#file`. All others get a name
    by their weights' file or Hub id, with a warning.

    Args:
        encoder: The network, with or without eva's wrapper.
        name: The name that the run was started with, such as MODEL_NAME.

    Returns:
        The name and the revision to record.
    """
    network = getattr(encoder, "model", encoder)
    origin: weight_sources.Origin | None = getattr(network, "origin", None)
    revision = origin.revision if origin is not None else None
    claimed = [] if name is None else _find_published(name)
    if name is None or not claimed:
        return RecordedName(name, revision)
    published_as = origin.published_as if origin is not None else None
    for entry in claimed:
        if published_as == entry.name or (entry.weights is None and origin is None):
            return RecordedName(entry.name, revision)
    derived = _derive(network, origin)
    if _is_same(derived, name):
        return RecordedName(derived, revision)
    own = "random ones, or some that other code has loaded"
    if origin is not None:
        own = f"those of '{origin.source}'"
    logger.warning(
        f"The results are recorded under the name '{derived}'. They cannot have the name '{name}', "
        f"which stands for its published weights, as the weights here are {own}. To choose another "
        "name, add `--trainer.init_args.model=ORGANIZATION/NAME` to `eva fit`."
    )
    return RecordedName(derived, revision)


def _find_published(name: str) -> list[zoo.Entry]:
    """Returns the entries that a name stands for: by their own, or by that of a Hub repository."""
    return [
        entry
        for entry in zoo.ENTRIES.values()
        if _is_same(entry.name, name) or _is_same(_repository(entry), name)
    ]


def is_registered(name: str) -> bool:
    """Whether a name is that of an encoder of eva's registry, or of the zoo.

    Args:
        name: The name, in any case of its letters.
    """
    return name.casefold().startswith(_REGISTRY) or any(_is_same(own, name) for own in zoo.ENTRIES)


def is_of_encoder(name: str) -> bool:
    """Whether a name is that of a registered encoder, or of the Hub repository of a published one.

    Args:
        name: The name, in any case of its letters.
    """
    return is_registered(name) or bool(_find_published(name))


def _repository(entry: zoo.Entry) -> str:
    hub_id = weight_sources.parse_hub_id(entry.weights or "")
    return "" if hub_id is None else hub_id.repository


def _is_same(name: str, other: str) -> bool:
    """Whether a reader takes two names for one, whatever revision or file they name."""
    return _without_place(name) == _without_place(other)


def _without_place(name: str) -> str:
    """Returns a name as it is compared: without its `@revision` and `#file`."""
    return name.partition("#")[0].partition("@")[0].strip().casefold()


def _derive(network: Any, origin: weight_sources.Origin | None) -> str:
    """Returns a name that follows from the weights."""
    if origin is None:
        return f"{_LOCAL}/{type(network).__name__}"
    if origin.published_as is not None:
        return origin.published_as
    path = pathlib.Path(origin.source)
    if not path.is_absolute():
        return origin.source.partition("@")[0].partition("#")[0]
    stem = path.name if path.is_dir() else path.stem
    return f"{_LOCAL}/{re.sub(r'[^A-Za-z0-9._-]+', '-', stem)}-{origin.sha256[:8]}"
