"""Tests the notebook of the documents: it runs, and shows what is stored in it."""

import json
import pathlib

import pytest

from eva_coralbay.data import phantom

_PATH = pathlib.Path(__file__).parents[2] / "docs/first_look.ipynb"
"""The notebook."""


def test_it_is_stored_with_what_it_has_shown() -> None:
    text = _PATH.read_text(encoding="utf-8")
    code = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    kinds = {kind for cell in code for out in cell["outputs"] for kind in out.get("data", {})}

    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert "image/png" in kinds
    assert str(pathlib.Path.home()) not in text and "/tmp/" not in text


@pytest.mark.slow
def test_it_runs_and_shows_what_is_stored(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("nbclient", reason="nbclient is not installed")
    from tests.eva_coralbay import docs_notebook

    printed = docs_notebook.list_printed(docs_notebook.run(tmp_path))

    assert [text.count("->") for text in printed].count(2 * len(phantom.CLASSES[1:])) == 1
    assert printed == docs_notebook.list_printed(docs_notebook.read())
