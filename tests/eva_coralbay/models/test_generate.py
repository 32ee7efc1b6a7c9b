"""Tests that the page of the models is what `nox -s generate` writes."""

from eva_coralbay.models import zoo
from tests.eva_coralbay.models import generate


def test_the_page_of_the_models_is_that_of_the_entries() -> None:
    text = generate.DOCUMENT.read_text(encoding="utf-8")
    assert text[generate.find_generated(text) :] == generate.render()


def test_every_model_has_a_row_and_a_section() -> None:
    page = generate.render()
    for name in zoo.ENTRIES:
        assert f"| [`{name}`](#" in page and f"\n## {name}\n" in page


def test_a_row() -> None:
    assert generate.cells(zoo.ENTRIES["radiology/fmcib"]) == [
        "[`radiology/fmcib`](#radiologyfmcib)",
        "184.5 M",
        "SPL, 1 mm, any HU",
        "4096",
        "CC-BY-4.0",
        "none",
    ]
