"""Budgets in SQLite for one who has many operations at once: in one transaction, and remembered."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from weft.core.errors import FileError, WeftError
from weft.tokens.budgets.records import Account
from weft.tokens.budgets.refusal import BudgetError
from weft.tokens.budgets.sqlite import PATIENCE_S, SqliteStore
from weft.tokens.budgets.tables import Tables
from weft.tokens.proxy.remembered import Remembered

__all__ = ["BusyError", "GroupedStore"]

T = TypeVar("T")

WAL_PAGES = 16_384
"""Pages of the journal from which on nobody may write until they are written back. Chosen: 64 MiB,
which under full load is every few seconds."""


class BusyError(Exception):
    """Another thread or process is at the file, and nobody waits."""


class GroupedStore(SqliteStore):
    """The laws on a file; within `group`, the calling thread's are of one transaction.

    What a law refuses within a group has changed nothing, and the group goes on. If anything else
    goes wrong, nothing of the group stays. The journal is written back by `checkpoint`, so that no
    group has to wait for the disc.
    """

    def _open(self) -> None:
        super()._open()
        self._connection.execute("PRAGMA wal_autocheckpoint=0")
        self._memory = Remembered(self._tables, self._connection)
        self._owner = 0
        self._patience_s = PATIENCE_S
        self._second: sqlite3.Connection | None = None

    def within(self, law: Callable[[Tables], T]) -> T:
        """Run a law in the group's transaction, or in one of its own."""
        if threading.get_ident() == self._owner:
            return law(self._memory)
        memory = self._memory

        def all_of_it(_: Tables) -> T:
            self._wait(PATIENCE_S)
            memory.begin()
            try:
                found = law(memory)
                memory.flush()
            except BaseException:
                # What it has not written yet must not be written by the next.
                memory.is_stale = memory.is_stale or memory.changes > 0
                raise
            return found

        try:
            return super().within(all_of_it)
        except BudgetError:
            raise
        except BaseException:
            memory.is_stale = True
            raise

    def group(self, work: Sequence[Callable[[], T]], *, waits: bool) -> list[T | WeftError]:
        """Do all of some work in one transaction, which is committed when this returns.

        Args:
            work: each does something with this store.
            waits: whether to wait for others.

        Returns:
            What each returned, or how it was refused.

        Raises:
            BusyError: others are at work, and it does not wait; nothing was done.
            FileError: the file cannot be written to; nothing was done.
            Exception: one failed in another way; nothing of any of them has happened.
        """
        if not self._lock.acquire(blocking=waits):
            raise BusyError
        execute = self._connection.execute
        try:
            self._wait(PATIENCE_S if waits else 0.0)
            self._begin(waits)
            self._memory.begin()
            self._owner = threading.get_ident()
            found = [self._done(one) for one in work]
            self._memory.flush()
            execute("COMMIT")
        except BusyError:
            raise
        except BaseException as error:
            self._memory.is_stale = True
            with suppress(sqlite3.Error):
                execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise FileError(
                    need="a budget's file that can be written to",
                    got=f"{self._path}: {error}",
                    hint="nothing was reserved or spent by this; is the disc full?",
                ) from error
            raise
        finally:
            self._owner = 0
            self._lock.release()
        return found

    def _begin(self, waits: bool) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not waits and error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise BusyError from error
            raise

    def _wait(self, seconds: float) -> None:
        """How long to wait for other processes, from now on."""
        if seconds != self._patience_s:
            self._connection.execute(f"PRAGMA busy_timeout={round(1000 * seconds)}")
            self._patience_s = seconds

    def _done(self, one: Callable[[], T]) -> T | WeftError:
        before = self._memory.changes
        try:
            return one()
        except WeftError as error:
            # A law looks before it writes. If one wrote and then failed, something is broken.
            if self._memory.changes != before:
                raise RuntimeError("a law wrote and then refused") from error
            return error

    def checkpoint(self) -> None:
        """Write the journal back; call it now and then, in a thread that may wait for the disc."""
        if self._second is None:
            self._second = sqlite3.connect(
                self._path, timeout=0.1, isolation_level=None, check_same_thread=False
            )
        execute = self._second.execute
        _, pages, _ = execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if pages > WAL_PAGES:
            # Under full load, something is always new: once, nobody may write.
            with self._lock:
                execute("PRAGMA wal_checkpoint(RESTART)").fetchone()

    def some_accounts(self, paths: Sequence[str], now: float) -> list[Account]:
        """Accounts of some nodes as they stand now, to be looked at and not to be changed."""
        return self.within(lambda _: self._memory.seen(paths, now))

    def accounts(self, now: float) -> list[Account]:
        """All accounts, as they stand now."""

        def law(tables: Tables) -> tuple[list[Account], float]:
            return self._memory.every(), tables.clock()

        found, last = self.within(law)
        now = max(now, last)
        for own in found:
            own.roll(now)
        return found

    def shut(self) -> None:
        """Close the file."""
        if self._second is not None:
            self._second.close()
        super().shut()
