"""Mechanisms side by side: the same crowds, drawn several times, with each of them.

The toll that is posted is that of the optimum which `weft.tokens.macro.toll` finds for the mean
rate of the trace; nothing is known beforehand of when requests come. The adaptive toll knows
nothing of rates and values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from weft.core.errors import InputError
from weft.core.quantiles import student_t
from weft.tokens.macro.batching import BatchServer, Kind
from weft.tokens.macro.clients import Client, Crowd, crowd
from weft.tokens.macro.demand import Demand, SkewedValues
from weft.tokens.macro.engine import MAX_SEQUENCES
from weft.tokens.macro.market import MarketRun, run_market
from weft.tokens.macro.mechanisms import AdaptiveToll, EqualShare, Free, Mechanism, PostedToll
from weft.tokens.macro.orders import CounterOrder
from weft.tokens.macro.tariff import request_tolls, tariff
from weft.tokens.macro.toll import Market, Outcome, best_toll
from weft.tokens.macro.trace import Trace, server_seconds, size_kinds
from weft.tokens.micro.estimate import Floats, Interval
from weft.tokens.serving.steps import StepTimes

__all__ = ["MECHANISMS", "Comparison", "compare", "posted_toll", "schedule"]

MECHANISMS = (
    "first come",
    "equal shares",
    "token counters",
    "payers' shares",
    "posted toll",
    "adaptive toll",
)
"""In the order in which they are shown."""
WINDOW_S = 10.0
"""Over which the adaptive toll measures how full the server is. Chosen: some delays long; windows
from 1 to 30 s come to the same within a hundredth on the Azure trace."""
LOADS = (0.01, *(n / 10 for n in range(1, 7)), *(n / 20 for n in range(14, 19)), 0.93, 0.96, 0.98)
"""At which the toll is worked out that an adaptive one takes. Chosen: closer where it is steep."""
LEAST_LOAD, MOST_LOAD = 1e-3, 1e3
"""Of all requests. Chosen: one request after the other, and nearly all at once."""
_BINS, _FEW_BINS = 4, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs by mechanism, one for each draw of the crowd; those of one draw belong together.

    Attributes:
        load: that the requests would be if all were sent.
        runs: by mechanism.
    """

    load: float
    runs: Mapping[str, tuple[MarketRun, ...]]

    def interval(self, name: str, what: str, level: float = 0.95) -> Interval:
        """Of a number of a `MarketRun`, over draws."""
        return _interval([float(getattr(run, what)) for run in self.runs[name]], level)

    def gain(self, name: str, over: str, level: float = 0.95) -> Interval:
        """How much more welfare than another, by draw, as a share of the other's size."""
        pairs = zip(self.runs[name], self.runs[over], strict=True)
        shares = [
            (a.welfare_usd - b.welfare_usd) / abs(b.welfare_usd) if b.welfare_usd else math.nan
            for a, b in pairs
        ]
        return _interval(shares, level)


def _interval(values: Sequence[float], level: float) -> Interval:
    mean, count = float(np.mean(values)), len(values)
    half = math.inf
    if count > 1:
        half = student_t(level, count - 1) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return Interval(value=mean, low=mean - half, high=mean + half, level=level)


def compare(
    trace: Trace,
    times: StepTimes,
    clients: Sequence[Client],
    *,
    load: float,
    seeds: int = 5,
    mechanisms: Sequence[str] = MECHANISMS,
    max_sequences: int = MAX_SEQUENCES,
    tell: Callable[[str, float], None] | None = None,
) -> Comparison:
    """Play a trace with each mechanism.

    Args:
        trace: requests, whose times are stretched so that all of them would be that load.
        times: of the server's steps.
        clients: whose shares add up to one.
        load: of all requests, as a share of what the server can do.
        seeds: how often values and payers are drawn.
        mechanisms: some of `MECHANISMS`.
        max_sequences: most requests in a batch.
        tell: told what is played, and the share of that which is done.

    Raises:
        InputError: a mechanism has no such name, or shares do not add up to one.
    """
    odd = [name for name in mechanisms if name not in MECHANISMS]
    if odd or not mechanisms or seeds < 1 or not LEAST_LOAD <= load <= MOST_LOAD:
        raise InputError(
            need=f"some of {', '.join(MECHANISMS)}, a load from {LEAST_LOAD:g} to {MOST_LOAD:g},"
            " and a seed or more",
            got=f"{', '.join(odd) or 'none'}, load {load}, {seeds} seeds",
            hint="leave mechanisms out for all of them",
        )
    timed = trace.at_load(load, times, max_sequences)
    pace = schedule(timed, times, max_sequences)
    runs: dict[str, list[MarketRun]] = {name: [] for name in mechanisms}
    for seed in range(seeds):
        those = crowd(timed, clients, times, max_sequences=max_sequences, seed=seed)
        for place, name in enumerate(mechanisms):
            done = (seed + place / len(mechanisms)) / seeds
            if tell is not None:
                tell(name, done)
            chosen = _mechanism(name, those, times, pace, max_sequences)
            runs[name].append(run_market(those, times, chosen, max_sequences=max_sequences))
    return Comparison(load=load, runs={name: tuple(own) for name, own in runs.items()})


def _mechanism(
    name: str,
    those: Crowd,
    times: StepTimes,
    pace: tuple[Floats, Floats],
    max_sequences: int,
) -> Mechanism:
    weights = {own.name: own.weight for own in those.clients}
    if name == "equal shares":
        return EqualShare(len(those.clients))
    if name == "token counters":
        turns = {own.name: float(own.identities) for own in those.clients}
        return Free(CounterOrder(by_payer=False), turns)
    if name == "payers' shares":
        return Free(CounterOrder(by_payer=True, weights=weights), weights)
    if name == "posted toll":
        return PostedToll(posted_toll(those, times, max_sequences)[0])
    if name == "adaptive toll":
        return AdaptiveToll(*pace, WINDOW_S)
    return Free()


def schedule(trace: Trace, times: StepTimes, max_sequences: int) -> tuple[Floats, Floats]:
    """How full a server is, and what a second of work then costs others, by load.

    Args:
        trace: whose mix of sizes is taken.
        times: of the server's steps.
        max_sequences: most requests in a batch.

    Returns:
        Requests that are there [loads], and seconds of delay by second of work [loads].
    """
    kinds, which = size_kinds(trace, _BINS)
    rates = np.bincount(which, minlength=len(kinds)) / len(trace)
    server = BatchServer(times, kinds, max_sequences)
    whole, each = server.load(rates), float(server_seconds(trace, times, max_sequences).mean())
    found = [tariff(server, rates * load / whole, np.ones(len(kinds))) for load in LOADS]
    tolls = np.array([own.request_usd for own in found])
    return np.array([own.present for own in found]), tolls / each


def posted_toll(those: Crowd, times: StepTimes, max_sequences: int) -> tuple[Floats, Outcome]:
    """The toll of each request of a crowd, at the optimum of its mean rate [requests] [usd].

    Args:
        those: who send requests; of values, their spread is known and not the draws.
        times: of the server's steps.
        max_sequences: most requests in a batch.

    Raises:
        InfeasibleError: no optimum was found.
    """
    trace = those.trace
    kinds, which = size_kinds(trace, _FEW_BINS)
    # Who values and waits alike is one group, for each kind of request.
    classes = sorted({(own.value_usd, own.delay_usd_per_s) for own in those.clients})
    place = [classes.index((own.value_usd, own.delay_usd_per_s)) for own in those.clients]
    group = np.array(place)[those.payer] * len(kinds) + which
    count = np.bincount(group, minlength=len(classes) * len(kinds))
    work = np.bincount(which, those.work_s, len(kinds)) / np.bincount(which, minlength=len(kinds))
    groups: list[tuple[Kind, Demand]] = []
    for number in np.flatnonzero(count).tolist():
        value, delay = classes[number // len(kinds)]
        kind = number % len(kinds)
        demand = Demand(
            rate=float(count[number]) / trace.seconds,
            values=SkewedValues(mean_usd=value * float(work[kind])),
            delay_usd_per_s=delay,
        )
        groups.append((kinds[kind], demand))
    server = BatchServer(times, tuple(kind for kind, _ in groups), max_sequences)
    market = Market(server=server, groups=tuple(demand for _, demand in groups))
    best = best_toll(market)
    fine, at = size_kinds(trace, 2 * _BINS)
    tolls = request_tolls(server, best.rates, market.costs, fine)
    sizes = np.bincount(at, those.work_s, len(fine)) / np.bincount(at, minlength=len(fine))
    return tolls[at] * those.work_s / sizes[at], best
