"""Ways to share a server: whom to let in, at what price, and whose turn it is.

- `Free`: everybody, for nothing, in the order of arrival, or by counters of identities (the virtual
  token counter) or of payers.
- `EqualShare`: everybody up to an equal share of the server, as limits of tokens per minute do it;
  what goes beyond is refused.
- `PostedToll`: a price of each request that stands, such as the toll of the average load.
- `AdaptiveToll`: a price that follows what is measured: how many are there, averaged over a window,
  and what a second of delay costs those who came. The toll is that of the load at which the server
  would be as full all the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from weft.tokens.macro.engine import Engine
from weft.tokens.macro.orders import FifoOrder, Order
from weft.tokens.micro.estimate import Floats

__all__ = [
    "AdaptiveToll",
    "EqualShare",
    "Free",
    "Mechanism",
    "PostedToll",
]


class Mechanism(Protocol):
    """What a server does about those who want it."""

    @property
    def order(self) -> Order:
        """Whose turn it is."""
        ...

    @property
    def turns(self) -> Mapping[str, float] | None:
        """How many turns each payer has to those of others; None where all wait in one line."""
        ...

    def price(self, request: int, payer: str, work_s: float, engine: Engine) -> float:
        """What a request that comes now would pay; infinite where it is refused [usd]."""
        ...

    def sent(self, payer: str, work_s: float, delay_usd_per_s: float, engine: Engine) -> None:
        """It was sent at that price."""
        ...


class Free:
    """Nothing is charged and nobody refused.

    Args:
        order: whose turn it is; first come, first served if None.
        turns: of each payer, with an order that gives them.
    """

    def __init__(
        self, order: Order | None = None, turns: Mapping[str, float] | None = None
    ) -> None:
        self.order: Order = order if order is not None else FifoOrder()
        self.turns = turns

    def price(self, request: int, payer: str, work_s: float, engine: Engine) -> float:
        """Nothing."""
        return 0.0

    def sent(self, payer: str, work_s: float, delay_usd_per_s: float, engine: Engine) -> None:
        """Nothing is kept."""


class EqualShare(Free):
    """Each payer up to an equal part of the server; a bucket of seconds that fills at that rate.

    Args:
        payers: how many there are.
        burst_s: seconds for which an unused part is kept [s].
    """

    def __init__(self, payers: int, burst_s: float = 60.0) -> None:
        super().__init__()
        self._rate, self._most = 1.0 / payers, burst_s / payers
        self._left: dict[str, tuple[float, float]] = {}

    def price(self, request: int, payer: str, work_s: float, engine: Engine) -> float:
        """Nothing, or more than anybody has."""
        return 0.0 if self._there(payer, engine.now) >= work_s else math.inf

    def sent(self, payer: str, work_s: float, delay_usd_per_s: float, engine: Engine) -> None:
        """It is taken from the part."""
        self._left[payer] = (self._there(payer, engine.now) - work_s, engine.now)

    def _there(self, payer: str, now: float) -> float:
        left, since = self._left.get(payer, (self._most, now))
        return min(self._most, left + self._rate * (now - since))


class PostedToll(Free):
    """A price for each request, known beforehand.

    Args:
        prices_usd: by number of the request [requests] [usd].
    """

    def __init__(self, prices_usd: Floats) -> None:
        super().__init__()
        self._prices = prices_usd

    def price(self, request: int, payer: str, work_s: float, engine: Engine) -> float:
        """As posted."""
        return float(self._prices[request])


class AdaptiveToll(Free):
    """A price by the second of work that follows how full the server is.

    Args:
        present: requests that are there on average, at rising loads [loads].
        tolls_s: what a second of work then costs others, in seconds of delay [loads].
        window_s: older moments weigh less by e every so long [s].
    """

    def __init__(self, present: Floats, tolls_s: Floats, window_s: float) -> None:
        super().__init__()
        self._present, self._tolls, self._window = present, tolls_s, window_s
        self._now = self._area = self._full = 0.0
        self._cost = self._work = 0.0

    def price(self, request: int, payer: str, work_s: float, engine: Engine) -> float:
        """Work at the price of now."""
        passed = engine.now - self._now
        if passed > 0.0:
            kept = math.exp(-passed / self._window)
            self._full = kept * self._full + (1.0 - kept) * (engine.area - self._area) / passed
            self._cost, self._work = kept * self._cost, kept * self._work
            self._now, self._area = engine.now, engine.area
        delay_usd = self._cost / self._work if self._work else 0.0
        return work_s * delay_usd * float(np.interp(self._full, self._present, self._tolls))

    def sent(self, payer: str, work_s: float, delay_usd_per_s: float, engine: Engine) -> None:
        """Its cost of delay counts."""
        self._work += work_s
        self._cost += work_s * delay_usd_per_s
