"""The ledger: every call once, with its tokens by class, in one SQLite file.

Holds tokens, not money: what they cost is asked of a price book. A call is `(source, id)`; the same
again changes nothing, and is counted; one that was broken off gives way to the whole one. One
process writes at a time, any number read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from weft.core.errors import FileError
from weft.tokens.call import Call
from weft.tokens.ledger.schema import CALL_COLUMNS, INSERT, call_row, connect, plain_text, row_call

__all__ = ["Bad", "Ledger", "Progress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A record that no call could be read from: where it stands, why, and what it says."""

    path: str
    line: int
    reason: str
    record: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a file was read.

    Attributes:
        path: of the file, from the root.
        head, head_bytes: digest of the first bytes, and how many; they tell whether it is the file
            that was read before.
        position: of the first byte, or record, that was not read.
        line: lines before it.
        records: that were read, those that were kept aside among them.
        calls: that were new.
        duplicates: calls that were there already.
        ignored: records that are about something else than a call.
    """

    path: str
    head: str
    head_bytes: int
    position: int = 0
    line: int = 0
    records: int = 0
    calls: int = 0
    duplicates: int = 0
    ignored: int = 0


_PROGRESS = tuple(Progress.__dataclass_fields__)


class Ledger:
    """A ledger's file, opened.

    Args:
        path: the file; ":memory:" for one that is not kept.

    Raises:
        FileError: it is something else, or cannot be opened; or, at the end of a `with`, that it
            could not be read or written to.

    Example:
        >>> from weft.tokens import Usage
        >>> call = Call(id="1", source="proxy", at=0.0, model="m", usage=Usage.of(text=3))
        >>> with Ledger(":memory:") as ledger:
        ...     ledger.add([call, call]), ledger.add([call]), len(list(ledger.calls()))
        (1, 0, 1)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.connection = connect(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if isinstance(error, sqlite3.Error):
            raise FileError(
                need="a ledger that can be read and written to",
                got=f"{self.path}: {error}",
                hint="is the disc full? a ledger that is broken is made anew from the logs",
            ) from error

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """A transaction: all of it or nothing."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
            self.connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite has gone back by itself where a disc is full
                self.connection.execute("ROLLBACK")
            raise

    def add(self, calls: Iterable[Call]) -> int:
        """Write calls, those that are not there; returns how many were new."""
        rows = [call_row(call) for call in calls]
        with self.writing() as connection:
            return insert_rows(connection, rows)

    def calls(self) -> Iterator[Call]:
        """All calls, in the order of their times."""
        columns = ", ".join(CALL_COLUMNS)
        for row in self.connection.execute(f"SELECT {columns} FROM calls ORDER BY at, id"):
            yield row_call(row)

    def progress(self, path: str) -> Progress | None:
        """How far a file was read; None if it never was."""
        query = f"SELECT {', '.join(_PROGRESS)} FROM files WHERE path = ?"
        found = self.connection.execute(query, (path,)).fetchone()
        return None if found is None else Progress(**dict(zip(_PROGRESS, found, strict=True)))

    def files(self) -> tuple[Progress, ...]:
        """How far each file was read, by name."""
        rows = self.connection.execute(f"SELECT {', '.join(_PROGRESS)} FROM files ORDER BY path")
        return tuple(Progress(**dict(zip(_PROGRESS, row, strict=True))) for row in rows)

    def quarantine(self, most: int = -1) -> tuple[Bad, ...]:
        """Records that no call could be read from, at most so many."""
        query = "SELECT path, line, reason, record FROM quarantine ORDER BY path, line LIMIT ?"
        rows = self.connection.execute(query, (most,))
        return tuple(Bad(path=p, line=n, reason=why, record=text) for p, n, why, text in rows)

    def forget(self, path: str, *, from_line: int = 0) -> None:
        """Drop what is kept aside of a file from a line on, which is about to be read again."""
        with self.writing() as connection:
            connection.execute(
                "DELETE FROM quarantine WHERE path = ? AND line > ?", (path, from_line)
            )

    def write_batch(
        self, rows: Sequence[Sequence[object]], bad: Sequence[Bad], progress: Progress
    ) -> Progress:
        """What was read of a file, and how far: in one transaction, so that a kill splits nothing.

        Args:
            rows: calls.
            bad: records to be kept aside.
            progress: of the file after them, but for new calls and duplicates, which are added.

        Returns:
            The progress as it was written.
        """
        with self.writing() as connection:
            new = insert_rows(connection, rows)
            connection.executemany(
                "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?)",
                [(own.path, own.line, own.reason, own.record) for own in bad],
            )
            values = {name: getattr(progress, name) for name in _PROGRESS}
            values["calls"] += new
            values["duplicates"] += len(rows) - new
            connection.execute(
                f"INSERT OR REPLACE INTO files ({', '.join(values)})"
                f" VALUES ({', '.join('?' * len(values))})",
                tuple(values.values()),
            )
        return Progress(**values)


def insert_rows(connection: sqlite3.Connection, rows: Sequence[Sequence[object]]) -> int:
    """Write rows of calls; returns how many were new."""
    before = _last(connection)
    try:
        connection.executemany(INSERT, rows)
    except UnicodeEncodeError:  # once in a lifetime, and not worth looking for in every row
        plain = [[plain_text(v) if isinstance(v, str) else v for v in row] for row in rows]
        connection.executemany(INSERT, plain)  # those that were written already are left alone
    return _last(connection) - before


def _last(connection: sqlite3.Connection) -> int:
    """Number of the last row; rows are numbered as they are written, and none is ever dropped."""
    return connection.execute("SELECT COALESCE(MAX(rowid), 0) FROM calls").fetchone()[0]
