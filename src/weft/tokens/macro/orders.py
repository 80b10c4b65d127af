"""In which order those who wait are served."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Protocol

from weft.tokens.macro.counters import INPUT_WEIGHT, OUTPUT_WEIGHT, Counters

__all__ = ["CounterOrder", "FifoOrder", "Order"]


class Order(Protocol):
    """Whose turn it is, among requests by number."""

    def add(self, request: int, path: tuple[str, ...]) -> None:
        """A request waits; `path` is its payer, and the identity that it came from."""
        ...

    def next(self) -> int:
        """Whose turn it is; somebody waits."""
        ...

    def take(self, request: int, path: tuple[str, ...], prompt: float) -> None:
        """The one whose turn it is starts, with a prompt of so many tokens."""
        ...

    def served(self, path: tuple[str, ...], tokens: int) -> None:
        """Tokens of answers were generated."""
        ...


class FifoOrder:
    """First come, first served."""

    def __init__(self) -> None:
        self._line: deque[int] = deque()

    def add(self, request: int, path: tuple[str, ...]) -> None:
        """A request waits."""
        self._line.append(request)

    def next(self) -> int:
        """Who waits longest."""
        return self._line[0]

    def take(self, request: int, path: tuple[str, ...], prompt: float) -> None:
        """It starts."""
        self._line.popleft()

    def served(self, path: tuple[str, ...], tokens: int) -> None:
        """Nothing is counted."""


class CounterOrder:
    """The least served of those who wait.

    Args:
        by_payer: shares belong to payers, and to identities within; else to identities alone, which
            is the virtual token counter.
        weights: of payers, or identities.
    """

    def __init__(self, *, by_payer: bool, weights: Mapping[str, float] | None = None) -> None:
        self._depth = slice(0, 2) if by_payer else slice(1, 2)
        self._counters = Counters({(name,): own for name, own in (weights or {}).items()})
        self._lines: dict[tuple[str, ...], deque[int]] = {}

    def add(self, request: int, path: tuple[str, ...]) -> None:
        """A request waits."""
        own = path[self._depth]
        self._lines.setdefault(own, deque()).append(request)
        self._counters.arrive(own)

    def next(self) -> int:
        """The oldest request of who was served least."""
        return self._lines[self._counters.next()][0]

    def take(self, request: int, path: tuple[str, ...], prompt: float) -> None:
        """It starts, and its prompt counts."""
        own = path[self._depth]
        self._lines[own].popleft()
        self._counters.start(own)
        self._counters.charge(own, INPUT_WEIGHT * prompt)

    def served(self, path: tuple[str, ...], tokens: int) -> None:
        """Tokens of answers count as they come."""
        self._counters.charge(path[self._depth], OUTPUT_WEIGHT * tokens)
