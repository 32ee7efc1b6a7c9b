"""Tests of the numbers of others."""

import json
import pathlib
from typing import Any

import pytest

from eva_coralbay.leaderboard import reported

_NUMBERS = pathlib.Path(__file__).parents[3] / "leaderboard" / "reported"
"""The numbers of the repository."""

_NUMBER: dict[str, Any] = {
    "kind": "reported",
    "model": "org/model",
    "task": "btcv",
    "protocol": "fine-tuned",
    "metric": "Dice",
    "value": 0.8,
    "spread": None,
    "n": 6,
    "split": "validation cases",
    "source": {"title": "A paper", "url": "https://example.org", "where": "table 1"},
    "note": None,
}


def test_the_numbers_of_eva_are_there() -> None:
    """As both of its tables have them, where they differ too."""
    values: dict[tuple[str, str], set[float]] = {}
    for number in reported.find(_NUMBERS):
        values.setdefault((number.model, number.task), set()).add(number.value)
    assert values["radiology/voco_b", "btcv"] == {0.83}
    assert values["radiology/voco_h", "msd_task07_pancreas"] == {0.725, 0.72}
    assert values["radiology/voco_b", "msd_task07_pancreas"] == {0.734, 0.71}
    assert values["radiology/suprem_swin_unetr", "chaos"] == {0.97}
    assert values["universal/vit_base_patch16_224_dino_1chan", "lits17"] == {0.677}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "measured"}, "Input should be 'reported'"),
        ({"value": 83.0}, "less than or equal to 1"),
        ({"surprise": 1}, "Extra inputs are not permitted"),
        ({"model": "org/other"}, "is for 'org/model', but has numbers of org/other"),
        ({"source": _NUMBER["source"] | {"url": "javascript:alert(1)"}}, "should match pattern"),
    ],
)
def test_invalid_numbers_are_rejected(
    tmp_path: pathlib.Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "org__model.json"
    path.write_text(json.dumps([_NUMBER | change]))
    with pytest.raises(ValueError, match=message) as error:
        reported.find(tmp_path)
    assert str(path) in str(error.value)


def test_a_folder_that_is_not_there_has_no_numbers(tmp_path: pathlib.Path) -> None:
    assert reported.find(tmp_path / "nowhere") == []
