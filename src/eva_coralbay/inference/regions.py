"""Parts of a scan that have an embedding of their own: points, boxes and labels of a mask.

Positions are in mm in RAS+, the world of NIfTI files, whose coordinates grow to the right, anterior
and superior of the patient. DICOM and ITK use LPS+, in which the first two have the other sign;
`read` converts them.
"""

import collections
import csv
import dataclasses
import io
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from eva_coralbay import _messages
from eva_coralbay.data import foreign_files
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import EvaCoralbayError

Space = Literal["ras", "lps"]
"""Whose world positions are in: NIfTI's, or that of DICOM and ITK."""

_POINT = ("x", "y", "z")
_BOX = ("x_min", "y_min", "z_min", "x_max", "y_max", "z_max")

_Position = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Point:
    """A point: its embedding is that of the one window around it."""

    name: str
    """Its name in the table."""

    position_mm: _Position
    """The RAS+ world position in mm."""


@dataclasses.dataclass(frozen=True)
class Box:
    """A box along the axes of the world: its embedding pools what lies in it."""

    name: str
    """Its name in the table."""

    low_mm: _Position
    """The corner with the lowest RAS+ world coordinates in mm."""

    high_mm: _Position
    """The corner with the highest."""

    def inside(self, grid: grid_lib.Grid) -> torch.Tensor:
        """Returns which voxels of a grid have their center in the box, of shape [D, H, W]."""
        inside = torch.zeros(grid.shape, dtype=torch.bool)
        corners = np.array(
            [
                [*(pair[side] for pair, side in zip(self._sides, index, strict=True)), 1.0]
                for index in np.ndindex(2, 2, 2)
            ]
        )
        reached = np.linalg.solve(grid.affine, corners.T)[:3]
        low = np.clip(np.floor(reached.min(axis=1)), 0, grid.shape).astype(int)
        high = np.clip(np.ceil(reached.max(axis=1)) + 1, 0, grid.shape).astype(int)
        axes = [np.arange(a, max(a, b)) for a, b in zip(low, high, strict=True)]
        indices = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        world = indices @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        held = (world >= self.low_mm) & (world <= self.high_mm)
        box = tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))
        inside[box] = torch.from_numpy(held.all(axis=-1))
        return inside

    @property
    def _sides(self) -> list[tuple[float, float]]:
        return list(zip(self.low_mm, self.high_mm, strict=True))


@dataclasses.dataclass(frozen=True)
class Masked:
    """The voxels of a mask: their embedding pools what lies in them."""

    name: str
    """Its name in the table."""

    mask: torch.Tensor
    """The voxels, boolean, of shape [D, H, W] on the grid of the scan as it was read ("SPL")."""


Region = Point | Box | Masked
"""A part of a scan."""


def read(path: str, *, space: Space) -> dict[str, list[Point | Box]]:
    """Reads points and boxes.

    A row is a point with the columns x, y, z, or a box with x_min, y_min, z_min, x_max, y_max and
    z_max, all in mm; `case` says of which scan, and `name` what it is called. JSON has a list of
    such objects.

    Args:
        path: The CSV or JSON file.
        space: The world of the positions.

    Returns:
        The regions in RAS+ by their `case`, "" where there is none.

    Raises:
        EvaCoralbayError: If the file cannot be read, or a row is not a region; the message
            says which.
    """
    found: dict[str, list[Point | Box]] = collections.defaultdict(list)
    for number, row in enumerate(_rows(path), start=1):
        case = str(row.get("case") or "")
        name = str(row.get("name") or f"roi_{len(found[case]) + 1}")
        found[case].append(_parse(row, name, space, place=f"File '{path}', row {number}"))
    for case, regions_of_case in found.items():
        check_names(regions_of_case, place=f"File '{path}': case '{case}'")
    if not found:
        raise EvaCoralbayError(f"File '{path}' holds no point and no box.")
    return dict(found)


def check_names(regions_of_case: Iterable[Region], *, place: str) -> None:
    """Checks that the regions of a scan have names that differ.

    Args:
        regions_of_case: The regions.
        place: The scan, for the error message.

    Raises:
        EvaCoralbayError: If two have the same name.
    """
    names = collections.Counter(region.name for region in regions_of_case)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise EvaCoralbayError(
            f"{place} has several regions called {_messages.list_names(twice)}. Give each a name "
            "of its own."
        )


def of_labels(labels: torch.Tensor) -> Iterable[Masked]:
    """Yields a region a label of a mask.

    Args:
        labels: The label map of shape [1, D, H, W]; 0 is the background.
    """
    own = labels.as_subclass(torch.Tensor)[0]
    for value in own.unique().tolist():
        if value > 0:
            yield Masked(f"label_{value}", own == value)


def _rows(path: str) -> Sequence[Mapping[str, Any]]:
    fix = "Write a CSV file with a heading, or a JSON list of objects."
    if path.lower().endswith(".json"):
        rows = foreign_files.read_json(path, fix=fix)
        if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
            raise foreign_files.problem("it is not a list of objects", path, fix=fix)
        return rows
    with foreign_files.reading(path, fix=fix):
        text = pathlib.Path(path).read_text("utf-8-sig")
        return list(csv.DictReader(io.StringIO(text), skipinitialspace=True))


def _parse(row: Mapping[str, Any], name: str, space: Space, *, place: str) -> Point | Box:
    has_box = any(row.get(column) not in (None, "") for column in _BOX)
    try:
        values = [float(row[column]) for column in (_BOX if has_box else _POINT)]
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"{values} are not finite")
    except (KeyError, TypeError, ValueError) as error:
        raise EvaCoralbayError(
            f"{place}: no point ({', '.join(_POINT)}) and no box ({', '.join(_BOX)}) in mm can be "
            f"read ({type(error).__name__}: {error}). Correct it."
        ) from error
    if not has_box:
        return Point(name, _to_ras(values, space))
    first, second = _to_ras(values[:3], space), _to_ras(values[3:], space)
    if any(low >= high for low, high in zip(values[:3], values[3:], strict=True)):
        raise EvaCoralbayError(f"{place}: a lower bound of the box is not below its upper one.")
    low = tuple(map(min, first, second))
    high = tuple(map(max, first, second))
    return Box(name, (low[0], low[1], low[2]), (high[0], high[1], high[2]))


def _to_ras(values: Sequence[float], space: Space) -> _Position:
    x, y, z = values
    return (x, y, z) if space == "ras" else (-x, -y, z)
