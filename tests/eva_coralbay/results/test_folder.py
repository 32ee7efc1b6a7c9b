"""Tests of the results folder."""

import pathlib
from typing import Any

import pytest

from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import record
from tests.eva_coralbay.leaderboard import result_files

_GOLDEN = record.Record.read(pathlib.Path(__file__).parent / "data" / "record_v2.json")


def _record(**changes: Any) -> record.Record:
    content = _GOLDEN.model_dump()
    for name, value in changes.items():
        part, _, field = name.partition("__")
        content = {**content, part: {**content[part], field: value} if field else value}
    return record.Record.model_validate(content)


def test_a_record_has_one_place() -> None:
    place = results_folder.relative_path(_record(model__id="lab/net", model__revision="v1.0"))
    assert str(place) == "lab__net/v1.0/example@1/frozen/seed_0.json"
    assert results_folder.relative_path(_record()).parts[:2] == (
        "radiology__coralbay",
        "unversioned",
    )
    assert results_folder.relative_path(_record(model__id="a/b/c")).parts[0] == "a__b__c"


@pytest.mark.parametrize(
    "changes",
    [
        {"model__id": None},
        {"model__id": "net"},
        {"model__id": "lab/"},
        {"model__id": "lab/net__v2"},
        {"model__id": "lab__net/v2"},
        {"model__id": "lab_/net"},
        {"model__id": "lab/_net"},
        {"model__id": "/net"},
        {"model__id": "../net"},
        {"model__id": "lab/.net"},
        {"model__id": "lab/n\\..\\et"},
        {"model__id": "lab/<b>"},
        {"model__id": "lab/net\n"},
        {"model__id": "lab/nét"},
        {"model__id": "lab/" + "n" * 101},
        {"model__revision": ""},
        {"model__revision": "a/b"},
        {"task__id": ".."},
        {"task__version": "1@2"},
        {"protocol": None},
        {"protocol": "a b"},
        {"seed": None},
        {"seed": -1},
    ],
    ids=str,
)
def test_a_name_cannot_leave_the_folder(changes: dict[str, Any]) -> None:
    """The field is named; nothing else is wrong with the record."""
    (field,) = (name.replace("__", ".") for name in changes)
    assert list(results_folder.find_bad_names(_record(**changes))) == [field]
    with pytest.raises(ValueError, match=f"`{field}` is "):
        results_folder.relative_path(_record(**changes))


def test_records_are_found(tmp_path: pathlib.Path) -> None:
    written = [
        result_files.write(tmp_path, model=model, seed=seed)
        for model in ("lab/a", "lab/b")
        for seed in (0, 1)
    ]
    found = results_folder.find(tmp_path)
    assert found == written
    assert len(found[0].rows) == 9 * 13

    written[2].path.write_text("{")
    with pytest.raises(ValueError, match="lab__b.*seed_0.json is not a JSON file"):
        results_folder.find(tmp_path)
    with pytest.raises(ValueError, match="There is no folder"):
        results_folder.find(tmp_path / "missing")
