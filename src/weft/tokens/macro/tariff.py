"""The toll of a batching server, for requests of any size and by class of tokens.

A request of a size that nobody sends is a kind with a rate of zero: what it would cost others is
known all the same. What a token more of a class would cost is the slope of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from weft.core.errors import InputError
from weft.tokens.macro.batching import BatchServer, Kind
from weft.tokens.macro.congestion import externality
from weft.tokens.micro.estimate import Floats

__all__ = ["Tariff", "request_tolls", "tariff"]

STEP = 1e-3
"""Tokens of a central difference. Chosen: tolls are quadratic in the tokens of a prompt and linear
in others, but for kinks where another resource becomes the busiest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """What is charged at some load, in dollars.

    Attributes:
        load: of the server.
        present: requests in the batch or waiting for a place in it, on average.
        delay_s: of all requests, on average [s].
        token_s: from one token of an answer to the next [s].
        request_usd: of a request, on average, in all [usd].
        fresh_usd, cached_usd, output_usd: of a token more of a request, by class, on average over
            the requests that come [usd].
    """

    load: float
    present: float
    delay_s: float
    token_s: float
    request_usd: float
    fresh_usd: float
    cached_usd: float
    output_usd: float


def request_tolls(
    server: BatchServer, rates: Floats, delay_usd_per_s: Floats, sizes: Sequence[Kind]
) -> Floats:
    """What a request of each of some sizes costs all others [sizes] [usd].

    Args:
        server: that they come to.
        rates: of the kinds that the server knows [kinds] [1/s].
        delay_usd_per_s: what a second of delay costs each of those [kinds] [usd/s].
        sizes: of requests to be charged.

    Raises:
        InfeasibleError: the server does not keep up, or a request does not fit.
        InputError: the numbers of kinds differ, or nobody asks for anything.
    """
    if not server.kinds == len(rates) == len(delay_usd_per_s):
        raise InputError(
            need=f"rates and costs of {server.kinds} kinds",
            got=f"{len(rates)} rates, {len(delay_usd_per_s)} costs",
            hint="one of each for each kind",
        )
    none = np.zeros(len(sizes))
    wide = replace(server, sizes=(*server.sizes, *sizes))
    more = np.concatenate([rates, none])
    found = externality(wide.response(more), more, np.concatenate([delay_usd_per_s, none]))
    return found[server.kinds :]


def tariff(server: BatchServer, rates: Floats, delay_usd_per_s: Floats) -> Tariff:
    """The toll by class of tokens.

    Args:
        server: and its kinds of requests.
        rates: of these [kinds] [1/s].
        delay_usd_per_s: what a second of delay costs each [kinds] [usd/s].

    Raises:
        InfeasibleError: the server does not keep up.
        InputError: the numbers of kinds differ, or nobody asks for anything.
    """
    around: list[Kind] = []
    for kind in server.sizes:
        for name in ("fresh", "cached", "output"):
            value = float(getattr(kind, name))
            low = max(value - STEP, 1.0 if name == "output" else 0.0)
            around += [_with(kind, name, end) for end in (low, low + 2.0 * STEP)]
    tolls = request_tolls(server, rates, delay_usd_per_s, [*server.sizes, *around])
    own, ends = tolls[: server.kinds], tolls[server.kinds :].reshape(server.kinds, 3, 2)
    weight = rates / rates.sum()
    fresh, cached, output = map(float, weight @ (ends[:, :, 1] - ends[:, :, 0]) / (2.0 * STEP))
    taken = server.occupancy(rates)
    return Tariff(
        load=server.load(rates),
        present=taken.batch + taken.waiting,
        delay_s=float(weight @ server.response(rates).delays_s),
        token_s=taken.token_s,
        request_usd=float(weight @ own),
        fresh_usd=fresh,
        cached_usd=cached,
        output_usd=output,
    )


def _with(kind: Kind, name: str, tokens: float) -> Kind:
    """A kind of which all requests have so many tokens more of a class that this is their mean."""
    if name != "output" or kind.square is None:
        return replace(kind, **{name: tokens})
    more = tokens - kind.output
    return replace(kind, output=tokens, square=kind.square + more * (2.0 * kind.output + more))
