"""Tables of budgets, remembered between transactions, and written once at the end of each.

Accounts and open holds are read once and remembered, as long as no other process writes to the
file: SQLite tells. What a transaction changes is written at its end, once, whatever number of
operations changed it.

Source: SQLite documentation, "PRAGMA data_version".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from weft.tokens.budgets.records import Account, Entry, Hold
from weft.tokens.budgets.rows import SqliteTables

__all__ = ["Remembered"]


class Remembered:
    """Tables as laws see them, see `weft.tokens.budgets.tables`.

    Args:
        tables: what lies in the file.
        connection: to it.
    """

    def __init__(self, tables: SqliteTables, connection: sqlite3.Connection) -> None:
        self._tables = tables
        self._connection = connection
        self._version: int = -1
        self.is_stale = True
        """Whether what is remembered may differ from the file, as after a failure."""
        self.changes = 0
        """That are not written yet."""
        self._forget()

    def begin(self) -> None:
        """A transaction has begun: see whether what is remembered still holds."""
        version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version or self.is_stale:
            self._forget()
            self._version, self.is_stale = version, False

    def _forget(self) -> None:
        self._accounts: dict[str, list[Account]] = {}
        self._holds: dict[str, Hold] = {}
        self._clock: float | None = None
        self._saved: dict[tuple[str, str, str], Account] = {}
        self._put: dict[str, Hold] = {}
        self._dropped: set[str] = set()
        self._entries: list[Entry] = []
        self.changes = 0

    def flush(self) -> None:
        """Write what changed."""
        if not self.changes:
            return
        for account in self._saved.values():
            self._tables.save(account)
        self._flush_holds()
        for entry in self._entries:
            self._tables.append(entry)
        self._saved, self._entries = {}, []
        self.changes = 0

    def _flush_holds(self) -> None:
        for hold in self._put.values():
            self._tables.put(hold, new=False)
        for handle in self._dropped:
            self._tables.drop(handle)
        self._put, self._dropped = {}, set()

    def clock(self) -> float:
        """Time of the last entry."""
        if self._clock is None:
            self._clock = self._tables.clock()
        return self._clock

    def accounts(self, paths: Sequence[str]) -> list[Account]:
        """Accounts of these nodes."""
        # Copies: a law may change what it reads, and refuse.
        return [_copy(own) for own in self._known(paths)]

    def seen(self, paths: Sequence[str], now: float) -> list[Account]:
        """Accounts of these nodes as they stand now, to be looked at and not to be changed."""
        found = self._known(paths)
        for place, own in enumerate(found):
            if own.slices and min(own.slices) < own.window.first(now):
                found[place] = _copy(own)
                found[place].roll(now)
        return found

    def _known(self, paths: Sequence[str]) -> list[Account]:
        known = self._accounts
        missing = [path for path in paths if path not in known]
        if missing:
            known |= {path: [] for path in missing}
            for own in self._tables.accounts(missing):
                known[own.node].append(own)
        return [own for path in paths for own in known[path]]

    def every(self) -> list[Account]:
        """All accounts."""
        self.flush()
        return self._tables.every()

    def save(self, account: Account) -> None:
        """Write one back, or add it."""
        self.changes += 1
        unit, window = account.unit, account.window
        self._saved[account.node, unit, str(window)] = account
        own = self._accounts[account.node]
        for place, there in enumerate(own):
            if there.unit == unit and there.window == window:
                own[place] = account
                return
        own.append(account)

    def hold(self, handle: str) -> Hold | None:
        """One that is open or presumed."""
        if handle in self._dropped:
            return None
        found = self._holds.get(handle)
        return self._tables.hold(handle) if found is None else found

    def keyed(self, key: str) -> Hold | None:
        """What was first reserved under a key."""
        return self._tables.keyed(key)

    def put(self, hold: Hold, *, new: bool) -> None:
        """Add one, or write it back."""
        self.changes += 1
        self._holds[hold.id] = hold
        if new and hold.key:
            self._tables.put(hold, new=True)
        else:
            self._put[hold.id] = hold

    def drop(self, handle: str) -> None:
        """Forget one that was settled."""
        self.changes += 1
        self._holds.pop(handle, None)
        self._put.pop(handle, None)
        self._dropped.add(handle)

    def expired(self, now: float) -> list[Hold]:
        """Open ones whose leases ended."""
        self._flush_holds()
        return self._tables.expired(now)

    def append(self, entry: Entry) -> None:
        """Add a line to the log."""
        self.changes += 1
        self._clock = entry.at
        self._entries.append(entry)


def _copy(own: Account) -> Account:
    # What `replace` does, without looking up what the fields are.
    return Account(
        node=own.node,
        unit=own.unit,
        window=own.window,
        cap=own.cap,
        held=own.held,
        spent=own.spent,
        flying=own.flying,
        slices=own.slices.copy(),
        carve=own.carve,
        closed=own.closed,
    )
