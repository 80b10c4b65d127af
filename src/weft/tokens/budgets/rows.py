"""How budgets lie in SQLite: accounts, holds, keys, and a log to which lines are only added."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from weft.tokens.budgets.node import Amounts
from weft.tokens.budgets.records import Account, Entry, Hold, Kind
from weft.tokens.budgets.window import parse_window
from weft.tokens.database import Stamp

__all__ = ["STAMP", "TABLES", "SqliteTables", "hold_json", "json_hold"]

STAMP = Stamp(
    name="a file of budgets",
    application=0x77656662,  # "wefb" in ASCII
    version=1,
    hint="name another file",
)

_KEPT = "BEGIN SELECT RAISE(ABORT, 'the log is kept'); END"
TABLES = (
    """CREATE TABLE accounts (
      node TEXT NOT NULL, unit TEXT NOT NULL, window TEXT NOT NULL, cap INTEGER NOT NULL,
      held INTEGER NOT NULL, spent INTEGER NOT NULL, flying INTEGER NOT NULL, slices TEXT NOT NULL,
      carve TEXT NOT NULL, closed INTEGER NOT NULL, PRIMARY KEY (node, unit, window)
    ) WITHOUT ROWID""",
    """CREATE TABLE holds (
      id TEXT PRIMARY KEY, until REAL NOT NULL, presumed INTEGER NOT NULL, hold TEXT NOT NULL
    ) WITHOUT ROWID""",
    "CREATE TABLE keys (key TEXT PRIMARY KEY, hold TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE log (
      number INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, node TEXT NOT NULL,
      handle TEXT NOT NULL, amounts TEXT NOT NULL, note TEXT NOT NULL
    )""",
    f"CREATE TRIGGER log_stays BEFORE UPDATE ON log {_KEPT}",
    f"CREATE TRIGGER log_kept BEFORE DELETE ON log {_KEPT}",
)


class SqliteTables:
    """The tables, within a transaction that somebody else begins and ends."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def clock(self) -> float:
        """Time of the last entry."""
        row = self._execute("SELECT at FROM log ORDER BY number DESC LIMIT 1").fetchone()
        return row[0] if row else 0.0

    def last(self) -> int:
        """Number of the last entry."""
        return self._execute("SELECT coalesce(max(number), 0) FROM log").fetchone()[0]

    def accounts(self, paths: Sequence[str]) -> list[Account]:
        """Accounts of these nodes."""
        marks = ",".join("?" * len(paths))
        rows = self._execute(
            f"SELECT * FROM accounts WHERE node IN ({marks}) ORDER BY length(node)", tuple(paths)
        )
        return [_account(row) for row in rows]

    def every(self) -> list[Account]:
        """All accounts."""
        return [_account(row) for row in self._execute("SELECT * FROM accounts ORDER BY node")]

    def save(self, account: Account) -> None:
        """Write one back, or add it."""
        own = account
        slices = json.dumps(own.slices) if own.slices else ""
        self._execute(
            "INSERT OR REPLACE INTO accounts VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                *(own.node, own.unit, str(own.window), own.cap, own.held, own.spent, own.flying),
                *(slices, own.carve, own.closed),
            ),
        )

    def hold(self, handle: str) -> Hold | None:
        """One that is open or presumed."""
        row = self._execute("SELECT hold FROM holds WHERE id = ?", (handle,)).fetchone()
        return json_hold(row[0]) if row else None

    def keyed(self, key: str) -> Hold | None:
        """What was first reserved under a key."""
        row = self._execute("SELECT hold FROM keys WHERE key = ?", (key,)).fetchone()
        return json_hold(row[0]) if row else None

    def put(self, hold: Hold, *, new: bool) -> None:
        """Add one, or write it back."""
        text, presumed = hold_json(hold), hold.presumed is not None
        self._execute(
            "INSERT OR REPLACE INTO holds VALUES (?,?,?,?)", (hold.id, hold.until, presumed, text)
        )
        if new and hold.key:
            self._execute("INSERT INTO keys VALUES (?,?)", (hold.key, text))

    def drop(self, handle: str) -> None:
        """Forget one that was settled."""
        self._execute("DELETE FROM holds WHERE id = ?", (handle,))

    def expired(self, now: float) -> list[Hold]:
        """Open ones whose leases ended."""
        rows = self._execute("SELECT hold FROM holds WHERE NOT presumed AND until <= ?", (now,))
        return [json_hold(row[0]) for row in rows.fetchall()]

    def append(self, entry: Entry) -> None:
        """Add a line to the log."""
        amounts = json.dumps(dict(entry.amounts))
        self._execute(
            "INSERT INTO log VALUES (NULL,?,?,?,?,?,?)",
            (entry.at, str(entry.kind), entry.node, entry.handle, amounts, entry.note),
        )

    def entries(self, last: int) -> Iterator[Entry]:
        """Lines of the log, up to a number."""
        rows = self._execute("SELECT * FROM log WHERE number <= ? ORDER BY number", (last,))
        for _, at, kind, node, handle, amounts, note in rows:
            yield Entry(
                at=at,
                kind=Kind(kind),
                node=node,
                handle=handle,
                amounts=json.loads(amounts),
                note=note,
            )


def _account(row: Sequence[Any]) -> Account:
    node, unit, window, cap, held, spent, flying, slices, carve, closed = row
    return Account(
        node=node,
        unit=unit,
        window=parse_window(window),
        cap=cap,
        held=held,
        spent=spent,
        flying=flying,
        slices={int(number): nano for number, nano in json.loads(slices).items()} if slices else {},
        carve=carve,
        closed=bool(closed),
    )


def hold_json(hold: Hold) -> str:
    """A hold as text."""
    held: Amounts = dict(hold.held)
    asked: Amounts = dict(hold.asked)
    return json.dumps(
        [hold.id, hold.node, held, hold.until, asked, hold.key, hold.child, hold.presumed]
    )


def json_hold(text: str) -> Hold:
    """A hold from its text."""
    handle, node, held, until, asked, key, child, presumed = json.loads(text)
    return Hold(
        id=handle,
        node=node,
        held=held,
        until=until,
        asked=asked,
        key=key,
        child=child,
        presumed=presumed,
    )
