"""The ledger as the proxy writes it: many calls at once, and what is not believed kept aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from weft.tokens.call import Call
from weft.tokens.ledger import Bad, Ledger, Progress
from weft.tokens.ledger.schema import call_row

__all__ = ["Booked", "Booking"]

Booked: TypeAlias = tuple[Call, tuple[str, str] | None]
"""A call, and why its report was not believed and what it says."""


class Booking:
    """See the module; all of it in one thread, which SQLite asks for.

    Args:
        path: of the ledger.
        place: under which it counts what was booked, as it does for files that it read.
        durable: whether each commit waits for the disc.
    """

    def __init__(self, path: str | Path, place: str, *, durable: bool = False) -> None:
        self._path, self._place, self._durable = path, place, durable
        self._ledger: Ledger | None = None
        self._progress = Progress(path=place, head="", head_bytes=0)

    def open(self) -> None:
        """Open the ledger.

        Raises:
            FileError: it is none.
        """
        self._ledger = Ledger(self._path)
        if self._durable:
            self._ledger.connection.execute("PRAGMA synchronous=FULL")
        self._progress = self._ledger.progress(self._place) or self._progress

    def book(self, calls: Sequence[Booked], *, again: bool = False) -> None:
        """Write calls.

        Args:
            calls: what to write.
            again: whether some may be there already, and are then left out.

        Raises:
            sqlite3.Error: they cannot be written; none is.
        """
        assert self._ledger is not None
        if again:
            calls = [own for own in calls if not self._has(own[0])]
        if not calls:
            return
        before, count = self._progress, len(calls)
        bad = [
            Bad(path=self._place, line=before.line + place, reason=lie[0], record=lie[1])
            for place, (_, lie) in enumerate(calls, 1)
            if lie is not None
        ]
        after = replace(before, line=before.line + count, records=before.records + count)
        rows = [call_row(call) for call, _ in calls]
        self._progress = self._ledger.write_batch(rows, bad, after)

    def _has(self, call: Call) -> bool:
        assert self._ledger is not None
        found = self._ledger.connection.execute(
            "SELECT 1 FROM calls WHERE source = ? AND id = ?", (call.source, call.id)
        )
        return found.fetchone() is not None

    def close(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            self._ledger.close()
