"""What all commands print with: tables, JSON, and the note that a slow import has begun."""

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich import console as rich_console
from rich import table as rich_table
from rich import text as rich_text

from eva_coralbay import _messages

if TYPE_CHECKING:
    import loguru

_UNBOUNDED = 10_000
"""A width that no table reaches."""


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | rich_text.Text]],
    *,
    title: str = "",
    numbers: Collection[str] = (),
    whole: Collection[str] = (),
    has_header: bool = True,
    is_narrow: bool = False,
    to_stderr: bool = False,
) -> None:
    """Prints a table. Text is printed as it is: square brackets in it are not markup.

    Characters that a terminal would obey, which may be in the names that others gave, are escaped.

    Args:
        columns: The headings. The first column is set in bold, unless the table is narrow.
        rows: The cells of each row. A row of a single cell is the heading of those below it.
        title: What is printed above the table.
        numbers: The columns whose cells are aligned to the right.
        whole: The columns whose cells are never broken into lines.
        has_header: Whether the headings are shown.
        is_narrow: Whether to leave out the lines between the columns, for a table that would
            else not fit a terminal of 80 columns.
        to_stderr: Whether to print to standard error, where standard output is for a program.
    """
    table = rich_table.Table(
        title=title and rich_text.Text(title),
        show_header=has_header,
        box=box.SIMPLE_HEAD if is_narrow else box.HEAVY_HEAD,
        padding=0 if is_narrow else (0, 1),
    )
    cells = [[_to_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    for index, name in enumerate(columns):
        table.add_column(
            rich_text.Text(name),
            justify="right" if name in numbers else "left",
            style="bold" if index == 0 and not is_narrow else None,
            overflow="fold",
            no_wrap=name in whole,
            min_width=_width(name, index, cells) if name in whole and not is_narrow else None,
        )
    for row in cells:
        is_heading = len(row) < len(columns)
        if is_heading:
            table.add_section()
        table.add_row(*row, style="bold" if is_heading else None)
    console = rich_console.Console(stderr=to_stderr)
    if whole and not is_narrow:
        # a terminal that is too narrow breaks the lines: better than values that are cut
        unbounded = console.options.update(max_width=_UNBOUNDED)
        console.width = max(console.width, console.measure(table, options=unbounded).minimum)
    console.print(table)


def _width(name: str, index: int, rows: Sequence[Sequence[rich_text.Text]]) -> int:
    """Returns the width of a column in which no cell is broken."""
    cells = [row[index].cell_len for row in rows if index < len(row) == len(rows[0])]
    return max(len(name), *cells, 0)


def _to_text(cell: str) -> rich_text.Text:
    return rich_text.Text(_messages.printable_lines(cell))


def print_json(content: Any) -> None:
    """Prints a value as JSON.

    Args:
        content: What JSON can hold; NaN is an error, as no other program reads it.
    """
    print(json.dumps(content, indent=2, allow_nan=False))


def announce_imports() -> None:
    """Says on standard error that PyTorch and eva are being loaded, unless they are already.

    What they log from then on has no characters that a terminal would obey: the names of files,
    which others gave, may have some.
    """
    if "torch" not in sys.modules:
        print("Loading PyTorch and eva ...", file=sys.stderr, flush=True)
    from loguru import logger  # which computes nothing, but is slow as well

    logger.configure(patcher=_make_printable)


def _make_printable(record: "loguru.Record") -> None:
    record["message"] = _messages.printable_lines(record["message"])
