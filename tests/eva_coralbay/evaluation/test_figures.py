"""Tests of the pictures of cases."""

import io
import pathlib
from typing import Any

import matplotlib.figure
import numpy as np
import pytest
from matplotlib import colors, image

from eva_coralbay.evaluation import figures
from tests.eva_coralbay.evaluation import toy

_CLASSES = ["background", "liver", "spleen"]
_SHAPE = (6, 20, 30)


def _case(prediction: np.ndarray | None = None) -> figures.ScoredCase:
    """A block of liver at the right, anterior and inferior corner; a spleen opposite of it."""
    truth = np.zeros(_SHAPE, np.uint8)
    truth[1:3, 2:8, 3:9] = 1
    truth[2:5, 14:18, 20:28] = 2
    return figures.ScoredCase(
        case="case_7",
        dice=0.875,
        image=np.full(_SHAPE, 0.5, np.float16),
        truth=truth,
        prediction=truth if prediction is None else prediction,
    )


def _axes(drawn: matplotlib.figure.Figure) -> list[Any]:
    return [axes for axes in drawn.get_axes() if axes.images]


def _letters(axes: Any) -> list[tuple[str, tuple[float, float]]]:
    return [(text.get_text(), text.get_position()) for text in axes.texts]


def test_slices_are_drawn_in_radiological_convention() -> None:
    """Axial: anterior on top; coronal: superior on top; the patient's right at the left."""
    drawn = figures.draw_cases([("Best case", _case())], _CLASSES)
    panels = _axes(drawn)
    assert len(panels) == 6

    for panel, letters, shape in ((panels[1], "APRL", (20, 30)), (panels[4], "SIRL", (6, 30))):
        overlay = panel.images[1].get_array()
        assert overlay.shape[:2] == shape
        places = dict(_letters(panel))
        assert list(places) == list(letters)
        top, bottom, left, right = (places[letter] for letter in letters)
        assert top[1] > bottom[1]
        assert left[0] < right[0]
        # the first pixel of the array is at the end of the axis that its letters say
        assert panel.images[1].origin == ("upper" if letters[0] == "A" else "lower")

    axial = panels[1].images[1].get_array()
    liver, spleen = axial[5, 5], axial[16, 24]
    assert liver[3] > 0 and spleen[3] > 0
    assert not np.allclose(liver, spleen)
    assert axial[0, 0, 3] == 0


def test_it_shows_the_slice_with_most_classes() -> None:
    """Slice 2 is the one with both organs."""
    panels = _axes(figures.draw_cases([("Best case", _case())], _CLASSES))
    drawn_colors = {tuple(color) for color in panels[1].images[1].get_array().reshape(-1, 4)}
    assert len(drawn_colors) == 3


def test_truth_and_prediction_are_told_apart() -> None:
    """Each overlay shows its own labels, and nothing lies over the image."""
    prediction = np.zeros(_SHAPE, np.uint8)
    prediction[2, 2, 2] = 2
    panels = _axes(figures.draw_cases([("Best case", _case(prediction))], _CLASSES))
    labeled = [
        int((panel.images[1].get_array()[..., 3] > 0).sum()) if len(panel.images) > 1 else None
        for panel in panels[:3]
    ]
    assert labeled == [None, 6 * 6 + 4 * 8, 1]


def test_titles_and_legend_name_everything() -> None:
    drawn = figures.draw_cases([("Best case", _case()), ("Worst case", _case())], _CLASSES)
    *cases, legend = drawn.subfigs
    titles = [case.get_suptitle() for case in cases]
    assert titles == [f"{which} case: case_7, mean Dice 0.875" for which in ("Best", "Worst")]
    entries = legend.legends[0]
    assert [text.get_text() for text in entries.get_texts()] == ["liver", "spleen"]
    overlay = _axes(drawn)[1].images[1].get_array()
    patch = entries.get_patches()[0].get_facecolor()
    assert colors.to_hex(patch) == colors.to_hex(overlay[5, 5, :3])


@pytest.mark.parametrize("n_classes", [3, 14, 40])
def test_any_number_of_classes_fits(n_classes: int) -> None:
    """All names are on the picture, however many there are."""
    classes = ["background"] + [f"a rather long name {label}" for label in range(1, n_classes)]
    drawn = figures.draw_cases([("Best case", _case())], classes)
    drawn.savefig(io.BytesIO())
    legend = drawn.subfigs[-1].legends[0].get_window_extent()
    area = drawn.subfigs[-1].bbox
    assert area.x0 <= legend.x0 < legend.x1 <= area.x1
    assert area.y0 <= legend.y0 < legend.y1 <= area.y1


def test_without_truth_it_shows_the_prediction() -> None:
    """A case without any label is drawn where something was predicted."""
    truth = np.zeros(_SHAPE, np.uint8)
    prediction = truth.copy()
    prediction[4, 10, 10] = 1
    case = figures.ScoredCase("case", 0.0, np.zeros(_SHAPE, np.float16), truth, prediction)
    panels = _axes(figures.draw_cases([("Worst case", case)], _CLASSES))
    assert (panels[2].images[1].get_array()[..., 3] > 0).sum() == 1


def _run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, **data: Any) -> list[Any]:
    """Runs a session with the callback, and returns what it has drawn."""
    drawn: list[Any] = []
    draw_cases = figures.draw_cases

    def spy(cases: Any, classes: Any) -> matplotlib.figure.Figure:
        drawn.append([(title, case.case, case.dice, case) for title, case in cases])
        return draw_cases(cases, classes)

    monkeypatch.setattr(figures, "draw_cases", spy)
    trainer = toy.trainer(str(tmp_path), [figures.CaseFigures()], max_steps=4)
    trainer.run_evaluation_session(toy.ToyModule(), toy.datamodule(**data))
    return drawn


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_best_and_the_worst_case_are_drawn(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    """Once a scoring, and with what belongs to the case; nothing is drawn while fitting."""
    test = toy.ToyDataset(first_seed=50)
    drawn = _run(tmp_path, monkeypatch, test=test, batch_size=batch_size)
    assert len(drawn) == 2
    (folder,) = (path for path in tmp_path.glob("*/run_0") if path.is_dir())
    assert {path.name for path in folder.glob("*.png")} == {"cases_val.png", "cases_test.png"}
    assert image.imread(folder / "cases_val.png").shape[2] == 4

    (best_title, best, best_dice, scored), (worst_title, worst, worst_dice, _) = drawn[0]
    assert (best_title, worst_title) == ("Best case", "Worst case")
    assert best_dice > worst_dice
    # the spleen of case 0 is never found
    assert worst == "case_0"
    truth = toy.ToyDataset()[int(best.removeprefix("case_"))]
    np.testing.assert_array_equal(scored.truth, truth[1][0].numpy())
    np.testing.assert_allclose(scored.image, truth[0][0].numpy(), atol=1e-3)


def test_one_case_is_drawn_once(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (drawn,) = _run(tmp_path, monkeypatch, val=toy.ToyDataset(n_cases=1))
    assert [title for title, *_ in drawn] == ["Best case"]
