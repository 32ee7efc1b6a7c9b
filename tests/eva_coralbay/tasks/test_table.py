"""Tests that the table of tasks in the documents is that of the catalog.

To write it anew, after a task was added or changed:

    python -m tests.eva_coralbay.tasks.test_table
"""

import pathlib
import re
from collections.abc import Mapping, Sequence

from eva_coralbay.tasks import catalog
from eva_coralbay.tasks import splits as splits_lib

_DOCUMENT = pathlib.Path(__file__).parents[3] / "docs/tasks.md"

_TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
"""The lines of the first table of the document."""

_COLUMNS = (
    "task",
    "data set",
    "published",
    "train / val / test",
    "other schemes",
    "classes",
    "HU",
    "steps",
    "license",
    "how to get it",
)


def test_it_is_that_of_the_catalog() -> None:
    table = _TABLE.search(_DOCUMENT.read_text(encoding="utf-8"))
    assert table is not None and table[0] == _table()


def test_a_row() -> None:
    assert _cells(catalog.TASKS["lits17"]) == [
        "`lits17`",
        "[LiTS17](https://competitions.codalab.org/competitions/17094)",
        "131",
        "`v1` 92 / 13 / 26",
        "`voco` 108 / 23, `eva` 106 / 23",
        "2",
        "-175 to 250",
        "30000",
        "CC-BY-NC-ND-4.0 (non-commercial, no derivatives)",
        "account at codalab.org",
    ]


def _table() -> str:
    rule = f"|{'---|' * len(_COLUMNS)}\n"
    header, *rows = (
        f"| {' | '.join(cells)} |\n" for cells in (_COLUMNS, *map(_cells, catalog.TASKS.values()))
    )
    return "".join((header, rule, *rows))


def _cells(task: catalog.Task) -> Sequence[str]:
    splits = splits_lib.read_splits(task.id)
    others = [
        _describe_scheme(name, lists)
        for name, lists in splits.schemes.items()
        if name != splits.default
    ]
    restrictions = ", ".join(task.license.restrictions)
    window = task.hu_window
    return [
        f"`{task.id}`",
        f"[{task.title}]({task.homepage})",
        str(task.published_cases),
        _describe_scheme(splits.default, splits.schemes[splits.default]),
        ", ".join(others) or "-",
        str(len(task.classes)),
        "-" if window is None else f"{window[0]:g} to {window[1]:g}",
        str(task.steps),
        task.license.name + (f" ({restrictions})" if restrictions else ""),
        task.access,
    ]


def _describe_scheme(name: str, lists: Mapping[str, Sequence[str]]) -> str:
    return f"`{name}` " + " / ".join(str(len(cases)) for cases in lists.values())


if __name__ == "__main__":
    text = _DOCUMENT.read_text(encoding="utf-8")
    _DOCUMENT.write_text(_TABLE.sub(lambda _: _table(), text, count=1), encoding="utf-8")
