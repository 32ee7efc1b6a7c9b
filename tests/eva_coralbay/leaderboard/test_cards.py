"""Tests of the model cards."""

import pathlib
from typing import Any

import pytest
import yaml

from eva_coralbay.leaderboard import cards as model_cards
from eva_coralbay.models import zoo
from eva_coralbay.tasks import catalog

_CARDS = pathlib.Path(__file__).parents[3] / "leaderboard" / "models"
"""The cards of the repository."""

_CARD: dict[str, Any] = {
    "id": "org/model",
    "name": "Model",
    "revision": None,
    "weights": None,
    "license": None,
    "parameters": None,
    "pretraining": None,
    "overlap": {"btcv": {"kind": "test", "note": "9 of 9", "source": "https://example.org"}},
    "sources": ["https://example.org"],
}


def _write(folder: pathlib.Path, change: dict[str, Any]) -> pathlib.Path:
    path = folder / "org__model.yaml"
    path.write_text(yaml.safe_dump(_CARD | change))
    return path


def test_the_cards_of_the_repository_are_valid() -> None:
    cards = model_cards.find(_CARDS)
    assert {
        "radiology/coralbay",
        "radiology/coralbay_random",
        "radiology/voco_b",
        "radiology/voco_l",
        "radiology/voco_h",
        "radiology/suprem_swin_unetr",
        "radiology/suprem_segresnet",
        "radiology/universal_swinunetr",
        "radiology/ct_fm",
    } <= set(cards)
    assert all(card.sources for card in cards.values())


def test_cards_agree_with_the_zoo() -> None:
    """What is known of the weights stands in both, and no card knows less."""
    found = model_cards.find(_CARDS)
    for name in set(found) & set(zoo.ENTRIES):
        card, entry = found[name], zoo.ENTRIES[name]
        assert (card.weights is None) == (entry.weights is None), name
        assert card.weights is None or card.weights.sha256 == entry.sha256, name
        assert entry.parameters in (None, card.parameters), name
        assert card.license == entry.license, name


def test_every_task_is_looked_up_for_every_card() -> None:
    """A task that is added has to be looked up, if only to say that nothing is known."""
    for card in model_cards.find(_CARDS).values():
        assert card.pretraining == [] or set(catalog.TASKS) <= set(card.overlap), card.id


def test_what_is_claimed_has_a_source() -> None:
    for card in model_cards.find(_CARDS).values():
        for task in set(catalog.TASKS) & set(card.overlap):
            overlap = card.overlap[task]
            assert overlap.kind == "unknown" or overlap.source, (card.id, task)


def test_random_weights_have_no_overlap() -> None:
    card = model_cards.find(_CARDS)["radiology/coralbay_random"]
    assert model_cards.overlap(card, "btcv").kind == "none"


def test_what_is_not_there_is_unknown(tmp_path: pathlib.Path) -> None:
    card = model_cards.read(_write(tmp_path, {}))
    assert model_cards.overlap(card, "btcv").kind == "test"
    assert model_cards.overlap(card, "word").kind == "unknown"
    assert model_cards.overlap(None, "btcv").kind == "unknown"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "surprise: is not a field of a card"),
        ({"sources": ["javascript:alert(1)"]}, "should match pattern"),
        ({"overlap": {"btcv": {"kind": "some"}}}, "Input should be 'none'"),
        ({"overlap": {"btcv": {"kind": "none"}}}, "needs a `source`"),
        ({"weights": {"url": "https://example.org", "sha256": "A"}}, "should match pattern"),
        ({"weights": "x"}, "weights: has to be a mapping of fields, got 'x'"),
        ({"parameters": -1}, "parameters: Input should be greater than or equal to 0, got '-1'"),
        ({"id": "no organization"}, "id: String should match pattern"),
        ({"id": "org/other"}, "name the file org__other.yaml"),
    ],
)
def test_invalid_cards_are_rejected(
    tmp_path: pathlib.Path, change: dict[str, Any], message: str
) -> None:
    path = _write(tmp_path, change)
    with pytest.raises(ValueError, match=message) as error:
        model_cards.find(tmp_path)
    assert str(path) in str(error.value)


def test_every_fault_of_a_card_is_named(tmp_path: pathlib.Path) -> None:
    path = _write(tmp_path, {"surprise": 1, "sources": ["x"], "overlap": {"btcv": {"kind": "no"}}})
    path.write_text(path.read_text().replace("license: null\n", ""))
    with pytest.raises(model_cards.CardError) as error:
        model_cards.read(path)
    fields = [field for field, _ in error.value.faults]
    assert sorted(fields) == ["license", "overlap.btcv.kind", "sources.0", "surprise"]
    assert dict(error.value.faults)["license"] == "is missing: write null if it is not known."
    lines = str(error.value).splitlines()
    assert lines[0] == f"{path} is not a model card:" and len(lines) == 5


def test_a_folder_in_place_of_a_card_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "org__model.yaml").mkdir()
    with pytest.raises(model_cards.CardError, match="org__model.yaml.*\n.*is not a regular file"):
        model_cards.find(tmp_path)


_NOT_YAML = ["", "[", "!!python/object:os.system {}", "\x00", "id: 2024-13-45", "[" * 5000]


@pytest.mark.parametrize("content", _NOT_YAML, ids=range(len(_NOT_YAML)))
def test_other_files_are_rejected(tmp_path: pathlib.Path, content: str) -> None:
    (tmp_path / "org__model.yaml").write_text(content)
    with pytest.raises(ValueError, match="org__model.yaml is not a model card"):
        model_cards.find(tmp_path)


def test_a_folder_that_is_not_there_has_no_cards(tmp_path: pathlib.Path) -> None:
    assert model_cards.find(tmp_path / "nowhere") == {}
