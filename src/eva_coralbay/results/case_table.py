"""The case table: one row for each case, class and metric of a run, as CSV beside the record."""

import csv
import dataclasses
import hashlib
import io
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from eva_coralbay import _atomic_files
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.results import bounded_reading, record

MAX_BYTES: Final = 20_000_000
"""The most bytes of the file of a case table."""


@dataclasses.dataclass(frozen=True)
class CaseRow:
    """A row of the case table of a segmentation: one case, class and metric."""

    case: str
    """Case id, unique in its split."""

    class_name: str
    """Name of the foreground class."""

    metric: str
    """Name of the metric, e.g. `dice`."""

    value: float | None
    """The metric's value; `None` if the class is absent from truth and prediction."""

    truth_voxels: int
    """Voxels of the class in the truth."""

    predicted_voxels: int
    """Voxels of the class in the prediction."""


@dataclasses.dataclass(frozen=True)
class PredictionRow:
    """A row of the case table of a classification: one case and class."""

    case: str
    """Case id, unique in its split."""

    class_name: str
    """Name of the class."""

    metric: str
    """What the value is: `probability`; of a probe also `knn_probability`, the probability by
    nearest neighbors, and `prediction_<point>` and `knn_prediction_<point>`, the share of the draws
    of a point of the label-efficiency curve (`at_<n>`, or `curve`: the mean over all of it) that
    predict the class."""

    value: float | None
    """The predicted probability of the class, or the share of its predictions."""

    truth: int
    """1 if it is the true class, else 0."""

    patient: str
    """Id of the patient, the unit that is scored."""


Row: TypeAlias = CaseRow | PredictionRow
"""A row of a case table."""


def write(
    path: str | os.PathLike[str], rows: Sequence[CaseRow] | Sequence[PredictionRow]
) -> record.CaseTable:
    """Writes the case table, completely or not at all.

    The columns are the fields of the rows, with `class` for `class_name`. An excluded value is
    empty; any other has as many digits as reading it back exactly needs.

    Args:
        path: The path of the CSV file.
        rows: The rows, in the order they are written.

    Returns:
        The description of the table for the record.

    Raises:
        EvaCoralbayError: If a case, class and metric appears twice, or a value is not finite.
    """
    _check_rows(path, rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_columns(type(rows[0]) if rows else CaseRow))
    for row in rows:
        value = "" if row.value is None else repr(float(row.value))
        writer.writerow({**dataclasses.asdict(row), "value": value}.values())
    content = text.getvalue().encode()
    _atomic_files.write_atomically(path, content)
    return record.CaseTable(
        file=pathlib.Path(path).name,
        sha256=hashlib.sha256(content).hexdigest(),
        rows=len(rows),
        excluded=sum(row.value is None for row in rows),
    )


def read(path: str | os.PathLike[str]) -> list[Row]:
    """Reads a case table.

    Args:
        path: The path of the CSV file.

    Returns:
        The rows, in the order of the file.

    Raises:
        EvaCoralbayError: If the file is not a case table, naming the line.
    """
    kinds = {tuple(_columns(kind)): kind for kind in (CaseRow, PredictionRow)}
    rows: list[Row] = []
    text = bounded_reading.read_text(path, max_bytes=MAX_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = tuple(next(reader, []))
        if header in kinds:
            rows.extend(_parse_rows(reader, kinds[header]))
    except (ValueError, csv.Error) as error:
        raise EvaCoralbayError(f"{path}, line {reader.line_num}: {error}.") from error
    if header not in kinds:
        raise EvaCoralbayError(
            f"{path} is not a case table: its columns are {list(header)}, not "
            f"{' or '.join(str(list(columns)) for columns in kinds)}."
        )
    _check_rows(path, rows)
    return rows


def _columns(kind: type[Row]) -> list[str]:
    """Returns the header of a table of rows."""
    return [field.name.removesuffix("_name") for field in dataclasses.fields(kind)]


def _parse_rows(lines: Iterable[Sequence[str]], kind: type[Row]) -> Iterator[Row]:
    """Yields the rows of the lines of a case table."""
    by_type = {str: str, int: int, float | None: lambda text: float(text) if text else None}
    parsers = [by_type[field.type] for field in dataclasses.fields(kind)]
    for values in lines:
        if len(values) != len(parsers):
            raise EvaCoralbayError(f"expected {len(parsers)} values, got {len(values)}")
        yield kind(*(parse(value) for parse, value in zip(parsers, values, strict=True)))


def _check_rows(path: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Checks that the rows are distinct and their values finite."""
    seen = set()
    for row in rows:
        key = (row.case, row.class_name, row.metric)
        if key in seen:
            raise EvaCoralbayError(
                f"{path}: {row.metric} of {row.class_name} in {row.case} appears twice."
            )
        if row.value is not None and not math.isfinite(row.value):
            raise EvaCoralbayError(
                f"{path}: {row.metric} of {row.class_name} in {row.case} is {row.value}, "
                "but a value is finite, or empty if it is excluded."
            )
        seen.add(key)
