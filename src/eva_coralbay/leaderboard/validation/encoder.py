"""Checks that a record is of the encoder that its name stands for."""

from collections.abc import Iterator, Mapping
from typing import Any

from eva_coralbay.leaderboard import cards as model_cards
from eva_coralbay.leaderboard.validation.fault import Fault
from eva_coralbay.models import recorded_name, zoo
from eva_coralbay.results import folder as results_folder
from eva_coralbay.tasks import protocols

_REPLACED = (
    "radiology/voco_b",
    "radiology/voco_l",
    "radiology/voco_h",
    "radiology/suprem_swin_unetr",
    "radiology/universal_swinunetr",
)
"""The encoders whose class in eva computes another function than their weights were trained for.

It merges patches by the installed MONAI, which since version 1.5 takes each octant once (MONAI's
pull request 8285); these weights were trained with two octants taken twice.
"""

_OWN_PACKAGE = "eva_coralbay."
"""How the class paths of our entries begin, which merge patches as the weights need."""


def check_encoder(
    entry: results_folder.Entry,
    config: Mapping[str, Any] | None,
    cards: Mapping[str, model_cards.ModelCard],
) -> Iterator[Fault]:
    """Checks the encoder of a record.

    Args:
        entry: The record.
        config: Its configuration, `None` if that cannot be read.
        cards: The cards by the id of the model.

    Yields:
        The faults.
    """
    yield from _check_description(entry)
    yield from _check_input(entry)
    yield from _check_external_name(entry)
    if config is not None:
        yield from _check_name(entry, config)
    yield from _check_weights(entry, cards.get(str(entry.record.model.id)))


def _check_description(entry: results_folder.Entry) -> Iterator[Fault]:
    """Checks the description by its hash, and that it is of a class that suits the weights."""
    name, encoder = entry.record.model.id, entry.record.encoder
    if encoder is not None and not encoder.is_consistent:
        yield Fault(
            entry.path,
            "encoder.sha256",
            "is not the hash of the other fields: take the record as the run has written it.",
        )
    if str(name).casefold() not in _REPLACED:
        return
    if encoder is None:
        yield Fault(
            entry.path,
            "encoder",
            f"is missing, but of {name} it must be known which class computed it: eva's own class "
            "computes another function than these weights were trained for. Repeat the run with "
            "this version of eva-coralbay.",
        )
    elif not encoder.class_path.startswith(_OWN_PACKAGE):
        yield Fault(
            entry.path,
            "encoder.class_path",
            f"is {encoder.class_path}, which computes another function than the weights of {name} "
            "were trained for. Repeat the run with this version of eva-coralbay, whose entry of "
            "this name merges patches as they need.",
        )


def _check_input(entry: results_folder.Entry) -> Iterator[Fault]:
    """Checks the input of a record whose protocol gives each encoder its own."""
    result = entry.record
    rules = protocols.PROTOCOLS.get(str(result.protocol))
    if rules is None or not rules.has_native_input:
        return
    stated = {} if result.encoder is None else result.encoder.preprocessing
    known = zoo.ENTRIES.get(str(result.model.id))
    expected = None if known is None else known.preprocessing
    if not stated:
        yield Fault(
            entry.path,
            "encoder.preprocessing",
            f"is missing, but {result.protocol} gives an encoder the input that it was trained "
            "on: take the record as the run has written it.",
        )
    elif known is not None and (expected is None or stated != expected.as_dict()):
        yield Fault(
            entry.path,
            "encoder.preprocessing",
            f"is not the input that {known.name} was trained on: repeat the run with this version "
            "of eva-coralbay, or give your model a name of its own.",
        )


def _check_name(entry: results_folder.Entry, config: Mapping[str, Any]) -> Iterator[Fault]:
    """Checks that other weights or networks do not bear the name of published ones."""
    name = str(entry.record.model.id)
    encoder = config["model"]["init_args"].get("encoder") or {}
    arguments = encoder.get("init_args") or {} if isinstance(encoder, dict) else {}
    where = "model.init_args.encoder"
    if arguments.get("model_name") == name:
        checkpoint = (arguments.get("model_kwargs") or {}).get("checkpoint")
        if checkpoint is not None:
            yield Fault(
                entry.config_path,
                f"{where}.init_args.model_kwargs.checkpoint",
                f"is {str(checkpoint)[:100]!r}, so the run is of own weights under the name of the "
                f"published ones, {name}: give your model a name of its own.",
            )
    elif recorded_name.is_registered(name):
        yield Fault(
            entry.config_path,
            where,
            f"is not the encoder {name} of the registry, but the record bears its name: give your "
            "model a name of its own.",
        )


def _check_external_name(entry: results_folder.Entry) -> Iterator[Fault]:
    """Checks that what another program has trained does not bear the name of an encoder."""
    result = entry.record
    name = str(result.model.id)
    if protocols.is_external(result.protocol) and recorded_name.is_of_encoder(name):
        yield Fault(
            entry.path,
            "model.id",
            f"is {name}, the name of an encoder, but another program has trained the network: "
            "name the two of them, such as nnunet/resenc_m.",
        )


def _check_weights(
    entry: results_folder.Entry, card: model_cards.ModelCard | None
) -> Iterator[Fault]:
    """Checks the weights against those that the card of the model names."""
    model = entry.record.model
    if card is None or card.weights is None or card.weights.loaded_sha256 is None:
        return
    # a card that names no revision is of all of them
    is_of_card = card.revision in (None, model.revision)
    if is_of_card and model.weights_sha256 != card.weights.loaded_sha256:
        yield Fault(
            entry.path,
            "model.weights_sha256",
            f"is {model.weights_sha256}, but that of the published weights is "
            f"{card.weights.loaded_sha256}, as the model's card says: give other weights a name or "
            "a revision of their own.",
        )
