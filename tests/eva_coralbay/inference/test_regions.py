"""Tests the parts of scans: what files of points and boxes say."""

import pathlib

import pytest

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.inference import regions


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("case,x,y\na,1,2\n", "row 1: no point"),
        ("x,y,z\n1,2,nan\n", "finite"),
        ("x,y,z\n1,2,three\n", "row 1"),
        ("x_min,y_min,z_min,x_max,y_max,z_max\n1,1,1,2,1,2\n", "lower bound"),
        ("name,x,y,z\na,1,2,3\na,4,5,6\n", "name of its own"),
        ("x,y,z\n", "no point and no box"),
    ],
)
def test_refuses_a_file_of_no_regions(tmp_path: pathlib.Path, content: str, message: str) -> None:
    path = tmp_path / "rois.csv"
    path.write_text(content)
    with pytest.raises(EvaCoralbayError, match=message):
        regions.read(str(path), space="ras")


def test_spaces_behind_the_commas_of_regions(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "rois.csv"
    path.write_text("name, x, y, z\na, 1, 2, 3\n")
    assert regions.read(str(path), space="ras") == {"": [regions.Point("a", (1.0, 2.0, 3.0))]}


def test_regions_as_json(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "rois.json"
    path.write_text('[{"case": "a", "x": 1, "y": 2, "z": 3}]')
    assert regions.read(str(path), space="ras") == {"a": [regions.Point("roi_1", (1.0, 2.0, 3.0))]}
    path.write_text('{"x": 1}')
    with pytest.raises(EvaCoralbayError, match="is not a list of objects"):
        regions.read(str(path), space="ras")
