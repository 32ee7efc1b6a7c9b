"""Tests that the documents say what the code does."""

import pathlib
import re

_ROOT = pathlib.Path(__file__).parents[2]
"""The top of the repository."""


def test_the_tests_of_evas_defects_exist() -> None:
    document = (_ROOT / "docs" / "differences-from-eva.md").read_text(encoding="utf-8")
    folder = _ROOT / "tests" / "eva_coralbay" / "data" / "datasets"
    code = "".join(path.read_text() for path in folder.glob("test_eva_defects_*.py"))
    named = re.findall("`(test_[a-z0-9_]+)`", document)

    assert len(named) > 15
    assert [name for name in named if f"def {name}(" not in code] == []


def test_the_readme_is_short_and_has_a_place_for_the_board() -> None:
    text = (_ROOT / "README.md").read_text(encoding="utf-8")

    assert len(text.splitlines()) < 120
    assert re.search(r"^<!-- board -->\n(.*\n)?<!-- /board -->$", text, re.MULTILINE | re.DOTALL)


def test_every_document_is_in_the_navigation_of_the_site() -> None:
    config = (_ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    documents = {
        path.relative_to(_ROOT / "docs").as_posix()
        for pattern in ("*.md", "*.ipynb")
        for path in (_ROOT / "docs").rglob(pattern)
    }

    assert len(documents) > 15
    assert [name for name in sorted(documents) if f" {name}\n" not in config] == []
