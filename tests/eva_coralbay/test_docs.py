"""Tests that the documents say what the code does."""

import pathlib
import re

from eva_coralbay.cli import tasks
from eva_coralbay.tasks import catalog
from eva_coralbay.tasks import splits as splits_lib

_ROOT = pathlib.Path(__file__).parents[2]
"""The top of the repository."""


def _rows() -> dict[str, list[str]]:
    """The cells of the table of tasks, by task."""
    lines = (_ROOT / "docs" / "tasks.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row for row in cells if row[0].startswith("`") and len(row) == 8}


def test_the_table_of_tasks_is_the_registry() -> None:
    rows = _rows()
    summaries = {summary.task: summary for summary in tasks.summarize()}

    assert list(rows) == list(catalog.TASKS)
    for name, (_, title, _, cases, others, classes, terms, access) in rows.items():
        dataset, summary = catalog.TASKS[name], summaries[name]
        splits = splits_lib.read_splits(name)
        assert title == f"[{dataset.title}]({dataset.homepage})"
        assert cases == f"`{splits.default}` " + " / ".join(map(str, summary.cases.values()))
        assert set(re.findall("`(.+?)`", others)) == set(splits.schemes) - {splits.default}
        assert int(classes) == summary.classes
        assert terms.split(" (")[0] == summary.license
        assert access == summary.access


def test_the_splits_add_up_to_the_published_number_of_cases() -> None:
    rows = _rows()
    for summary in tasks.summarize():
        assert sum(summary.cases.values()) == int(rows[summary.task][2]), summary.task


def test_the_tests_of_evas_defects_exist() -> None:
    document = (_ROOT / "docs" / "differences-from-eva.md").read_text(encoding="utf-8")
    folder = _ROOT / "tests" / "eva_coralbay" / "data" / "datasets"
    code = "".join(path.read_text() for path in folder.glob("test_eva_defects_*.py"))
    named = re.findall("`(test_[a-z0-9_]+)`", document)

    assert len(named) > 15
    assert [name for name in named if f"def {name}(" not in code] == []
