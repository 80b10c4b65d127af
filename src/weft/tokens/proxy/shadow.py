"""The live price of a budget: how far spending runs ahead of its window.

It is 1 while what is left of a window lasts for the calls that are still expected in it, each at
its usual cost, and rises where calls cost more than their share, by dual mirror descent
(`weft.tokens.allocate.pacing`). A call is worth making as long as what it brings for a dollar is at
least this price times what calls usually bring; at 2, only calls of twice the usual value are.

A cap without a window has no price: nobody knows how many calls it has to last for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from weft.tokens.allocate.pacing import LARGEST_JUMP
from weft.tokens.budgets.records import Account
from weft.tokens.money import Money
from weft.tokens.proxy.problems import window_left

__all__ = ["ShadowPrices"]

MEMORY_S = 600.0
"""Over what time calls are counted to tell how many are to come [s]. Chosen: ten minutes."""
RANGE = (1e-3, 1e3)
"""Prices are kept within. Chosen: so that one that ran away comes back."""


@dataclass(slots=True)
class _Track:
    start: float
    at: float
    calls: float = 0.0
    price: float = 1.0

    def rate(self, now: float) -> float:
        """Calls a second, one more among them; older ones count less."""
        self.calls = self.calls * math.exp(-(now - self.at) / MEMORY_S) + 1.0
        self.at = now
        # At least a second, or the first calls would count as a flood.
        seen_s = MEMORY_S * -math.expm1(-max(now - self.start, 1.0) / MEMORY_S)
        return self.calls / seen_s


class ShadowPrices:
    """Prices of all caps that have a window."""

    def __init__(self) -> None:
        self._tracks: dict[tuple[str, str, str], _Track] = {}

    def settled(self, accounts: Sequence[Account], spent: Sequence[Money], now: float) -> None:
        """Take in that a call was paid for.

        Args:
            accounts: of those who paid, after it.
            spent: by unit.
            now: the time [s since 1970].
        """
        nano = {own.currency: own.nano for own in spent}
        for own in accounts:
            remaining_s = window_left(own.window, now)
            if remaining_s and own.unit in nano:
                track = self._tracks.setdefault(_name(own), _Track(start=now, at=now))
                track.price = _next(track, own, nano[own.unit], remaining_s, now)

    def price(self, accounts: Sequence[Account]) -> float | None:
        """The highest of those who pay; None where none has a window."""
        found = [
            self._tracks[name].price if (name := _name(own)) in self._tracks else 1.0
            for own in accounts
            if own.window.kind != "none"
        ]
        return max(found, default=None)


def _name(own: Account) -> tuple[str, str, str]:
    return own.node, own.unit, str(own.window)


def _next(track: _Track, own: Account, nano: int, remaining_s: float, now: float) -> float:
    expected = max(1, round(track.rate(now) * remaining_s))
    left = max(0, own.cap - own.spent + nano)
    # What `pace_update` does, in floats: for each cap of each call, amounts would take half of it.
    off = min(nano, left) * expected / left - 1.0 if left else 1.0
    jump = min(max(off / math.sqrt(expected), -LARGEST_JUMP), LARGEST_JUMP)
    return min(max(track.price * math.exp(jump), RANGE[0]), RANGE[1])
