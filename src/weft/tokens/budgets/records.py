"""What a budget keeps: accounts, holds, and entries of its log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from weft.tokens.budgets.node import Amounts, Cap
from weft.tokens.budgets.window import Window
from weft.tokens.money import Money

__all__ = ["Account", "Entry", "Handle", "Hold", "Kind", "Settled", "Standing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """Leave to spend, once.

    Attributes:
        id: names it in every process.
        node: path of the node that it was taken from.
        held: what is reserved, by unit, when it was made.
        until: when it counts as left behind, unless it is renewed [s since 1970].
    """

    id: str
    node: str
    held: tuple[Money, ...]
    until: float

    @property
    def most(self) -> Money:
        """The most that may be spent: what to hold the provider to. The first of what is held."""
        return self.held[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What came of a handle.

    Attributes:
        node: that paid.
        spent: what it cost, by unit.
        overruns: where more was spent than there was room for, in words; empty if there was room.
    """

    node: str
    spent: tuple[Money, ...]
    overruns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a cap stands.

    Attributes:
        node: path.
        cap: the cap.
        spent: within its window.
        held: reserved and not yet settled.
        flying: handles that hold it.
        closed: whether nothing can be reserved any more.
    """

    node: str
    cap: Cap
    spent: Money
    held: Money
    flying: int
    closed: bool = False

    @property
    def left(self) -> Money:
        """What can be reserved; below zero after an overrun, or where the cap was lowered."""
        return self.cap.most - self.spent - self.held


@dataclass(slots=True, kw_only=True)
class Account:
    """State of one cap, while a law changes it.

    Attributes:
        node, unit, window: which it is.
        cap, held, spent: billionths; spent is of the slices that count.
        flying: handles that hold it.
        slices: what was spent by slice of time; empty where the window is "none".
        carve: id of the hold of the parent's that pays for this node; empty if it has none.
        closed: whether its node is.
    """

    node: str
    unit: str
    window: Window
    cap: int
    held: int = 0
    spent: int = 0
    flying: int = 0
    slices: dict[int, int] = field(default_factory=dict[int, int])
    carve: str = ""
    closed: bool = False

    @property
    def left(self) -> int:
        """Billionths that can be reserved."""
        return self.cap - self.spent - self.held

    def roll(self, now: float) -> None:
        """Forget what was spent in slices that no longer count."""
        if not self.slices:
            return
        first = self.window.first(now)
        for old in [number for number in self.slices if number < first]:
            self.spent -= self.slices.pop(old)

    def spend(self, nano: int, at: float, now: float) -> None:
        """Add to what was spent at a moment, unless that no longer counts."""
        if self.window.kind == "none":
            self.spent += nano
            return
        number = self.window.slice(at)
        if number >= self.window.first(now):
            self.slices[number] = self.slices.get(number, 0) + nano
            self.spent += nano


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What is reserved under a handle.

    Attributes:
        id, node, held, until: as those of `Handle`, in billionths by unit.
        asked: the least that was asked for, by which a retried reservation is known.
        key: the caller's name for it, or empty.
        child: path of the node that it pays for; empty for a call.
        presumed: when it was settled in full for want of news [s since 1970]; None if it was not.
    """

    id: str
    node: str
    held: Amounts
    until: float
    asked: Amounts
    key: str = ""
    child: str = ""
    presumed: float | None = None


class Kind(StrEnum):
    """What an entry of the log says."""

    NODE = "node"
    """A node, or another of its caps: amounts hold the cap, the note its window."""
    CAP = "cap"
    RESERVE = "reserve"
    EXTEND = "extend"
    SETTLE = "settle"
    RELEASE = "release"
    PRESUME = "presume"
    """Settled in full, since nothing was heard of it."""
    CORRECT = "correct"
    """What a presumed one really cost."""
    CLOSE = "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the log.

    Attributes:
        at: when [s since 1970]; never before the entry above it.
        kind: what happened.
        node, handle: to which; empty where there is none.
        amounts: billionths by unit.
        note: a window, the child of a delegation, or an overrun in words.
    """

    at: float
    kind: Kind
    node: str
    handle: str = ""
    amounts: Mapping[str, int]
    note: str = ""
