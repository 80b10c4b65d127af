"""Who sends the requests of a trace, and what these are worth to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.core.errors import InputError
from weft.tokens.macro.engine import Job
from weft.tokens.macro.trace import Trace, server_seconds
from weft.tokens.micro.estimate import Floats, Ints
from weft.tokens.serving.steps import StepTimes

__all__ = ["Client", "Crowd", "crowd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Somebody who pays.

    Attributes:
        name: of the payer.
        share: of all requests.
        value_usd: of a request on average, by second of a server that it takes [usd/s].
        delay_usd_per_s: what a second of delay costs a request [usd/s].
        weight: of the share of a server that it has, where there are shares.
        identities: that it sends from, in turn.

    Raises:
        InputError: a number is none, or below what it can be.
    """

    name: str
    share: float
    value_usd: float
    delay_usd_per_s: float
    weight: float = 1.0
    identities: int = 1

    def __post_init__(self) -> None:
        positive = (self.share, self.value_usd, self.weight)
        is_good = all(0.0 < own < math.inf for own in positive) and self.identities >= 1
        if not (is_good and 0.0 <= self.delay_usd_per_s < math.inf):
            raise InputError(
                need="a share, a value and a weight above zero, an identity or more, and a cost of"
                " delay of at least zero",
                got=f"{self}",
                hint="leave out who sends nothing",
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crowd:
    """A trace with those who send it.

    Attributes:
        trace: requests.
        clients: who.
        payer: number of the client of each request [requests].
        value_usd: of each request [requests] [usd].
        work_s: that it takes of a full server [requests] [s].
        path: payer and identity of each request.
    """

    trace: Trace
    clients: tuple[Client, ...]
    payer: Ints
    value_usd: Floats
    work_s: Floats
    path: tuple[tuple[str, str], ...]

    def job(self, request: int) -> Job:
        """A request, as the server sees it."""
        own = self.trace
        return Job(
            float(own.arrival_s[request]),
            int(own.fresh[request]),
            int(own.cached[request]),
            int(own.output[request]),
            self.path[request],
        )


def crowd(
    trace: Trace, clients: Sequence[Client], times: StepTimes, *, max_sequences: int, seed: int
) -> Crowd:
    """Draw who sends what, and what it is worth to them.

    Values are exponential about the mean of the client, times the work of the request.

    Args:
        trace: requests.
        clients: whose shares add up to one.
        times, max_sequences: of the server.
        seed: the same gives the same.

    Raises:
        InputError: shares do not add up to one, or somebody has none.
    """
    shares = np.array([own.share for own in clients])
    if not len(shares) or shares.min() <= 0.0 or abs(shares.sum() - 1.0) > 1e-9:
        raise InputError(
            need="clients whose shares of the requests add up to one",
            got=f"{shares.tolist()}",
            hint="divide them by their sum",
        )
    rng = np.random.default_rng(seed)
    payer: Ints = rng.choice(len(clients), len(trace), p=shares)
    work = server_seconds(trace, times, max_sequences)
    means = np.array([own.value_usd for own in clients])[payer]
    turns = [0] * len(clients)
    path: list[tuple[str, str]] = []
    for number in map(int, payer):
        own = clients[number]
        path.append((own.name, f"{own.name}/{turns[number] % own.identities}"))
        turns[number] += 1
    return Crowd(
        trace=trace,
        clients=tuple(clients),
        payer=payer,
        value_usd=means * work * rng.exponential(size=len(trace)),
        work_s=work,
        path=tuple(path),
    )
