"""Budgets of one process, kept in memory: for tests, and for programs that end with their work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from weft.tokens.budgets.records import Account, Entry, Hold
from weft.tokens.budgets.store import LawfulStore
from weft.tokens.budgets.tables import Tables
from weft.tokens.budgets.window import Window

__all__ = ["MemoryStore"]

T = TypeVar("T")


class MemoryStore(LawfulStore):
    """The laws on dictionaries, one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables = _MemoryTables()

    def within(self, law: Callable[[Tables], T]) -> T:
        """Run a law alone."""
        with self._lock:
            return law(self._tables)

    def accounts(self, now: float) -> list[Account]:
        """All accounts, as they stand now."""
        with self._lock:
            found = list(map(_copy, self._tables.every))
            now = max(now, self._tables.clock())
        for own in found:
            own.roll(now)
        return found

    def audit(self) -> tuple[list[Account], Iterator[Entry]]:
        """Accounts as they stood after the last entry, and all entries up to it."""
        with self._lock:
            last, entries = self._tables.clock(), list(self._tables.entries)
        return self.accounts(last), iter(entries)

    def shut(self) -> None:
        """Nothing is open."""


class _MemoryTables:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._nodes: dict[str, dict[tuple[str, Window], Account]] = {}
        self._holds: dict[str, Hold] = {}
        self._keys: dict[str, Hold] = {}

    @property
    def every(self) -> list[Account]:
        return [own for each in self._nodes.values() for own in each.values()]

    def clock(self) -> float:
        return self.entries[-1].at if self.entries else 0.0

    def accounts(self, paths: Sequence[str]) -> list[Account]:
        # Copies: a law may change what it reads, and refuse.
        return [_copy(own) for path in paths for own in self._nodes.get(path, {}).values()]

    def save(self, account: Account) -> None:
        self._nodes.setdefault(account.node, {})[account.unit, account.window] = account

    def hold(self, handle: str) -> Hold | None:
        return self._holds.get(handle)

    def keyed(self, key: str) -> Hold | None:
        return self._keys.get(key)

    def put(self, hold: Hold, *, new: bool) -> None:
        self._holds[hold.id] = hold
        if new and hold.key:
            self._keys[hold.key] = hold

    def drop(self, handle: str) -> None:
        del self._holds[handle]

    def expired(self, now: float) -> list[Hold]:
        return [own for own in self._holds.values() if own.presumed is None and own.until <= now]

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)


def _copy(own: Account) -> Account:
    return replace(own, slices=own.slices.copy())
