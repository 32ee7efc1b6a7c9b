"""Tests that the cards of the zoo are what `nox -s generate` writes."""

import dataclasses

import pytest
import yaml

from eva_coralbay.leaderboard import cards
from eva_coralbay.models import zoo
from tests.eva_coralbay.models import generate_cards


@pytest.mark.parametrize("entry", zoo.ENTRIES.values(), ids=list(zoo.ENTRIES))
def test_a_card(entry: zoo.Entry) -> None:
    path = generate_cards.card_path(entry)

    assert path.read_text(encoding="utf-8") == generate_cards.render_card(entry)
    assert cards.read(path).id == entry.name


def test_what_was_not_looked_up_is_unknown() -> None:
    entry = dataclasses.replace(
        zoo.ENTRIES["radiology/voxelfm"],
        overlaps=(zoo.Overlap("test", ("btcv",), "All 9.", "https://example.org"),),
    )

    overlap = yaml.safe_load(generate_cards.render_card(entry))["overlap"]

    assert overlap["btcv"] == {"kind": "test", "note": "All 9.", "source": "https://example.org"}
    assert overlap["word"]["kind"] == "unknown" and "not looked up" in overlap["word"]["note"]
    assert entry.pretraining_tasks == ("btcv",)
    assert zoo.ENTRIES["radiology/voxelfm"].pretraining_tasks is None
    assert zoo.ENTRIES["radiology/coralbay_random"].pretraining_tasks == ()
