"""SQLite files that say what they are: made where there is nothing, refused where there is more.

Source: SQLite documentation, "PRAGMA application_id" and "PRAGMA user_version".
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from weft.core.errors import FileError

__all__ = ["Stamp", "keep_log", "prepare"]

_PATIENCE_S = 60.0
"""Chosen: as long as other statements wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What a file is.

    Attributes:
        name: with its article, for errors: "a ledger".
        application: SQLite's application_id.
        version: of its tables.
        hint: what to try where a file is something else.
    """

    name: str
    application: int
    version: int
    hint: str


def prepare(
    connection: sqlite3.Connection, path: str | Path, stamp: Stamp, tables: Sequence[str]
) -> None:
    """Make the tables of a new file, or see that they are there.

    Args:
        connection: to the file, in autocommit mode.
        path: its name, for errors.
        stamp: what it is, or becomes.
        tables: statements that make them.

    Raises:
        FileError: the file is something else, or of another version.
    """
    connection.execute("BEGIN")  # all that is looked at is of one moment
    try:
        is_there = _is_stamped(connection, path, stamp)
    finally:
        connection.execute("ROLLBACK")
    if is_there:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _is_stamped(connection, path, stamp):  # another process may have been quicker
            for statement in tables:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={stamp.application}")
            connection.execute(f"PRAGMA user_version={stamp.version}")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite has gone back by itself where a disc is full
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def keep_log(connection: sqlite3.Connection) -> None:
    """Write ahead to a log, so that many read while one writes.

    SQLite does not wait for a lock here, as it does elsewhere, so that several who make a file at
    once are in each other's way.

    Raises:
        sqlite3.Error: the mode cannot be changed.

    Source: SQLite documentation, "PRAGMA journal_mode" and write-ahead logging.
    """
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _is_stamped(connection: sqlite3.Connection, path: str | Path, stamp: Stamp) -> bool:
    """Whether a file is what it has to be, rather than empty.

    Raises:
        FileError: it is something else.
    """
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if (application, version) == (stamp.application, stamp.version):
        return True
    if tables or application:
        kind = stamp.name if application == stamp.application else "a database"
        raise FileError(
            need=f"{stamp.name} of version {stamp.version}",
            got=f"{path}: {kind} of version {version}",
            hint=stamp.hint,
        )
    return False
