"""Tables of text: what a command prints and what a page shows.

Knows columns and rows of finished words; does not know what they mean. Cells are text
because whoever makes a table knows how many digits are worth showing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from weft.core.errors import InputError

__all__ = ["Table", "format_table", "numeric_columns"]

_NUMBER = re.compile(r"[-+~<>=]*\s*[0-9.]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells under column titles.

    Attributes:
        columns: titles, with the unit where a column has one: "step [ms]".
        rows: one cell for each column; an empty cell is an empty string.
        caption: a line above the table, empty for none.

    Raises:
        InputError: a row has another number of cells than there are columns.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise InputError(
                    need=f"{len(self.columns)} cells in each row: {', '.join(self.columns)}",
                    got=f"{len(row)} cells in row {number}: {row}",
                    hint="use an empty string for a cell without a value",
                )


def numeric_columns(table: Table) -> tuple[bool, ...]:
    """For each column, whether all of its filled cells start with a number.

    Example:
        >>> numeric_columns(Table(columns=("plan", "step"), rows=(("ddp", "12 ms"),)))
        (False, True)
    """
    return tuple(
        any(cells) and all(_NUMBER.match(cell) for cell in cells if cell)
        for cells in ([row[c] for row in table.rows] for c in range(len(table.columns)))
    )


def format_table(table: Table) -> str:
    """The table as plain text: two spaces between columns, numbers to the right.

    Example:
        >>> print(format_table(Table(columns=("plan", "step"), rows=(("ddp", "12 ms"),))))
        plan   step
        ----  -----
        ddp   12 ms
    """
    right = numeric_columns(table)
    lines = [table.columns, *table.rows]
    widths = [max(len(line[c]) for line in lines) for c in range(len(table.columns))]
    rule = tuple("-" * width for width in widths)
    body = [_line(cells, widths, right) for cells in (table.columns, rule, *table.rows)]
    return "\n".join([table.caption, *body] if table.caption else body)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if is_right else cell.ljust(width)
        for cell, width, is_right in zip(cells, widths, right, strict=True)
    )
    return "  ".join(padded).rstrip()
