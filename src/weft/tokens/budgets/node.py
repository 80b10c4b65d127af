"""Nodes of a tree of budgets, by their paths, and the caps on them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from weft.core.errors import InputError
from weft.tokens.budgets.window import ALWAYS, Window, parse_window
from weft.tokens.money import Money

__all__ = [
    "CALLS",
    "MOST_NANO",
    "ROOT",
    "Amounts",
    "Cap",
    "amounts_of",
    "check_path",
    "lineage",
    "shown",
    "told",
]

ROOT = ""
"""Path of the node that all others are below."""
CALLS = "calls"
"""Unit of which each reservation takes one where it does not say otherwise."""
MOST_NANO = 2**62
"""Largest cap. Derived: sums of two stay within the whole numbers of SQLite and Redis."""

Amounts: TypeAlias = Mapping[str, int]
"""Billionths by unit."""

_NAME = re.compile(r"[A-Za-z0-9_.:@*+-]{1,200}")


@dataclass(frozen=True, slots=True)
class Cap:
    """At most so much within a window.

    Attributes:
        most: amount of a currency, "tokens" or "calls".
        window: over which time.

    Raises:
        InputError: it is negative, or more than databases hold.
    """

    most: Money
    window: Window = ALWAYS

    def __post_init__(self) -> None:
        if not 0 <= self.most.nano <= MOST_NANO:
            raise InputError(
                need=f"a cap from 0 to {Money(MOST_NANO, self.most.currency)}",
                got=f"{self.most}",
                hint="leave the cap out where nothing limits a node but those above it",
            )

    @staticmethod
    def of(most: Money | Cap, window: str | int = "none") -> Cap:
        """A cap, its window read from text."""
        return most if isinstance(most, Cap) else Cap(most, parse_window(window))

    def __repr__(self) -> str:
        return str(self.most) if self.window == ALWAYS else f"{self.most} {self.window}"


def check_path(path: str) -> str:
    """The path, if it is one: names between slashes; empty for the root.

    Raises:
        InputError: a name is empty or has other characters than letters, digits and _.:@*+-.

    Example:
        >>> check_path("team/coder/fix-17")
        'team/coder/fix-17'
    """
    if path and not all(_NAME.fullmatch(name) for name in path.split("/")):
        raise InputError(
            need="a path of names between slashes, such as team/coder/fix-17",
            got=repr(path),
            hint="names are made of letters, digits and _ . : @ * + -",
        )
    return path


def lineage(path: str) -> list[str]:
    """A node's path and those above it, the root first.

    Example:
        >>> lineage("team/coder")
        ['', 'team', 'team/coder']
    """
    names = path.split("/") if path else []
    return ["/".join(names[:depth]) for depth in range(len(names) + 1)]


def shown(path: str) -> str:
    """A path for people."""
    return path or "the whole budget"


def amounts_of(amount: Money | Sequence[Money]) -> Amounts:
    """Amounts by unit.

    Raises:
        InputError: there is none, one is negative or too large, or two are of the same unit.

    Example:
        >>> from weft.tokens import NANO, usd
        >>> dict(amounts_of((usd(1), Money(500 * NANO, "tokens"))))
        {'usd': 1000000000, 'tokens': 500000000000}
    """
    each = (amount,) if isinstance(amount, Money) else tuple(amount)
    found = {own.currency: own.nano for own in each}
    if not each or len(found) < len(each) or not all(0 <= n <= MOST_NANO for n in found.values()):
        raise InputError(
            need="amounts of at least 0, one of each unit",
            got=", ".join(map(str, each)) or "none",
            hint='reserve("coder", usd("0.02")), or (usd("0.02"), Money(4096 * NANO, "tokens"))',
        )
    return MappingProxyType(found)


def told(amounts: Amounts) -> str:
    """Amounts for people."""
    return " and ".join(str(Money(nano, unit)) for unit, nano in amounts.items())
