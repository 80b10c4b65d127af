"""Whether tolls, auctions and shares do what theory says, and what they do on real arrivals.

Tolls against welfare that is searched over a grid of rates: in queues by formulas that are written
down here, in a server that batches by simulation. Auctions against all misreports that are tried,
beside first price. Shares against identities that are split. Mechanisms on the conversations of the
Azure LLM inference trace 2023, beside the best constant price in hindsight.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.tokens.part import COLUMNS, Part, Row
from benchmarks.tokens.places import data_file
from weft.report.bench import BenchReport, at_least, at_most, exactly, print_report
from weft.report.table import Table
from weft.tokens import Money
from weft.tokens.macro import (
    BatchServer,
    Bid,
    Bidder,
    Demand,
    EvenValues,
    FifoQueue,
    Kind,
    Market,
    Sale,
    Service,
    SkewedValues,
    best_toll,
    equilibrium,
    exponential,
    fair_shares,
    first_price,
    fixed,
    vcg,
    winners,
)
from weft.tokens.macro.clients import crowd
from weft.tokens.macro.comparison import MECHANISMS, compare
from weft.tokens.macro.engine import Engine, Job
from weft.tokens.macro.market import run_market
from weft.tokens.macro.market_file import EXAMPLE_CLIENTS
from weft.tokens.macro.mechanisms import PostedToll
from weft.tokens.macro.orders import CounterOrder
from weft.tokens.macro.trace import Trace, read_trace
from weft.tokens.serving import ResourceTime, StepTimes

__all__ = ["markets"]

Floats = NDArray[np.float64]

TRACE = "azure_llm_2023_conv.csv"
TIMES = StepTimes(
    (
        ResourceTime("compute", token_s=3.2e-5, pair_s=5e-10),
        ResourceTime("memory", fixed_s=5.5e-3, context_token_s=3.9e-8),
    ),
    400_000,
)
"""A model of eight billion parameters in bfloat16 on one device that reaches 3.35 TB/s and half a
PFLOP/s: 2 * 8e9 / 0.5e15 s a token, 16e9 / 3.35e12 s and a bit for all weights, and 131,072 bytes
of keys and values a token (32 layers, 8 heads of 128, twice). Chosen, like what is in use."""
MOST = 256
KINDS = (
    Kind(fresh=1000, output=200, square=2 * 200**2),
    Kind(fresh=300, cached=1500, output=60, square=2 * 60**2),
)
"""With answers of exponential length."""


def markets(quick: bool = False, rivals: str = sys.executable) -> Part:
    """Measure; `quick` takes fewer cases. Rivals are first price, what is free, token counters."""
    parts = (
        _auctions(100 if quick else 1000),
        _queues(20 if quick else 200),
        _delays(4000 if quick else 60_000),
        _batching(1 if quick else 4, 3000 if quick else 12_000),
        _shares(100 if quick else 1000),
        _identities(),
        _arrivals(4 if quick else 10, 6000 if quick else None),
    )
    return Part(
        claims=tuple(claim for part in parts for claim in part.claims),
        rows=tuple(row for part in parts for row in part.rows),
        facts={name: value for part in parts for name, value in part.facts.items()},
    )


def _bidders(rng: np.random.Generator) -> list[Bidder]:
    return [
        Bidder(name=str(n), bids=_bids(rng, int(rng.integers(1, 4))))
        for n in range(int(rng.integers(2, 6)))
    ]


def _bids(rng: np.random.Generator, count: int) -> tuple[Bid, ...]:
    return tuple(
        Bid(units=(int(rng.integers(0, 4)), int(rng.integers(0, 4))), worth=_worth(rng))
        for _ in range(count)
    )


def _worth(rng: np.random.Generator) -> Money:
    return Money(int(rng.integers(0, 10**10)))


def _lies(rng: np.random.Generator, truth: Bidder, honest: Sale, place: int) -> list[Bidder]:
    """Random bids, and such as are meant to gain.

    These are scaled, just above and below what has to be paid, with bundles left out, and with
    larger or smaller ones than are wanted.
    """
    pays = honest.pays[place].nano
    told = [_bids(rng, int(rng.integers(1, 4))) for _ in range(6)]
    told += [
        tuple(replace(b, worth=Money(round(b.worth.nano * factor))) for b in truth.bids)
        for factor in (0.0, 0.5, 0.9, 0.99, 1.01, 1.5, 10.0)
    ]
    told += [
        tuple(replace(b, worth=Money(max(paid, 0))) for b in truth.bids)
        for paid in (pays - 1, pays, pays + 1)
    ]
    told += [truth.bids[:n] + truth.bids[n + 1 :] for n in range(len(truth.bids))]
    for more in (-1, 1):
        told.append(
            tuple(replace(b, units=tuple(max(u + more, 0) for u in b.units)) for b in truth.bids)
        )
    return [replace(truth, bids=own) for own in told]


def _gain(sale: Sale, place: int, said: Bidder, truth: Bidder) -> int:
    """Worth of what was got, by the truth, less what was paid; in billionths."""
    pick = sale.won[place]
    got = None if pick is None else said.bids[pick].units
    worth = [
        own.worth.nano
        for own in truth.bids
        if got is not None and all(a <= b for a, b in zip(own.units, got, strict=True))
    ]
    return max(worth, default=0) - sale.pays[place].nano


def _auctions(cases: int) -> Part:
    rng = np.random.default_rng(0)
    supply = (4, 5)
    tried = fooled = wrong = beyond = deficit = gamed = 0
    for _ in range(cases):
        bidders = _bidders(rng)
        honest, first = vcg(bidders, supply), first_price(bidders, supply)
        wrong += winners(bidders, supply)[1].nano != _exhaustive(bidders, supply)
        deficit += any(pays.nano < 0 for pays in honest.pays)
        can_gain = False
        for place, truth in enumerate(bidders):
            true, paid = _gain(honest, place, truth, truth), _gain(first, place, truth, truth)
            beyond += true < 0
            for said in _lies(rng, truth, honest, place):
                told = [*bidders[:place], said, *bidders[place + 1 :]]
                tried += 1
                fooled += _gain(vcg(told, supply), place, said, truth) > true
                can_gain |= _gain(first_price(told, supply), place, said, truth) > paid
        gamed += can_gain
    share = gamed / cases
    told = f"0 gain by {tried} misreports" if not fooled else f"{fooled} gain of {tried}"
    return Part(
        claims=(
            exactly(f"VCG, {cases} markets: misreports that gain", fooled, 0),
            exactly("VCG: bidders who pay more than it is worth to them", beyond, 0),
            exactly("VCG: markets with a payment below zero", deficit, 0),
            exactly("VCG: markets whose winners are not the best set of all", wrong, 0),
        ),
        rows=(
            ("markets", f"{cases} auctions of capacity", "weft, VCG", told),
            (
                "markets",
                f"{cases} auctions of capacity",
                "first price",
                f"{share:.0%} can be gamed",
            ),
        ),
        facts={"auction_misreports": tried, "auction_first_price_gamed": share},
    )


def _exhaustive(bidders: Sequence[Bidder], supply: tuple[int, ...]) -> int:
    best = 0
    for picks in itertools.product(*([None, *own.bids] for own in bidders)):
        won = [bid for bid in picks if bid is not None]
        if all(sum(b.units[s] for b in won) <= have for s, have in enumerate(supply)):
            best = max(best, sum(b.worth.nano for b in won))
    return best


def _groups(
    rng: np.random.Generator, scale: float, value: float, delay: float
) -> tuple[Demand, Demand]:
    """Two groups of users, one of them often more patient."""

    def one() -> Demand:
        mean = value * float(np.exp(rng.uniform(-1.0, 1.0)))
        values = (
            SkewedValues(mean_usd=mean)
            if rng.random() < 0.5
            else EvenValues(low_usd=0.0, high_usd=2.0 * mean)
        )
        return Demand(
            rate=scale * float(np.exp(rng.uniform(-1.0, 1.0))),
            values=values,
            delay_usd_per_s=delay * float(np.exp(rng.uniform(-2.0, 2.0))),
        )

    return one(), one()


def _value(group: Demand, rate: float) -> float:
    """Of the most valuable requests at a rate, by adding up their values one by one."""
    shares = (np.arange(400) + 0.5) / 400 * rate / group.rate
    return rate * float(np.mean([group.values.least(float(share)) for share in shares]))


def _searched(
    groups: tuple[Demand, Demand],
    delays: Callable[[float, float], tuple[float, float] | None],
    rounds: int,
    points: int,
) -> float:
    """The best welfare over grids of rates, each closer around the best of the last."""
    low, high, best = np.zeros(2), np.array([g.rate for g in groups]), 0.0
    for _ in range(rounds):
        axes = [np.linspace(max(a, 1e-6), b, points) for a, b in zip(low, high, strict=True)]
        here = (low + high) / 2
        for pair in itertools.product(*axes):
            found = delays(float(pair[0]), float(pair[1]))
            if found is not None:
                net = _welfare(groups, pair, found)
                if net > best:
                    best, here = net, np.array(pair)
        width = (high - low) / (points - 1)
        low, high = (
            np.maximum(here - width, 0.0),
            np.minimum(here + width, [g.rate for g in groups]),
        )
    return best


def _welfare(
    groups: tuple[Demand, Demand], rates: Sequence[float] | Floats, delays: Sequence[float]
) -> float:
    rows = zip(groups, map(float, rates), delays, strict=True)
    return sum(_value(g, r) - r * g.delay_usd_per_s * d for g, r, d in rows)


def _queues(cases: int) -> Part:
    rng = np.random.default_rng(1)
    least: dict[str, float] = {}
    free: list[float] = []
    for case in range(cases):
        means = np.exp(rng.uniform(-1.5, 0.0, 2))
        square = float(rng.uniform(1.0, 8.0))
        name = ("M/M/1", "M/D/1", "M/G/1")[case % 3]
        services = {
            "M/M/1": tuple(exponential(float(means[0])) for _ in range(2)),
            "M/D/1": tuple(fixed(float(m)) for m in means),
            "M/G/1": tuple(
                Service(mean_s=float(m), square_s2=square * float(m) ** 2) for m in means
            ),
        }[name]
        groups = _groups(rng, 2.0, 1.0, 0.1)
        market = Market(server=FifoQueue(services), groups=groups)
        best = _searched(groups, _formula(services), 4, 13)
        found = best_toll(market)
        own = _welfare(groups, found.rates, _formula(services)(*map(float, found.rates)) or (0, 0))
        least[name] = min(least.get(name, 1.0), own / best)
        free.append(equilibrium(market, [0.0, 0.0]).welfare / best)
    rows: tuple[Row, ...] = tuple(
        (
            "markets",
            f"{name}, two groups",
            "weft, toll",
            f"{own:.6f} of the best of a grid, at least",
        )
        for name, own in least.items()
    )
    without = f"{np.mean(free):.2f} of it on average, {min(free):.2f} at least"
    return Part(
        claims=(
            at_least("queues: welfare at the toll, of the best [share]", min(least.values()), 0.99),
        ),
        rows=(*rows, ("markets", f"{cases} queues, two groups", "free", without)),
        facts={"queue_free_welfare": float(np.mean(free))},
    )


def _formula(services: tuple[Service, ...]) -> Callable[[float, float], tuple[float, float] | None]:
    """Pollaczek and Khinchine, with rates that a queue keeps up with."""

    def delays(one: float, two: float) -> tuple[float, float] | None:
        a, b = services
        busy = one * a.mean_s + two * b.mean_s
        if busy >= 1.0:
            return None
        wait = (one * a.square_s2 + two * b.square_s2) / (2.0 * (1.0 - busy))
        return wait + a.mean_s, wait + b.mean_s

    return delays


def _simulated(
    rates: Sequence[float] | Floats, requests: int, seed: int
) -> tuple[list[float], float]:
    """Mean delays by kind and how many are there, of a server that is simulated step by step.

    The same seed draws the same, so that differences between rates are not those of draws.
    """
    rng = np.random.default_rng(seed)
    whole = float(np.sum(rates))
    arrivals = np.cumsum(rng.exponential(size=requests)) / whole
    which = (rng.random(requests) > rates[0] / whole).astype(np.int64)
    longer = rng.exponential(size=requests)
    engine = Engine(TIMES, max_sequences=MOST)
    for at, kind, length in zip(arrivals, which, longer, strict=True):
        own = KINDS[int(kind)]
        output = max(1, round(own.output * float(length)))
        engine.submit(Job(float(at), int(own.fresh), int(own.cached), output))
    engine.run()
    delays = np.array([job.end_s - job.arrival_s for job in engine.jobs])
    past = np.arange(requests) > requests // 10
    kinds = [delays[past & (which == kind)] for kind in range(2)]
    return [float(own.mean()) if len(own) else 0.0 for own in kinds], engine.area / engine.now


def _delays(requests: int) -> Part:
    server = BatchServer(TIMES, KINDS, MOST)
    rows: list[Row] = []
    far: dict[float, float] = {}
    for load in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95):
        mix = np.array([1.0, 1.5])
        rates = mix * load / server.load(mix)
        own, exact = server.response(rates).delays_s, _simulated(rates, requests, 0)[0]
        far[load] = float(np.max(np.abs(own / np.array(exact) - 1.0)))
        told = f"{own[0]:.2f} and {own[1]:.2f} s; simulated {exact[0]:.2f} and {exact[1]:.2f} s"
        rows.append(("markets", f"delays of a batching server at load {load}", "weft", told))
    return Part(
        claims=(
            at_most(
                "batching server: delays off a simulation up to load 0.8 [share]",
                max(far[v] for v in far if v <= 0.8),
                0.15,
            ),
        ),
        rows=tuple(rows),
        facts={"batching_delay_off": {str(load): round(own, 4) for load, own in far.items()}},
    )


def _batching(cases: int, requests: int) -> Part:
    rng = np.random.default_rng(4)
    server = BatchServer(TIMES, KINDS, MOST)
    least, free = 1.0, 1.0
    for case in range(cases):
        groups = _groups(rng, 10.0, 0.02, 2e-3)
        found = best_toll(Market(server=server, groups=groups))
        without = equilibrium(Market(server=server, groups=groups), [0.0, 0.0])

        def delays(one: float, two: float, seed: int = case) -> tuple[float, float] | None:
            if server.load(np.array([one, two])) >= 1.0:
                return None
            both = _simulated((one, two), requests, seed)[0]
            return both[0], both[1]

        own = _welfare(groups, found.rates, _simulated(found.rates, requests, case)[0])
        none = _welfare(groups, without.rates, _simulated(without.rates, requests, case)[0])
        best = max(_searched(groups, delays, 3, 5), own)
        least, free = min(least, own / best), min(free, none / best)
    told = f"{least:.4f} of the best of a grid of simulations, at least"
    return Part(
        claims=(
            at_least("batching server: welfare at the toll, of the best [share]", least, 0.99),
        ),
        rows=(
            ("markets", f"{cases} batching servers, two groups", "weft, toll", told),
            (
                "markets",
                f"{cases} batching servers, two groups",
                "free",
                f"{free:.2f} of it, at least",
            ),
        ),
    )


def _shares(cases: int) -> Part:
    rng = np.random.default_rng(2)
    gap = over = 0.0
    for _ in range(cases):
        users, resources = int(rng.integers(1, 30)), int(rng.integers(1, 6))
        weights = np.exp(rng.normal(0, 1.5, users))
        uses = rng.random((resources, users)) * (rng.random((resources, users)) < 0.6)
        uses[0] += 0.1
        capacities = np.exp(rng.normal(0, 1, resources))
        most = np.where(rng.random(users) < 0.5, np.exp(rng.normal(-2, 2, users)), np.inf)
        found = fair_shares(weights, uses, capacities, most)
        gap = max(gap, (found.bound - found.value) / float(weights.sum()))
        over = max(over, float(np.max(uses @ found.shares / capacities)) - 1.0)
    return Part(
        claims=(
            at_most("proportional fairness: gap to the dual bound, by weight", gap, 1e-9),
            at_most("proportional fairness: beyond what there is [share]", over, 1e-12),
        ),
        rows=(("markets", f"{cases} fair shares", "weft", f"gap {gap:.1e}, {over:.1e} over"),),
    )


def _identities() -> Part:
    """Of ten payers who always want more, the share of the one who turns up as k identities."""
    found: dict[str, list[float]] = {"token counters": [], "payers' shares": []}
    for k in (1, 2, 5, 10, 20):
        paths = [("x", f"x{n}") for n in range(k)] + [(f"p{n}", f"p{n}") for n in range(9)]
        for name, by_payer in (("token counters", False), ("payers' shares", True)):
            rng = np.random.default_rng(0)
            engine = Engine(TIMES, CounterOrder(by_payer=by_payer), max_sequences=64)
            for _ in range(600):
                for path in paths:
                    for _ in range(1 if path[0] == "x" and k > 1 else 20 if path[0] == "x" else 3):
                        sizes = (int(rng.integers(50, 2000)), 0, int(rng.integers(10, 400)))
                        engine.submit(Job(0.0, *sizes, path))
            engine.run(40.0)
            found[name].append(engine.served["x"] / sum(engine.served.values()))
    paid, counted = found["payers' shares"], found["token counters"]
    rows: tuple[Row, ...] = tuple(
        (
            "markets",
            "share of one of 10 payers, 1 to 20 identities",
            name,
            ", ".join(f"{s:.3f}" for s in own),
        )
        for name, own in found.items()
    )
    return Part(
        claims=(
            at_most(
                "payers' shares: largest change by 1 to 20 identities",
                max(abs(share - paid[0]) for share in paid),
                0.01,
            ),
            at_least("token counters, for comparison: share of 20 identities", counted[-1], 0.6),
        ),
        rows=rows,
    )


def _arrivals(seeds: int, first: int | None) -> Part:
    path = data_file(TRACE)
    trace = _poisson() if path is None else read_trace(path)
    trace = trace if first is None else trace.first(first)
    rows: list[Row] = []
    over: list[float] = []
    hindsight: dict[str, list[float]] = {"posted toll": [], "adaptive toll": []}
    for load in (0.8, 1.2, 2.0):
        found = compare(trace, TIMES, EXAMPLE_CLIENTS, load=load, seeds=seeds, max_sequences=MOST)
        best, price = _constant(trace, load, min(seeds, 3))
        for name in MECHANISMS:
            welfare, delay = (found.interval(name, what) for what in ("welfare_usd", "delay_s"))
            told = f"{welfare} usd/s, {delay.value:.1f} s"
            rows.append(("markets", f"real arrivals, load {load}", name, told))
        rows.append(
            (
                "markets",
                f"real arrivals, load {load}",
                "best constant price",
                f"{best:.3g} usd/s at {price:.2f} usd a second of work",
            )
        )
        for name, shares in hindsight.items():
            same = [run.welfare_usd for run in found.runs[name][: min(seeds, 3)]]
            shares.append(float(np.mean(same)) / best)
            over += [found.gain(name, other).low for other in MECHANISMS[:4]]
    return Part(
        claims=(
            at_least(
                "real arrivals: lower end of what tolls gain over all that is free", min(over), 0.0
            ),
            at_least(
                "posted toll, of the best constant price in hindsight",
                min(hindsight["posted toll"]),
                0.95,
            ),
            at_least(
                "adaptive toll, of the best constant price in hindsight",
                min(hindsight["adaptive toll"]),
                0.98,
            ),
        ),
        rows=tuple(rows),
        facts={
            "market_trace": "drawn" if path is None else path.name,
            "market_requests": len(trace),
            "market_hindsight": hindsight,
        },
    )


def _constant(trace: Trace, load: float, seeds: int) -> tuple[float, float]:
    """The best welfare of one price for a second of work, and that price."""
    timed = trace.at_load(load, TIMES, MOST)
    crowds = [
        crowd(timed, EXAMPLE_CLIENTS, TIMES, max_sequences=MOST, seed=s) for s in range(seeds)
    ]
    found: list[tuple[float, float]] = []
    for price in np.arange(0.05, 0.75, 0.05):
        each = [
            run_market(own, TIMES, PostedToll(own.work_s * float(price)), max_sequences=MOST)
            for own in crowds
        ]
        found.append((float(np.mean([run.welfare_usd for run in each])), float(price)))
    return max(found)


def _poisson() -> Trace:
    """In place of the trace: arrivals that know nothing of each other, and sizes of its medians."""
    rng = np.random.default_rng(2023)
    count = 10_000
    return Trace(
        arrival_s=np.cumsum(rng.exponential(0.18, count)),
        fresh=np.maximum(1, rng.lognormal(6.93, 0.6, count)).astype(np.int64),
        cached=np.zeros(count, dtype=np.int64),
        output=np.maximum(1, rng.lognormal(4.86, 1.0, count)).astype(np.int64),
    )


if __name__ == "__main__":
    part = markets("--quick" in sys.argv)
    print_report(
        BenchReport(
            bench="tokens-markets",
            claims=part.claims,
            table=Table(columns=COLUMNS, rows=part.rows),
            facts=part.facts,
        )
    )
