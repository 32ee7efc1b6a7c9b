"""Tests that the files which follow from the catalog are what `nox -s generate` writes."""

import pytest

from eva_coralbay.tasks import catalog
from eva_coralbay.tasks import settings as settings_lib
from tests.eva_coralbay.tasks import generate


def test_the_table_of_the_documents() -> None:
    table = generate.TABLE.search(generate.DOCUMENT.read_text(encoding="utf-8"))
    assert table is not None and table[0] == generate.render_table()


@pytest.mark.parametrize(
    ("task", "mode"), generate.ALL, ids=[f"{mode}-{task.id}" for task, mode in generate.ALL]
)
def test_a_config(task: catalog.Task, mode: settings_lib.Mode) -> None:
    text = generate.config_path(task, mode).read_text(encoding="utf-8")
    assert text == generate.render_config(task, mode)


def test_a_row() -> None:
    assert generate.cells(catalog.TASKS["lits17"]) == [
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
