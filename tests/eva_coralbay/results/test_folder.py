"""Tests of the results folder."""

import pathlib
from typing import Any

import numpy as np
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
    with pytest.raises(ValueError, match="lab__b.*seed_0.json is no JSON"):
        results_folder.find(tmp_path)
    with pytest.raises(ValueError, match="There is no folder"):
        results_folder.find(tmp_path / "missing")


def test_values_by_case_of_a_segmentation(tmp_path: pathlib.Path) -> None:
    """Their mean is the record's metric; a case without a value is excluded."""
    entries = [result_files.write(tmp_path, seed=seed) for seed in (0, 1)]
    values = results_folder.case_values(entries, "dice")
    assert values.values.shape == (2, 9) and not values.excluded
    assert values.values.mean(axis=1) == pytest.approx(
        [entry.record.metrics["dice"] for entry in entries], abs=1e-12
    )

    organ = results_folder.case_values(entries, "dice", "spleen")
    assert organ.excluded == (entries[0].rows[0].case,)
    assert organ.values[0].mean() == pytest.approx(entries[0].record.metrics["dice_spleen"])
    with pytest.raises(ValueError, match="no values by case of 'nsd'"):
        results_folder.case_values(entries, "nsd")
    with pytest.raises(ValueError, match="no values by case of 'dice' of the class 'tail'"):
        results_folder.case_values(entries, "dice", "tail")


def test_higher_is_better(tmp_path: pathlib.Path) -> None:
    """Distances are negated."""
    rows = [
        record.CaseRow(f"case_{index}", name, "hd95", 2.0 + index, 5, 5)
        for index in range(4)
        for name in ("lung", "liver")
    ]
    entry = result_files.write(tmp_path, task="mine", rows=rows)
    assert results_folder.case_values([entry], "hd95").values.tolist() == [[-2.0, -3.0, -4.0, -5.0]]


def test_values_by_patient_of_a_classification(tmp_path: pathlib.Path) -> None:
    """Their mean is the balanced accuracy; of one class it is the recall."""
    generator = np.random.default_rng(1)
    rows = []
    for index in range(40):
        truth, patient = int(index % 4 == 0), f"p{index // 8 * 4 + index % 4}"
        first = float(generator.random())
        for label, value in enumerate((first, 1 - first)):
            name = ("benign", "malignant")[label]
            row = (f"c{index}", name, "probability", value, int(label == truth), patient)
            rows.append(record.PredictionRow(*row))
    entry = result_files.write(tmp_path, task="mine", rows=rows)
    values = results_folder.case_values([entry], "balanced_accuracy")
    assert len(values.cases) == 20
    assert values.values.mean() == pytest.approx(entry.record.metrics["balanced_accuracy"])
    recalls = [
        results_folder.case_values([entry], "balanced_accuracy", name).values
        for name in ("benign", "malignant")
    ]
    assert [recall.shape for recall in recalls] == [(1, 15), (1, 5)]
    assert np.mean([recall.mean() for recall in recalls]) == pytest.approx(values.values.mean())
    with pytest.raises(ValueError, match="no values by case of 'auroc'"):
        results_folder.case_values([entry], "auroc")
