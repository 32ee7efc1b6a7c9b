"""Tests the lists of cases of every task."""

import hashlib
import json
import pathlib
import re

import pytest

from eva_coralbay.tasks import catalog
from eva_coralbay.tasks import splits as splits_lib

_PUBLISHED = {
    "btcv@1": "f116d9b25a6b3581",
    "lits17@1": "3afe33977906ef80",
    "flare22@1": "6ff5f5ff315517a7",
    "msd_task03_liver@1": "820cac4a9c1b3dc3",
    "msd_task06_lung@1": "f900bb1907adcde6",
    "msd_task07_pancreas@1": "d4fe5680f9547b98",
    "msd_task08_hepatic_vessel@1": "80a4562bb31aad52",
    "msd_task09_spleen@1": "5903c24f27b8ac23",
    "msd_task10_colon@1": "4562d14596c0977d",
    "openkbp@1": "a872c0e53393b727",
}
"""The begin of the sha256 of the lists of each task and version: a new list is a new version."""


_WITH_VOCO = sorted({name.partition("@")[0] for name in _PUBLISHED} - {"openkbp"})
"""The tasks whose splits are ours and VoCo's."""


@pytest.mark.parametrize("task", catalog.TASKS)
def test_ranked_splits_have_a_test_split(task: str) -> None:
    splits = splits_lib.read_splits(task)

    # nothing is chosen by validation cases where the training is short, as for OpenKBP
    expected = ["train", "test"] if task == "openkbp" else ["train", "val", "test"]
    assert list(splits.schemes[splits.default]) == expected


@pytest.mark.parametrize("task", catalog.TASKS)
def test_the_ranked_splits_hold_all_published_cases(task: str) -> None:
    splits = splits_lib.read_splits(task)

    cases = sum(splits.schemes[splits.default].values(), [])

    assert len(cases) == len(set(cases)) == catalog.TASKS[task].published_cases


@pytest.mark.parametrize("task", _WITH_VOCO)
def test_the_split_file_of_a_task(task: str) -> None:
    splits = splits_lib.read_splits(task)

    assert splits.default == "v1"
    assert set(splits.schemes["v1"]) == {"train", "val", "test"}
    assert set(splits.schemes["voco"]) == {"train", "val"}
    every_case = {name: sorted(sum(lists.values(), [])) for name, lists in splits.schemes.items()}
    assert every_case["v1"] == every_case["voco"]
    for lists in splits.schemes.values():
        assert all(cases == sorted(cases) for cases in lists.values())
    assert re.search("https?://", splits.source)


def test_the_split_file_of_another_task_is_an_error(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "splits").mkdir()
    content = {"task": "lits17", "version": "1", "source": "", "default": "v1", "splits": {}}
    (tmp_path / "splits" / "mine.json").write_text(json.dumps(content))
    monkeypatch.setattr(splits_lib.resources, "files", lambda _: tmp_path)

    with pytest.raises(ValueError, match="Splits of 'mine': the file is that of 'lits17'"):
        splits_lib.read_splits("mine")


@pytest.mark.parametrize("task", [*_WITH_VOCO, "openkbp"])
def test_published_lists_do_not_change(task: str) -> None:
    splits = splits_lib.read_splits(task)

    lists = json.dumps(splits.schemes, sort_keys=True)

    digest = hashlib.sha256(lists.encode()).hexdigest()
    assert digest.startswith(_PUBLISHED[f"{task}@{splits.version}"])
