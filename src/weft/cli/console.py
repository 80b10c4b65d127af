"""Where a command's words go: tables, lines, progress and results as JSON.

On a terminal, with rich installed, tables are drawn and long work shows a bar. Anywhere
else the same words come out as plain text, and progress is silent, so that output can be
piped and compared.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from weft.core.errors import FileError
from weft.report.table import Table, format_table, numeric_columns
from weft.workflow.progress import Progress, silent

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import TaskID

__all__ = ["Console", "writing"]


@contextmanager
def writing() -> Generator[None]:
    """Tell a standard output that takes nothing from a bug.

    Raises:
        FileError: it could not be written to.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileError(
            need="a standard output that can be written to",
            got=error.strerror or str(error),
            hint="write to a place with room, or to /dev/null",
        ) from error


class Console:
    """Prints for people, or for programs when `as_json` is set.

    Args:
        as_json: print nothing but the result, as one line of JSON.
        quiet: no tables and no lines either; used by ranks other than the first.
        out, err: where to; the process's own streams if not given.

    Raises:
        FileError: the standard output is closed; later, it cannot be written to.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        own: TextIO | None = sys.stdout  # None where whoever started us closed it
        if out is None and own is None:
            raise FileError(
                need="a standard output to print to",
                got="a closed one",
                hint="send it to /dev/null if nobody shall read it",
            )
        self.as_json = as_json
        self.quiet = quiet
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._rich = None if as_json or quiet else _rich(self._out)

    def line(self, text: str = "") -> None:
        """Print one line, or several."""
        if not (self.as_json or self.quiet):
            self.always(text)

    def always(self, text: str) -> None:
        """Print a line whatever was asked for: of a command whose last line other programs read."""
        with writing():
            self._out.write(text + "\n")
            self._out.flush()

    def table(self, table: Table) -> None:
        """Print a table."""
        if self._rich is not None:
            with writing():
                self._rich.print(_rich_table(table))
        else:
            self.line(format_table(table))

    def result(self, plain: object) -> None:
        """Print the result as one line of JSON if that was asked for."""
        if self.as_json and not self.quiet:
            self.always(json.dumps(plain, allow_nan=False))

    def warn(self, text: str) -> None:
        """Print a line that is not part of the result."""
        if not self.quiet and self._err is not None:  # pyright: ignore[reportUnnecessaryComparison]
            self._err.write(f"weft: {text}\n")
            self._err.flush()

    @contextmanager
    def progress(self) -> Generator[Progress]:
        """A bar for the stages of long work; silent where nobody watches."""
        if self._rich is None:
            yield silent
            return
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", style="dim"),
        )
        with Bar(*columns, console=self._rich) as bar:
            tasks: dict[str, TaskID] = {}

            def show(stage: str, share: float | None, detail: str = "") -> None:
                if stage not in tasks:
                    tasks[stage] = bar.add_task(stage, total=None, detail="")
                bar.update(tasks[stage], detail=detail)
                if share is not None:
                    bar.update(tasks[stage], total=1.0, completed=share)

            yield show


def _rich(out: TextIO) -> RichConsole | None:
    if not out.isatty():
        return None
    try:
        from rich.console import Console as RichConsole
    except ImportError:
        return None
    return RichConsole(file=out, highlight=False)


def _rich_table(table: Table) -> object:
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    drawn = RichTable(box=box.SIMPLE_HEAD, title=table.caption or None, title_justify="left")
    for title, right in zip(table.columns, numeric_columns(table), strict=True):
        drawn.add_column(escape(title), justify="right" if right else "left")
    for row in table.rows:
        drawn.add_row(*(escape(cell) for cell in row))
    return drawn
