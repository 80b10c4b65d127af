"""Dollars a token of a served model: at full load, at what arrives, and beside a list price.

Servers are there for the busiest minutes, and paid for in all of them. So the price at the load
that arrives is the one at full load over the utilisation: mean over provided servers, where those
that are at work are, by Little's law, requests a second times the server seconds of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from weft.core.errors import InputError
from weft.tokens.serving.capacity import Capacity, Limits, capacity
from weft.tokens.serving.demand import demand_of, peak_rate
from weft.tokens.serving.served import PricedSteps, ServedPlan, priced_steps
from weft.tokens.serving.simulate import Request

__all__ = ["BreakEven", "ServedPrices", "break_even", "served_prices"]

WINDOW_S = 60.0
"""Length of the windows of which the busiest count [s]. Chosen: a minute of queueing is noticed."""
SHARE = 0.99
"""Of windows that servers suffice for. Chosen."""
_MILLION = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedPrices:
    """What tokens of a served model cost.

    Attributes:
        plan: what is served.
        steps: times of its steps.
        full: seconds of a server at full load.
        rate, peak: requests a second on average, and in the busiest windows [1/s].
        servers: provided.
        at_work: servers at work on average.
    """

    plan: ServedPlan
    steps: PricedSteps
    full: Capacity
    rate: float
    peak: float
    servers: int
    at_work: float

    @property
    def utilisation(self) -> float:
        """Servers at work over those provided."""
        return self.at_work / self.servers

    def usd_per_million(self, server_s: float, *, full: bool = False) -> float:
        """Of a million times what takes so many seconds of a server [usd].

        Args:
            server_s: for one, as in `Capacity` [s].
            full: whether at full load; else at the load that arrives.
        """
        used = 1.0 if full else self.utilisation
        return server_s * self.plan.usd_per_s * _MILLION / used

    @property
    def usd_per_request(self) -> float:
        """Of a mean request at the load that arrives [usd]."""
        return self.plan.usd_per_s * self.servers / self.rate


def served_prices(
    plan: ServedPlan, requests: Sequence[Request], limits: Limits | None = None
) -> ServedPrices:
    """Prices for requests that arrive as these did.

    Args:
        plan: what is served.
        requests: of a trace.
        limits: what servers keep to; by default what `Limits` says, with the plan's steps.

    Raises:
        InputError: the trace has no length, so there is no rate.
        InfeasibleError: the model does not fit, or no server is as quick as it should be.
    """
    arrivals = [own.arrival_s for own in requests]
    length_s = max(arrivals, default=0.0) - min(arrivals, default=0.0)
    if length_s <= 0.0:
        raise InputError(
            need="a trace of some time",
            got=f"{len(requests)} requests within {length_s} s",
            hint="rates need two requests at different times",
        )
    steps = priced_steps(plan)
    kept = Limits(step_tokens=plan.step_tokens) if limits is None else limits
    full = capacity(steps.times, demand_of(requests), kept)
    # The last request has no time of its own: n requests have n - 1 times between them.
    rate = (len(requests) - 1) / length_s
    window_s = min(WINDOW_S, length_s)
    peak = max(rate, peak_rate(arrivals, window_s, SHARE))
    return ServedPrices(
        plan=plan,
        steps=steps,
        full=full,
        rate=rate,
        peak=peak,
        servers=max(1, math.ceil(peak * full.server_s)),
        at_work=rate * full.server_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """Where an own server costs as much as a list price.

    Attributes:
        utilisation: above which it costs less, with what the cost model may be off; above 1 it
            never does.
        requests_per_s: that one server has then [1/s].
    """

    utilisation: tuple[float, float, float]
    requests_per_s: float

    @property
    def is_certain(self) -> bool:
        """Whether it is possible even if the cost model is off as far as it may be."""
        return self.utilisation[2] <= 1.0


def break_even(prices: ServedPrices, list_usd: float, off: float) -> BreakEven:
    """The utilisation at which a server costs what the list asks for its requests.

    Args:
        prices: of the served model.
        list_usd: for a mean request [usd].
        off: how far the cost model may be off, as a share.

    Raises:
        InputError: a price or a share that is none.
    """
    if not (0.0 < list_usd < math.inf and 0.0 <= off < 1.0):
        raise InputError(
            need="a list price above 0, and a share from 0 to below 1",
            got=f"{list_usd} usd, {off}",
            hint="`weft bench predict` says how far the cost model is off",
        )
    own = prices.full.server_s * prices.plan.usd_per_s / list_usd
    return BreakEven(
        utilisation=(own * (1.0 - off), own, own * (1.0 + off)),
        requests_per_s=prices.plan.usd_per_s / list_usd,
    )
