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
