"""The toll at which everybody, looking after themselves, does what is best for all.

Requests of group j are sent as long as they are worth their price and their delay:

    V[j](rate[j]) = price[j] + cost[j] * delay[j](rates)            (equilibrium)

where V is the value of the last one. Welfare is the value of all that is sent less what delays
cost; prices move money and are no part of it. Its derivative is V - cost * delay - toll, so that

    price[j] = toll[j](rates)

makes an equilibrium of the optimum. As the toll depends on rates and these on the toll, both are a
fixed point, which is found by Newton's method on what people would send less what they do send.
Where groups differ there may be several fixed points; the best one that is found is taken.

Source: Mendelson, Communications of the ACM 1985; Mendelson and Whang, Operations Research 1990.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from weft.core.errors import InfeasibleError, InputError
from weft.tokens.macro.congestion import Server, externality
from weft.tokens.macro.demand import Demand
from weft.tokens.micro.estimate import Floats

__all__ = ["Market", "Outcome", "best_toll", "equilibrium"]

CLOSE = 1e-9
"""Of the rate of a group, by which a fixed point may be off. Chosen: a thousand times the rounding
of delays next to a full load."""
LEAST = 1e-12
"""Of its rate, what a group that is priced out is taken to send, so that its delay is defined.
Chosen: far below CLOSE."""
STARTS = (0.02, 0.5, 0.9)
"""Loads to start from: a server may have a fixed point while it is empty and another while it is
full. Chosen."""
_ROUNDS, _HALVINGS, _STEP, _SMALLEST = 200, 40, 1e-7, 1e-14
_GROWTH, _LEAST_GROWTH = 1.3, 1.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """A server and those who want it.

    Attributes:
        server: with a kind of requests for each group.
        groups: of users.

    Raises:
        InputError: there are more groups than kinds, or fewer.
    """

    server: Server
    groups: tuple[Demand, ...]

    def __post_init__(self) -> None:
        if len(self.groups) != self.server.kinds or not self.groups:
            raise InputError(
                need="a kind of requests for each group of users",
                got=f"{self.server.kinds} kinds for {len(self.groups)} groups",
                hint="name a kind twice where two groups send the same",
            )

    @property
    def costs(self) -> Floats:
        """Of a second of delay, by group [groups] [usd/s]."""
        return np.array([own.delay_usd_per_s for own in self.groups])

    @property
    def most(self) -> Floats:
        """Rates at which requests would be sent for nothing [groups] [1/s]."""
        return np.array([own.rate for own in self.groups])

    def worth(self, rates: Floats) -> float:
        """Value of the requests that are sent [usd/s]."""
        return sum(
            g.rate * g.values.total(float(r) / g.rate)
            for g, r in zip(self.groups, rates, strict=True)
        )

    def welfare(self, rates: Floats) -> float:
        """Their value less what delays cost [usd/s].

        Raises:
            InfeasibleError: the server does not keep up.
        """
        if not rates.any():
            return 0.0
        delays = self.server.response(rates).delays_s
        return self.worth(rates) - float((rates * self.costs) @ delays)

    def sent(self, full_usd: Floats) -> Floats:
        """What is sent where a request costs so much in all [groups] [1/s]."""
        pairs = zip(self.groups, full_usd, strict=True)
        return np.array([own.rate * own.values.share(float(cost)) for own, cost in pairs])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What a market comes to.

    Attributes:
        rates: of requests that are sent, by group [groups] [1/s].
        prices_usd: that they pay, each [groups] [usd].
        delays_s: of each [groups] [s].
        welfare: value of what is sent less what delays cost [usd/s].
        revenue: of prices [usd/s].
        load: of the server.
    """

    rates: Floats
    prices_usd: Floats
    delays_s: Floats
    welfare: float
    revenue: float
    load: float


_Prices: TypeAlias = Callable[[Floats], tuple[Floats, Floats]]
"""From rates to prices and to delays."""


def equilibrium(market: Market, prices_usd: Sequence[float] | Floats) -> Outcome:
    """What comes of prices that are posted; of zeros, what comes of none.

    Args:
        market: the server and those who want it.
        prices_usd: of a request, by group [usd].

    Raises:
        InfeasibleError: no equilibrium was found.

    Example:
        >>> from weft.tokens.macro import Demand, EvenValues, FifoQueue, exponential
        >>> users = Demand(rate=4.0, values=EvenValues(low_usd=0, high_usd=1), delay_usd_per_s=0.25)
        >>> found = equilibrium(Market(server=FifoQueue((exponential(0.5),)), groups=(users,)), [0])
        >>> round(float(found.rates[0]), 4)
        1.5858
    """
    posted = np.asarray(prices_usd, dtype=np.float64)

    def priced(rates: Floats) -> tuple[Floats, Floats]:
        return posted, market.server.response(rates).delays_s

    return _outcome(market, priced, _fixed_points(market, priced)[0])


def best_toll(market: Market) -> Outcome:
    """The toll of each group, as a price, and what comes of it.

    Raises:
        InfeasibleError: no fixed point was found.

    Example:
        >>> from weft.tokens.macro import Demand, EvenValues, FifoQueue, exponential
        >>> users = Demand(rate=4.0, values=EvenValues(low_usd=0, high_usd=1), delay_usd_per_s=0.25)
        >>> found = best_toll(Market(server=FifoQueue((exponential(0.5),)), groups=(users,)))
        >>> round(float(found.rates[0]), 4), round(float(found.prices_usd[0]), 4)
        (1.1607, 0.4119)
    """

    def priced(rates: Floats) -> tuple[Floats, Floats]:
        response = market.server.response(rates)
        return externality(response, rates, market.costs), response.delays_s

    found = _fixed_points(market, priced)
    return _outcome(market, priced, max(found, key=market.welfare))


def _outcome(market: Market, priced: _Prices, rates: Floats) -> Outcome:
    prices, delays = priced(rates)
    return Outcome(
        rates=rates,
        prices_usd=prices,
        delays_s=delays,
        welfare=market.welfare(rates),
        revenue=float(rates @ prices),
        load=market.server.load(rates),
    )


def _fixed_points(market: Market, priced: _Prices) -> list[Floats]:
    """Rates that people choose at what these rates make it cost; of several starts."""
    whole = market.server.load(market.most)
    starts = [market.most * min(1.0, load / whole) for load in STARTS]
    found = [rates for start in starts if (rates := _newton(market, priced, start)) is not None]
    if not found and (rates := _followed(market, priced, starts[1], whole)) is not None:
        found = [rates]
    if not found:
        raise InfeasibleError(
            need="a server that the market can settle on",
            got=f"no fixed point at {whole:.3g} times what it can do",
            options=("a cost of delay, without which queues grow for ever", "fewer users"),
        )
    return found


def _followed(market: Market, priced: _Prices, start: Floats, whole: float) -> Floats | None:
    """The fixed point of a market that is small at first and grows; None if it is lost."""
    size, growth, rates = min(1.0, STARTS[1] / whole), _GROWTH, start
    while True:
        groups = tuple(replace(own, rate=own.rate * size) for own in market.groups)
        found = _newton(
            replace(market, groups=groups), priced, np.minimum(rates, market.most * size)
        )
        if found is None and growth < _LEAST_GROWTH:
            return None
        if found is None:  # smaller steps from the last that was found
            size, growth = size / growth, 1.0 + 0.5 * (growth - 1.0)
        elif size == 1.0:
            return found
        else:
            rates = found
        size = min(1.0, size * growth)


def _newton(market: Market, priced: _Prices, start: Floats) -> Floats | None:
    """Newton's method, never to where the server would not keep up; None if it gets stuck."""
    most = market.most

    def off(rates: Floats) -> Floats:
        prices, delays = priced(rates)
        return (market.sent(prices + market.costs * delays) - rates) / most

    rates, error = start, off(start)
    for _ in range(_ROUNDS):
        if float(np.abs(error).max()) < CLOSE:
            return rates
        # Backwards, where the server keeps up for sure.
        steps = np.diag(_STEP * rates)
        slope = np.column_stack([(error - off(rates - own)) / own.sum() for own in steps])
        inverse = np.linalg.pinv(slope, rcond=_SMALLEST)

        def left(error: Floats, inverse: Floats = inverse) -> float:
            """How far the fixed point is, by the same slopes.

            Next to a full load, errors are huge across it and small along it.
            """
            return _length(inverse @ error / most)

        taken = _shortened(market, off, rates, -inverse @ error, left(error), left)
        if taken is None:  # lost: one step towards what people want to send
            taken = _shortened(market, off, rates, most * error, _length(error), _length)
        if taken is None:
            return None
        rates, error = taken
    return None


def _shortened(
    market: Market,
    off: Callable[[Floats], Floats],
    rates: Floats,
    way: Floats,
    before: float,
    measure: Callable[[Floats], float],
) -> tuple[Floats, Floats] | None:
    """As far along a way as brings a measure of the error down."""
    size = 1.0
    for _ in range(_HALVINGS):
        there = np.clip(rates + size * way, LEAST * market.most, market.most)
        if market.server.load(there) < 1.0:
            found = off(there)
            if measure(found) < before:
                return there, found
        size *= 0.5
    return None


def _length(error: Floats) -> float:
    return float(np.sqrt(error @ error))
