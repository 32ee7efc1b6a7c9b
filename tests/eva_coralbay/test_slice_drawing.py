"""Tests how a slice is drawn."""

import matplotlib.figure
import numpy as np
import pytest

from eva_coralbay import _slice_drawing

_IMAGE = np.linspace(0, 1, 12).reshape(3, 4)


@pytest.mark.parametrize(
    ("letters", "origin"), [("APRL", "upper"), ("SIRL", "lower"), ("", "upper")]
)
def test_first_row_is_at_the_end_that_the_letters_say(letters: str, origin: str) -> None:
    panel = matplotlib.figure.Figure().subplots()

    _slice_drawing.draw(panel, _IMAGE, None, letters, aspect=2.5)

    assert panel.images[0].origin == origin
    assert panel.get_aspect() == 2.5
    assert "".join(text.get_text() for text in panel.texts) == letters


def test_background_is_transparent_and_neighbors_are_told_apart() -> None:
    table = _slice_drawing.color_table(17)

    assert table[0, 3] == 0 and (table[1:, 3] > 0).all()
    assert len({tuple(color) for color in table}) == 17


@pytest.mark.parametrize(
    ("names", "expected"), [([], 1), (["liver"], 1), (["liver", "spleen"], 2), (["x" * 200] * 3, 1)]
)
def test_names_per_row(names: list[str], expected: int) -> None:
    assert _slice_drawing.names_per_row(names, 9.0) == expected


def test_legend_has_the_colors_of_the_labels() -> None:
    drawn = matplotlib.figure.Figure()
    block = drawn.subfigures(1, 1)

    _slice_drawing.draw_legend(block, {2: "spleen", 5: "aorta"}, columns=2)

    legend = block.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["spleen", "aorta"]
    colors = [handle.get_facecolor()[:3] for handle in legend.legend_handles]
    assert np.allclose(colors, _slice_drawing.color_table(6)[[2, 5], :3])
