"""Where budgets are kept: what every back end does, and those that run the laws in Python."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from weft.tokens.budgets import laws
from weft.tokens.budgets.node import Amounts, Cap
from weft.tokens.budgets.records import Account, Entry, Hold, Kind
from weft.tokens.budgets.tables import Tables

__all__ = ["Ended", "LawfulStore", "Store"]

T = TypeVar("T")
Ended = tuple[Hold, dict[str, int], tuple[str, ...]]
"""A hold that ended, what was spent, and overruns in words."""


class Store(Protocol):
    """The laws of `weft.tokens.budgets.laws`, each in one transaction; errors are theirs."""

    def define(self, path: str, caps: Sequence[Cap], now: float) -> None:
        """Add a node."""
        ...

    def raise_cap(self, path: str, cap: Cap, now: float) -> None:
        """Change a cap."""
        ...

    def reserve(self, hold: Hold, most: Amounts, now: float) -> Hold:
        """Reserve, or delegate."""
        ...

    def extend(self, handle: str, more: Amounts, now: float) -> Hold:
        """Hold more."""
        ...

    def settle(self, handle: str, actual: Amounts | None, now: float) -> Ended:
        """Spend; None gives everything back."""
        ...

    def close_node(self, path: str, now: float) -> Ended:
        """End a delegation."""
        ...

    def renew(self, handles: Sequence[str], until: float) -> None:
        """Put off the end of leases."""
        ...

    def recover(self, now: float, *, give_back: bool) -> list[tuple[Hold, Kind]]:
        """See to holds that were left behind."""
        ...

    def accounts(self, now: float) -> list[Account]:
        """All accounts, as they stand now."""
        ...

    def audit(self) -> tuple[list[Account], Iterator[Entry]]:
        """Accounts as they stood after the last entry, and all entries up to it."""
        ...

    def shut(self) -> None:
        """Close files and connections."""
        ...


class LawfulStore(ABC):
    """A store whose tables are Python's to read and write."""

    @abstractmethod
    def within(self, law: Callable[[Tables], T]) -> T:
        """Run a law alone, and keep what it wrote unless it raised."""

    def define(self, path: str, caps: Sequence[Cap], now: float) -> None:
        """Add a node."""
        self.within(lambda tables: laws.define(tables, path, caps, now))

    def raise_cap(self, path: str, cap: Cap, now: float) -> None:
        """Change a cap."""
        self.within(lambda tables: laws.raise_cap(tables, path, cap, now))

    def reserve(self, hold: Hold, most: Amounts, now: float) -> Hold:
        """Reserve, or delegate."""
        return self.within(lambda tables: laws.reserve(tables, hold, most, now))

    def extend(self, handle: str, more: Amounts, now: float) -> Hold:
        """Hold more."""
        return self.within(lambda tables: laws.extend(tables, handle, more, now))

    def settle(self, handle: str, actual: Amounts | None, now: float) -> Ended:
        """Spend; None gives everything back."""
        kind = Kind.RELEASE if actual is None else Kind.SETTLE
        return self.within(lambda tables: laws.settle(tables, handle, actual, now, kind))

    def close_node(self, path: str, now: float) -> Ended:
        """End a delegation."""
        return self.within(lambda tables: laws.close(tables, path, now))

    def renew(self, handles: Sequence[str], until: float) -> None:
        """Put off the end of leases."""
        self.within(lambda tables: laws.renew(tables, handles, until))

    def recover(self, now: float, *, give_back: bool) -> list[tuple[Hold, Kind]]:
        """See to holds that were left behind."""
        return self.within(lambda tables: laws.recover(tables, now, give_back=give_back))
