"""Tests the picture and the statistics of a case."""

import json
import pathlib
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from matplotlib import figure, image
from nibabel import nifti1

from eva_coralbay.data import inspection
from eva_coralbay.errors import DatasetError
from tests.eva_coralbay.data.datasets import classification_layouts, layouts

_STORED = np.zeros((10, 20, 30), np.int16)
"""A scan that is stored towards right, anterior and inferior (RAI): x, y, -z."""

_AFFINE = np.diag([2.0, 1.0, -3.0, 1.0])

_LIVER = (slice(6, 9), slice(12, 18), slice(20, 24))
"""A block of liver at the right, anterior and inferior corner of the patient."""

_SPLEEN = (slice(1, 3), slice(2, 6), slice(4, 21))
"""A block of spleen at the left, posterior and rather superior."""


@pytest.fixture
def own_data(tmp_path: pathlib.Path) -> str:
    """Writes a scan of -50 HU with a liver of 100 HU and a spleen of 60 HU."""
    labels = np.zeros(_STORED.shape, np.uint8)
    labels[_LIVER], labels[_SPLEEN] = 1, 2
    hounsfield = np.array([-50, 100, 60], np.int16)[labels]
    layouts.write_nnunet(tmp_path, ["a", "b"])
    nib.save(nifti1.Nifti1Image(hounsfield, _AFFINE), tmp_path / "imagesTr" / "a_0000.nii.gz")
    nib.save(nifti1.Nifti1Image(labels, _AFFINE), tmp_path / "labelsTr" / "a.nii.gz")
    return str(tmp_path)


def test_reads_what_the_file_says(own_data: str) -> None:
    inspected = inspection.read("nnunet", own_data, "a")

    assert inspected.image.shape == (30, 20, 10)
    assert inspected.spacing == pytest.approx((3.0, 1.0, 2.0))
    assert inspected.stored_axes == "RAI"
    assert inspected.path == str(pathlib.Path(own_data, "imagesTr", "a_0000.nii.gz"))
    assert inspected.classes == ["background", "liver", "spleen"]


def test_statistics_are_exact(own_data: str) -> None:
    background, liver, spleen = inspection.label_statistics(
        inspection.read("nnunet", own_data, "a")
    )

    assert liver == (1, "liver", 3 * 6 * 4, pytest.approx(3 * 6 * 4 * 6 / 1000), 100.0)
    assert spleen == (2, "spleen", 2 * 4 * 17, pytest.approx(2 * 4 * 17 * 6 / 1000), 60.0)
    assert background[2:] == (6000 - 72 - 136, pytest.approx(5792 * 6 / 1000), -50.0)


def test_ignored_voxels_are_of_no_label(own_data: str) -> None:
    description = pathlib.Path(own_data, "dataset.json")
    labels = {"background": 0, "liver": 1, "ignore": 2}
    description.write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": labels}))

    inspected = inspection.read("nnunet", own_data, "a")
    background, liver = inspection.label_statistics(inspected)

    assert (background.voxels, liver.voxels) == (6000 - 72 - 136, 72)
    (legend,) = inspection.draw(inspected).subfigs[1].legends
    assert [text.get_text() for text in legend.get_texts()] == ["liver"]


def test_tables_name_absent_labels(own_data: str) -> None:
    empty = np.zeros(_STORED.shape, np.uint8)
    nib.save(nifti1.Nifti1Image(empty, _AFFINE), pathlib.Path(own_data, "labelsTr", "a.nii.gz"))

    inspected = inspection.read("nnunet", own_data, "a")

    facts = inspection.describe_image(inspected)
    assert facts["shape (D, H, W)"] == "30 x 20 x 10"
    assert facts["spacing (D, H, W)"] == "3 x 1 x 2 mm"
    assert facts["axes in the file"] == "RAI"
    assert facts["lowest, highest"] == "-50, 100"
    spleen = inspection.label_statistics(inspected)[2]
    assert spleen == (2, "spleen", 0, 0.0, None)


def test_planes_are_drawn_as_radiologists_look_at_them(own_data: str) -> None:
    """The right and anterior liver is top left in the axial plane, the left spleen bottom right.

    The planes go through the labeled voxel next to the middle of all labels, which is one of the
    spleen, so the liver is not seen in all of them.
    """
    axial, coronal, sagittal = _panels(inspection.draw(inspection.read("nnunet", own_data, "a")))

    assert [_letters(panel) for panel in (axial, coronal, sagittal)] == ["APRL", "SIRL", "SIAP"]
    # voxels are as high as wide times the ratio of the spacings: (H, W), (D, W), (D, H)
    assert [panel.get_aspect() for panel in (axial, coronal, sagittal)] == [0.5, 1.5, 3.0]
    assert [panel.images[1].get_array().shape[:2] for panel in (axial, coronal, sagittal)] == [
        (20, 10),
        (30, 10),
        (30, 20),
    ]
    row, column = _middle(axial)
    assert axial.images[1].origin == "upper" and row > 10 and column > 5
    row, column = _middle(coronal)
    assert coronal.images[1].origin == "lower" and row > 15 and column > 5
    row, column = _middle(sagittal)
    assert sagittal.images[1].origin == "lower" and row > 15 and column > 10


def test_planes_show_a_labeled_voxel(own_data: str) -> None:
    """There is none at the middle of liver and spleen."""
    inspected = inspection.read("nnunet", own_data, "a")

    for panel in _panels(inspection.draw(inspected)):
        assert (panel.images[1].get_array()[..., 3] > 0).any()


def test_legend_names_what_is_seen_and_covers_nothing(own_data: str) -> None:
    drawn = inspection.draw(inspection.read("nnunet", own_data, "a"))
    drawn.draw_without_rendering()

    (legend,) = drawn.subfigs[1].legends
    assert {text.get_text() for text in legend.get_texts()} <= {"liver", "spleen"}
    assert "spleen" in {text.get_text() for text in legend.get_texts()}
    top = legend.get_window_extent().ymax
    assert all(panel.get_window_extent().ymin >= top for panel in _panels(drawn))


@pytest.mark.parametrize("shape", [(4, 60, 60), (400, 12, 12)])
def test_slabs_and_long_scans_fit(shape: tuple[int, int, int], own_data: str) -> None:
    hounsfield = np.zeros(shape[::-1], np.int16)
    for folder, name in (("imagesTr", "a_0000"), ("labelsTr", "a")):
        path = pathlib.Path(own_data, folder, f"{name}.nii.gz")
        nib.save(nifti1.Nifti1Image(hounsfield, np.diag([-1.0, -1.0, 5.0, 1.0])), path)

    width, height = inspection.draw(inspection.read("nnunet", own_data, "a")).get_size_inches()

    assert width == 12 and 1 < height < 12


@pytest.mark.parametrize("window", [None, (-1350.0, 150.0)])
def test_window(window: tuple[float, float] | None, own_data: str) -> None:
    inspected = inspection.read("nnunet", own_data, "a")

    drawn = inspection.draw(inspected, window=window)

    sagittal = _panels(drawn)[2].images[0].get_array()
    lowest, highest = window or (-175.0, 250.0)
    assert sagittal.min() == pytest.approx((-50 - lowest) / (highest - lowest))
    assert f"{lowest:.0f} to {highest:.0f} HU" in drawn.subfigs[0].get_suptitle()
    assert _panels(drawn)[0].images[0].get_clim() == (0, 1)


def test_empty_window_is_refused(own_data: str) -> None:
    with pytest.raises(ValueError, match="must be .lowest, highest."):
        inspection.draw(inspection.read("nnunet", own_data, "a"), window=(100.0, 100.0))


def test_picture_is_a_png(own_data: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "pictures" / "a.png"

    inspection.write_picture(inspection.read("nnunet", own_data, "a"), str(path))

    pixels = image.imread(path)
    assert pixels.shape[1] == 1440
    assert (pixels[..., 0] != pixels[..., 1]).any()


def test_a_broken_case_hides_no_other(own_data: str) -> None:
    pathlib.Path(own_data, "labelsTr", "b.nii.gz").unlink()

    inspection.read("nnunet", own_data, "a")


def test_unknown_case(own_data: str) -> None:
    with pytest.raises(DatasetError, match="'nnunet' has no case 'c'. It has 2: a, b."):
        inspection.read("nnunet", own_data, "c")


def test_no_case(own_data: str) -> None:
    for folder in ("imagesTr", "labelsTr"):
        for path in pathlib.Path(own_data, folder).iterdir():
            path.unlink()

    with pytest.raises(DatasetError, match=f"'{own_data}' has no cases"):
        inspection.read("nnunet", own_data, "a")


def test_absent_case(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="Case 'img0001' of 'btcv' is not in"):
        inspection.read("btcv", str(tmp_path), "img0001")


def test_classified_volume(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = layouts.few_cases("luna25", monkeypatch, count=1)
    cases = classification_layouts.all_cases(splits)
    classification_layouts.write_luna25(tmp_path, cases)

    inspected = inspection.read("luna25", str(tmp_path), cases[1])

    assert inspected.classes[inspected.label] == "malignant"
    assert inspected.spacing == pytest.approx((1.25, 0.7, 0.7))
    assert inspection.describe_image(inspected)["class"] == "malignant"
    assert len(_panels(inspection.draw(inspected))) == 3
    assert inspection.label_statistics(inspected) == []


def test_unknown_directions_are_not_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = layouts.few_cases("cc_ccii", monkeypatch, count=1)
    cases = classification_layouts.all_cases(splits)
    classification_layouts.write_cc_ccii(tmp_path, cases)

    inspected = inspection.read("cc_ccii", str(tmp_path), cases[0])

    drawn = inspection.draw(inspected)
    assert inspected.spacing is None
    assert [_letters(panel) for panel in _panels(drawn)] == ["", "", ""]
    assert "directions unknown" in drawn.subfigs[0].get_suptitle()


def _panels(drawn: figure.Figure) -> list[Any]:
    return [panel for panel in drawn.get_axes() if panel.images]


def _letters(panel: Any) -> str:
    return "".join(text.get_text() for text in panel.texts)


def _middle(panel: Any) -> tuple[float, float]:
    """Returns the middle (row, column) of the labels in a panel."""
    rows, columns = np.nonzero(panel.images[1].get_array()[..., 3])
    return rows.mean(), columns.mean()
