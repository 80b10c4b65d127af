"""The live page: where budgets stand, and how quickly they burn."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from typing import Any

from weft.tokens.budgets.node import shown
from weft.tokens.budgets.records import Account, Standing
from weft.tokens.money import Money
from weft.tokens.proxy.exchange import House

__all__ = ["Burn", "page", "state"]

KEPT = 300
"""Points of a curve, one a second. Chosen: five minutes."""
_FILE = "live.html"
_MARK = "/* style */"


class Burn:
    """What was spent of each cap, second by second."""

    def __init__(self) -> None:
        self._points: dict[tuple[str, str, str], deque[tuple[float, int]]] = {}

    def add(self, standings: Sequence[Standing]) -> None:
        """Take down where caps stand now."""
        now = time.time()
        for own in standings:
            points = self._points.setdefault(_name(own), deque(maxlen=KEPT))
            points.append((now, own.spent.nano))

    def rates(self, own: Standing) -> list[float]:
        """Spent in each second, of the last ones [units per second]."""
        points = list(self._points.get(_name(own), ()))
        return [
            max(0.0, (after - before) / 1e9 / max(end - start, 1e-3))
            for (start, before), (end, after) in pairwise(points)
        ]


def page(style: str) -> str:
    """The page, with the house's colours."""
    text = resources.files("weft.tokens.proxy").joinpath(_FILE).read_text()
    return text.replace(_MARK, style, 1)


def state(house: House, standings: Sequence[Standing], burn: Burn) -> dict[str, Any]:
    """What the page shows."""
    trouble = house.desk.trouble
    return {
        "at": time.time(),
        "upstream": house.settings.base,
        "trouble": trouble,
        "flying": house.metrics.flying,
        "totals": house.metrics.totals(),
        "caps": [_cap(house, own, burn) for own in standings if _is_shown(own)],
    }


def _cap(house: House, own: Standing, burn: Burn) -> dict[str, Any]:
    rates = burn.rates(own)
    account = Account(
        node=own.node, unit=own.cap.most.currency, window=own.cap.window, cap=own.cap.most.nano
    )
    recent = rates[-60:]
    mean = sum(recent) / len(recent) if recent else 0.0
    left = own.left.nano / 1e9
    return {
        "node": shown(own.node),
        "unit": own.cap.most.currency,
        "window": "" if own.cap.window.kind == "none" else str(own.cap.window),
        "cap": str(own.cap.most),
        "spent": str(own.spent),
        "held": str(own.held),
        "left": str(Money(own.left.nano, own.left.currency)),
        "share_spent": _share(own.spent, own.cap.most),
        "share_held": _share(own.held, own.cap.most),
        "flying": own.flying,
        "price": house.shadow.price([account]),
        "rates": rates,
        "rate": mean,
        "lasts_s": left / mean if mean > 0.0 and left > 0.0 else None,
    }


def _is_shown(own: Standing) -> bool:
    # What stands for any name is no node that anyone spends from.
    return not own.closed and own.node.rpartition("/")[2] != "*"


def _share(part: Money, whole: Money) -> float:
    return min(1.0, part.nano / whole.nano) if whole.nano else 1.0


def _name(own: Standing) -> tuple[str, str, str]:
    return own.node, own.cap.most.currency, str(own.cap.window)
