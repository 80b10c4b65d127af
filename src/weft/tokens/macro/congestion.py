"""What a server that is shared makes its users wait, and what one request more adds to that.

A server is known by two functions of the rates at which requests of each kind arrive: the share of
what it can do that they ask for, and the delay of each kind with its slopes. What a request of kind
k costs all others is then

    toll[k] = sum over j of rate[j] * cost[j] * d delay[j] / d rate[k]

in dollars, where cost is that of a second of delay. It is what each user leaves out of account.

Source: Pigou, The Economics of Welfare, 1920; for queues Mendelson, Communications of the ACM 1985.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from weft.core.errors import InfeasibleError, InputError
from weft.tokens.micro.estimate import Floats

__all__ = ["Response", "Server", "externality", "require_rates", "require_stable"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Response:
    """How long requests take at some rates.

    Attributes:
        delays_s: from arrival to the last token, on average, by kind [kinds] [s].
        slopes: of the delay of each kind by the rate of each kind [kinds, kinds] [s^2].
    """

    delays_s: Floats
    slopes: Floats


class Server(Protocol):
    """Anything shared that gets slower the more is asked of it."""

    @property
    def kinds(self) -> int:
        """How many kinds of requests it tells apart."""
        ...

    def load(self, rates: Floats) -> float:
        """Share of what it can do; at one and beyond, queues grow without end.

        Args:
            rates: of arrivals, by kind [kinds] [1/s].
        """
        ...

    def response(self, rates: Floats) -> Response:
        """Delays and their slopes.

        Args:
            rates: of arrivals, by kind [kinds] [1/s].

        Raises:
            InfeasibleError: the load is one or more.
        """
        ...


def externality(response: Response, rates: Floats, delay_usd_per_s: Floats) -> Floats:
    """What one request of each kind costs all others [kinds] [usd].

    Args:
        response: of a server at these rates.
        rates: of arrivals, by kind [kinds] [1/s].
        delay_usd_per_s: what a second of delay costs a request, by kind [kinds] [usd/s].
    """
    return (rates * delay_usd_per_s) @ response.slopes


def require_rates(rates: Floats, kinds: int) -> None:
    """See that there is a rate of each kind.

    Raises:
        InputError: there is not, or one is negative.
    """
    if rates.shape != (kinds,) or not bool(np.all(np.isfinite(rates) & (rates >= 0.0))):
        raise InputError(
            need=f"{kinds} rates of at least zero",
            got=f"{rates.tolist()}",
            hint="requests per second, one number for each kind",
        )


def require_stable(load: float) -> None:
    """See that a server keeps up.

    Raises:
        InfeasibleError: it does not.
    """
    if not load < 1.0:
        raise InfeasibleError(
            need="requests that the server keeps up with",
            got=f"{load:.3g} times what it can do",
            options=("fewer requests: a toll keeps some away", "more devices"),
        )
