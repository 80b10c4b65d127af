"""What the laws of budgets read and write, within one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from weft.tokens.budgets.records import Account, Entry, Hold

__all__ = ["Tables"]


class Tables(Protocol):
    """State of a tree of budgets. What a law writes appears whole or not at all."""

    def clock(self) -> float:
        """Time of the last entry [s since 1970]; 0 before the first."""
        ...

    def accounts(self, paths: Sequence[str]) -> list[Account]:
        """Accounts of these nodes, in the order of the paths."""
        ...

    def save(self, account: Account) -> None:
        """Write one back, or add it."""
        ...

    def hold(self, handle: str) -> Hold | None:
        """One that is open or presumed."""
        ...

    def keyed(self, key: str) -> Hold | None:
        """What was first reserved under a key, settled or not."""
        ...

    def put(self, hold: Hold, *, new: bool) -> None:
        """Add one, or write it back."""
        ...

    def drop(self, handle: str) -> None:
        """Forget one that was settled; its key is kept."""
        ...

    def expired(self, now: float) -> list[Hold]:
        """Open ones whose leases ended."""
        ...

    def append(self, entry: Entry) -> None:
        """Add a line to the log."""
        ...
