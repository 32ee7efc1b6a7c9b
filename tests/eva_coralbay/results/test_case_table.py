"""Tests of the case table."""

import dataclasses
import hashlib
import pathlib
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from eva_coralbay.results import case_table

_ROW = case_table.CaseRow("case_1", "liver", "dice", 0.1 + 0.2, 10, 12)


_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]))


_ROWS = st.lists(
    st.builds(
        case_table.CaseRow,
        case=_TEXT,
        class_name=_TEXT,
        metric=st.sampled_from(["dice", "nsd"]),
        value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        truth_voxels=st.integers(0, 2**40),
        predicted_voxels=st.integers(0, 2**40),
    ),
    unique_by=lambda row: (row.case, row.class_name, row.metric),
)


@hypothesis.given(rows=_ROWS)
@hypothesis.settings(deadline=None, max_examples=50)
def test_case_tables_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: Any) -> None:
    """Every value comes back to the last bit, whatever the ids are."""
    path = tmp_path_factory.getbasetemp() / "round_trip.csv"
    table = case_table.write(path, rows)
    assert case_table.read(path) == rows
    assert table.rows == len(rows)
    assert table.excluded == sum(row.value is None for row in rows)
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_case_table_is_plain(tmp_path: pathlib.Path) -> None:
    """The format is what other programs read."""
    excluded = case_table.CaseRow("case_1", "spleen", "dice", None, 0, 0)
    case_table.write(tmp_path / "cases.csv", [_ROW, excluded])
    assert (tmp_path / "cases.csv").read_bytes() == (
        b"case,class,metric,value,truth_voxels,predicted_voxels\n"
        b"case_1,liver,dice,0.30000000000000004,10,12\n"
        b"case_1,spleen,dice,,0,0\n"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("case,value\n", r"its columns are \['case', 'value'\]"),
        ("{header}a,b,dice,1\n", "line 2: expected 6 values, got 4"),
        ("{header}a,b,dice,1,2,3\na,c,dice,x,2,3\n", "line 3: could not convert string"),
        ("{header}a,b,dice,1,2.5,3\n", "line 2: invalid literal"),
        ("{header}a,b,dice,nan,2,3\n", "dice of b in a is nan"),
        ("{header}a,b,dice,1,2,3\na,b,dice,1,2,3\n", "dice of b in a appears twice"),
    ],
)
def test_broken_case_tables_are_rejected(
    tmp_path: pathlib.Path, content: str, message: str
) -> None:
    header = "case,class,metric,value,truth_voxels,predicted_voxels\n"
    path = tmp_path / "cases.csv"
    path.write_text(content.format(header=header))
    with pytest.raises(ValueError, match=message) as error:
        case_table.read(path)
    assert str(path) in str(error.value)


def test_a_case_is_written_once(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="dice of liver in case_1 appears twice"):
        case_table.write(tmp_path / "cases.csv", [_ROW, dataclasses.replace(_ROW, value=0.5)])
    assert not list(tmp_path.iterdir())
