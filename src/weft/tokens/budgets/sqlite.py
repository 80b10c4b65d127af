"""Budgets in one SQLite file, for any number of threads and processes of one machine.

Each law is a transaction that begins IMMEDIATE, so that it has read nothing that another then
changes. Threads of a process share a connection: whoever finds it free runs the laws of all that
wait, in one transaction, so that a crowd pays for one commit.

The journal is a WAL with synchronous=NORMAL: what was committed survives a process killed at any
moment, since the system has it. A power cut may lose the last commits, though never half of one;
`durable` waits for the disc at each commit, and loses none.

Source: SQLite documentation, "Write-Ahead Logging" and "PRAGMA synchronous".
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from weft.core.errors import FileError
from weft.tokens.budgets.records import Account, Entry
from weft.tokens.budgets.rows import STAMP, TABLES, SqliteTables
from weft.tokens.budgets.store import LawfulStore
from weft.tokens.budgets.tables import Tables
from weft.tokens.database import keep_log, prepare

__all__ = ["SqliteStore"]

T = TypeVar("T")

PATIENCE_S = 60.0
"""How long to wait for other processes. Chosen: thousands of transactions fit in."""
BATCH = 256
"""Laws in one transaction. Chosen: some 20 ms, so that other processes get their turn."""


class _Job:
    """A law that waits for its turn, and what came of it."""

    __slots__ = ("done", "error", "law", "result")

    def __init__(self, law: Callable[[Tables], Any]) -> None:
        self.law = law
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False


class SqliteStore(LawfulStore):
    """The laws on a file.

    Args:
        path: of the file; it is made if there is none.
        durable: whether each commit waits for the disc.

    Raises:
        FileError: it is something else, of another version, or cannot be opened.
    """

    def __init__(self, path: str | Path, *, durable: bool = False) -> None:
        self._path = str(path)
        self._durable = durable
        self._inherited: list[sqlite3.Connection] = []
        self._open()

    def _open(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._waiting: deque[_Job] = deque()
        self._connection = _connect(self._path, durable=self._durable)
        self._tables = SqliteTables(self._connection)

    def within(self, law: Callable[[Tables], T]) -> T:
        """Run a law in a transaction, with those of other threads."""
        if os.getpid() != self._process:
            # A fork must neither use its parent's connection nor close it.
            self._inherited.append(self._connection)
            self._open()
        job = _Job(law)
        self._waiting.append(job)
        with self._lock:
            if not job.done:
                self._lead()
        if job.error is not None:
            raise job.error
        return job.result

    def _lead(self) -> None:
        jobs = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH))]
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                before = connection.total_changes
                try:
                    job.result = job.law(self._tables)
                except Exception as error:
                    # A law looks before it writes. If one wrote and then failed, something is
                    # broken, and nothing of the batch may stay.
                    if connection.total_changes != before:
                        raise
                    job.error = error
            connection.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            for job in jobs:
                job.error = _named(error, self._path)
        for job in jobs:
            job.done = True

    def accounts(self, now: float) -> list[Account]:
        """All accounts, as they stand now."""
        return self.within(lambda tables: _rolled(self._tables, max(now, tables.clock())))

    def audit(self) -> tuple[list[Account], Iterator[Entry]]:
        """Accounts as they stood after the last entry, and all entries up to it."""

        def law(tables: Tables) -> tuple[list[Account], int]:
            return _rolled(self._tables, tables.clock()), self._tables.last()

        accounts, last = self.within(law)
        return accounts, _entries(self._path, last)

    def shut(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def _rolled(tables: SqliteTables, now: float) -> list[Account]:
    found = tables.every()
    for own in found:
        own.roll(now)
    return found


def _named(error: BaseException, path: str) -> BaseException:
    if not isinstance(error, sqlite3.Error):
        return error
    return FileError(
        need="a budget's file that can be written to",
        got=f"{path}: {error}",
        hint="nothing was reserved or spent by this; is the disc full, or the file in use?",
    )


def _connect(path: str, *, durable: bool) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False
        )
        prepare(connection, path, STAMP, TABLES)  # first: what is something else is left alone
        keep_log(connection)
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
    except sqlite3.Error as error:
        raise FileError(
            need="a budget's file, or a place to make one",
            got=f"{path}: {error}",
            hint='Budget.open("team.db", cap=usd(50)) makes one in a folder that exists',
        ) from error
    return connection


def _entries(path: str, last: int) -> Iterator[Entry]:
    connection = sqlite3.connect(path, timeout=PATIENCE_S)
    try:
        yield from SqliteTables(connection).entries(last)
    finally:
        connection.close()
