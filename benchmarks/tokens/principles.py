"""Prices of a served model from its operators, against what is known without a solver.

Prices that are duals against finite differences of the closed form of the optimum, which the
programme does not use; the most requests that it allows against a server that is simulated step by
step; the price at the load that arrives against that simulation on real arrivals; prices on a
machine that is twice as fast in everything, which has to halve them if no figure of hardware is
hidden; and without the cost model, none at all. Ratios of list prices stand beside as facts.

Dollars are those of an assumed price of a device and hour; ratios do not depend on it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tokens.accounting import AT, MAP
from benchmarks.tokens.part import COLUMNS, Part, Row
from benchmarks.tokens.places import data_file
from weft.core.provenance import Quantity
from weft.machine import Device, Link, Machine, preset
from weft.report.bench import BenchReport, at_least, at_most, exactly, print_report
from weft.report.table import Table
from weft.tokens.classes import TokenClass
from weft.tokens.prices import GenaiBook, LitellmBook, PriceBook
from weft.tokens.serving import (
    Decoder,
    Demand,
    Limits,
    Request,
    ServedPlan,
    StepTimes,
    capacity,
    demand_of,
    load_requests,
    priced_steps,
    serve,
)

__all__ = ["principles"]

TRACE = "azure_llm_2023_conv.csv"
USD_PER_HOUR = 2.5
"""Of a device [usd]. Assumed."""
# Shapes: Llama Team, The Llama 3 Herd of Models, arXiv 2407.21783, table 3.
SMALL = Decoder(
    name="llama-3.1-8b",
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head=128,
    feed_forward=14336,
    vocabulary=128256,
)
LARGE = replace(SMALL, name="llama-3.1-70b", layers=80, hidden=8192, heads=64, feed_forward=28672)
PLANS: tuple[tuple[Decoder, int], ...] = ((SMALL, 1), (LARGE, 4), (LARGE, 8))
BATCHES = (8, 64, 256)
CHUNKS = (128, 256, 512, 1024, 2048)
STEP = 1e-5
"""Relative, of finite differences: their own error is about 1e-10."""


def principles(quick: bool = False, rivals: str = sys.executable) -> Part:
    """Measure; `quick` takes fewer requests. Without the trace, requests of its sizes are drawn."""
    requests = _requests(2_000 if quick else 20_000)
    times = {
        f"{decoder.name} on {degree}": priced_steps(_plan(decoder, degree)).times
        for decoder, degree in PLANS
    }
    parts = (
        _duals(times, requests),
        _kept(requests),
        _most(times, requests[: 1_000 if quick else 4_000]),
        _arriving(times, requests),
        _hidden(requests),
        _listed(rivals),
    )
    return Part(
        claims=tuple(claim for part in parts for claim in part.claims),
        rows=tuple(row for part in parts for row in part.rows),
        facts={name: value for part in parts for name, value in part.facts.items()},
    )


def _plan(decoder: Decoder, degree: int, machine: Machine | None = None) -> ServedPlan:
    return ServedPlan(
        decoder=decoder,
        machine=preset("dgx-h100x1") if machine is None else machine,
        degree=degree,
        usd_per_device_hour=USD_PER_HOUR,
        source="assumed",
    )


def _requests(count: int) -> list[Request]:
    """Of the trace, or as many that are drawn with its means at five a second."""
    path = data_file(TRACE)
    if path is not None:
        return list(load_requests(path))[:count]
    rng = np.random.default_rng(0)
    at = np.cumsum(rng.exponential(0.18, count))
    sizes = np.rint(rng.lognormal(np.log([[800.0], [150.0]]), 0.85, (2, count))) + 1.0
    return [
        Request(arrival_s=float(a), input_tokens=int(i), output_tokens=int(o))
        for a, i, o in zip(at, *sizes, strict=True)
    ]


def _half_cached(requests: Sequence[Request]) -> list[Request]:
    return [replace(own, cached_tokens=own.input_tokens // 2) for own in requests]


# What a request takes, by hand.


@dataclass(frozen=True, slots=True)
class _Sums:
    """Means over requests, with the tokens of each class times a factor."""

    fresh: float
    cached: float
    output: float
    own: Sequence[Request]

    def mean(self) -> tuple[float, float, float, float, float]:
        """Tokens of prompts and of answers, pairs, tokens of context, and those of answers."""
        f, c, o = (
            factor * np.array([getattr(own, name) for own in self.own], dtype=np.float64)
            for factor, name in (
                (self.fresh, "fresh"),
                (self.cached, "cached_tokens"),
                (self.output, "output_tokens"),
            )
        )
        context = o * (f + c + o / 2)
        pairs = f * (c + f / 2) + context
        of = (f, o, pairs, c + context, context)
        a, b, d, e, g = (float(own.mean()) for own in of)
        return a, b, d, e, g


def _servers(times: StepTimes, sums: _Sums, limits: Limits) -> float:
    """Seconds of a server for a request, in closed form.

    With p steps a second of a server, N servers are enough for a request a second if N p r >= a for
    each room r and what takes it, a, and N (1 - p f) >= w for each resource. The first fall with
    p, the second rise, so the least N is where two of them meet: N = w + f a / r, or what the
    slowest pace allows, N = w / (1 - f / slowest).
    """
    fresh, output, pairs, reads, context = sums.mean()
    steps = max(output / limits.sequences, context / times.cache_tokens, fresh / limits.step_tokens)
    return max(
        max(work + own.fixed_s * steps, work / (1 - own.fixed_s / limits.token_s))
        for own in times.resources
        for work in (
            own.token_s * (fresh + output)
            + own.sequence_s * output
            + own.pair_s * pairs
            + own.context_token_s * reads,
        )
    )


def _differences(times: StepTimes, own: Sequence[Request], limits: Limits) -> dict[str, float]:
    """Seconds for one more token of each class, by differences of the closed form."""
    demand = demand_of(own)
    found: dict[str, float] = {}
    for name in ("fresh", "cached", "output"):
        ends = [
            _servers(times, replace(_Sums(1.0, 1.0, 1.0, own), **{name: 1.0 + h}), limits)
            for h in (STEP, -STEP)
        ]
        count: float = getattr(demand, name)
        found[name] = (ends[0] - ends[1]) / (2 * STEP) / count
    return found


def _duals(times: Mapping[str, StepTimes], requests: Sequence[Request]) -> Part:
    own = _half_cached(requests[:2_000])
    demand = demand_of(own)
    optimum = price = ratio = 0.0
    rows: list[Row] = []
    facts: dict[str, object] = {}
    tried = 0
    for name, steps in times.items():
        for limits in (
            *(Limits(token_s=1.0, sequences=batch) for batch in BATCHES),
            *(Limits(token_s=pace, sequences=1024) for pace in (0.03, 0.1)),
        ):
            tried += 1
            found = capacity(steps, demand, limits)
            exact = _servers(steps, _Sums(1.0, 1.0, 1.0, own), limits)
            optimum = max(optimum, abs(found.server_s / exact - 1))
            slopes = _differences(steps, own, limits)
            ours = {"fresh": found.fresh_s, "cached": found.cached_s, "output": found.output_s}
            for key, slope in slopes.items():
                price = max(price, abs(ours[key] / slope - 1))
                there = slope / slopes["fresh"]
                ratio = max(ratio, abs(ours[key] / ours["fresh"] / there - 1))
            if limits.sequences in BATCHES:
                told = f"output {ours['output'] / ours['fresh']:.2f}, "
                told += f"cached {ours['cached'] / ours['fresh']:.3f} of fresh input"
                rows.append(("V11", f"{name}, {limits.sequences} at once", "weft", told))
                facts[f"ratios_{name}_{limits.sequences}".replace(" ", "_")] = {
                    key: round(value / ours["fresh"], 4) for key, value in ours.items()
                } | {"recovered": round(_recovered(demand, ours) / found.server_s, 4)}
    return Part(
        claims=(
            at_most("servers: the programme off the closed form [share]", optimum, 1e-9),
            at_most("prices: duals off finite differences [share]", price, 1e-6),
            at_most("ratios of prices off finite differences [share]", ratio, 1e-6),
        ),
        rows=tuple(rows),
        facts={**facts, "programmes": tried},
    )


def _kept(requests: Sequence[Request]) -> Part:
    """What keys and values that are kept cost where memory limits: room for one token less."""
    steps, own = priced_steps(_plan(LARGE, 2)).times, requests[:2_000]
    limits = Limits(token_s=1e3)
    found = capacity(steps, demand_of(own), limits)
    less, more = (
        _servers(
            replace(steps, cache_tokens=steps.cache_tokens + tokens),
            _Sums(1.0, 1.0, 1.0, own),
            limits,
        )
        for tokens in (-1, 1)
    )
    # Each of the servers keeps it.
    slope = (less - more) / 2.0 / found.server_s
    usd = 3600.0 * found.held_s * 2 * USD_PER_HOUR / 3600.0 * 1e6
    told = f"{usd:.2f} usd for a million tokens and hour at {steps.cache_tokens:,} that fit"
    return Part(
        claims=(
            at_most(
                "tokens kept in memory: dual off finite differences [share]",
                abs(found.held_s / slope - 1) if slope else np.inf,
                1e-6,
            ),
        ),
        rows=(("V11", f"{LARGE.name} on 2, kept in memory", "weft", told),),
    )


def _recovered(demand: Demand, price_s: Mapping[str, float]) -> float:
    """What a mean request pays at these prices [s]."""
    return sum(getattr(demand, name) * price for name, price in price_s.items())


@dataclass(frozen=True, slots=True)
class _Idle:
    """A server that is never idle until all is done: requests a second [1/s].

    Attributes:
        middle: apart from its start and its end.
        whole: with them.
    """

    middle: float
    whole: float


def _rates(times: StepTimes, own: Sequence[Request], batch: int, chunk: int) -> _Idle:
    queued = [replace(one, arrival_s=0.0) for one in own]
    done = np.sort(serve(queued, times, max_sequences=batch, step_tokens=chunk).done_s)
    first, last = len(done) // 5, len(done) * 4 // 5
    middle = (last - first) / float(done[last] - done[first])
    return _Idle(middle, len(done) / float(done[-1]))


def _most(times: Mapping[str, StepTimes], own: Sequence[Request]) -> Part:
    """The most requests that a server can take, which no order of work goes beyond."""
    demand = demand_of(own)
    highest, least = 0.0, 1.0
    rows: list[Row] = []
    for name, steps in times.items():
        for batch in BATCHES:
            served, most = 0.0, 0.0
            for chunk in CHUNKS:
                limits = Limits(token_s=1e3, sequences=batch, step_tokens=chunk)
                allowed = 1.0 / capacity(steps, demand, limits).server_s
                found = _rates(steps, own, batch, chunk)
                highest = max(highest, found.whole / allowed)
                served, most = max(served, found.middle), max(most, allowed)
            least = min(least, served / most)
            told = f"{served:.2f} of {most:.2f} requests a second"
            rows.append(("V11", f"{name}, {batch} at once, never idle", "simulated", told))
    return Part(
        claims=(
            # The programme has each token of an answer go through the layers, the first as well.
            at_most("requests of a simulated server over the programme's [most]", highest, 1.002),
            at_least("the same, by the best of five chunks [least]", least, 0.9),
        ),
        rows=tuple(rows),
    )


LOADS = (0.1, 0.25, 0.5, 0.75, 0.9)


def _arriving(times: Mapping[str, StepTimes], own: Sequence[Request]) -> Part:
    """Dollars a request at the load that arrives, over those of a server that is never idle."""
    limits = Limits(token_s=1e3, step_tokens=1024)
    demand = demand_of(own)
    off, rows = 0.0, list[Row]()
    for name, steps in times.items():
        degree = int(name.rpartition(" ")[2])
        usd_per_s = degree * USD_PER_HOUR / 3600.0
        server_s = capacity(steps, demand, limits).server_s
        full = usd_per_s / _rates(steps, own, limits.sequences, limits.step_tokens).middle
        length_s = own[-1].arrival_s
        for load in LOADS:
            # Little's law: at work are requests a second times seconds of a server for one.
            stretch = len(own) / length_s * server_s / load
            there = [replace(one, arrival_s=one.arrival_s * stretch) for one in own]
            served = serve(
                there, steps, max_sequences=limits.sequences, step_tokens=limits.step_tokens
            )
            usd = usd_per_s * served.elapsed_s / len(own)
            off = max(off, abs(usd * load / full - 1))
            first = np.quantile(served.first_token_s - served.arrival_s, [0.5, 0.99])
            told = f"{1e3 * usd:.3f} usd a thousand, first token {first[0]:.2f} s, "
            told += f"99 of 100 {first[1]:.2f} s; busy {served.busy_s / served.elapsed_s:.0%}"
            rows.append(("V11", f"{name}, {load:.0%} of its capacity", "simulated", told))
    return Part(
        claims=(at_most("price as it arrives: off price at full load over U [share]", off, 0.05),),
        rows=tuple(rows),
        facts={"requests_simulated": len(own)},
    )


# Without the cost model.


def _faster(machine: Machine, by: float) -> Machine:
    """A machine that is so many times as fast in everything."""

    def scaled(own: Quantity, power: int) -> Quantity:
        return replace(own, value=own.value * by**power)

    def link(own: Link) -> Link:
        return replace(
            own, bytes_per_s=scaled(own.bytes_per_s, 1), latency_s=scaled(own.latency_s, -1)
        )

    def device(own: Device) -> Device:
        return replace(
            own,
            matmul_flops_per_s={k: scaled(v, 1) for k, v in own.matmul_flops_per_s.items()},
            vector_flops_per_s=scaled(own.vector_flops_per_s, 1),
            memory_bytes_per_s=scaled(own.memory_bytes_per_s, 1),
            launch_s=scaled(own.launch_s, -1),
        )

    groups = tuple(
        replace(own, device=device(own.device), link=link(own.link)) for own in machine.groups
    )
    return replace(machine, groups=groups, network=link(machine.network))


_WITHOUT = """
import sys
sys.modules["weft.cost"] = None
from weft.tokens.serving import Decoder
"""


def _hidden(own: Sequence[Request]) -> Part:
    demand, off = demand_of(_half_cached(own[:2_000])), 0.0
    for decoder, degree in PLANS:
        limits = Limits(token_s=0.1)
        before = capacity(priced_steps(_plan(decoder, degree)).times, demand, limits)
        quick = _plan(decoder, degree, _faster(preset("dgx-h100x1"), 2.0))
        after = capacity(priced_steps(quick).times, demand, replace(limits, token_s=0.05))
        for name in ("server_s", "fresh_s", "cached_s", "output_s"):
            off = max(off, abs(2.0 * getattr(after, name) / getattr(before, name) - 1))
    without = subprocess.run(
        [sys.executable, "-c", _WITHOUT], capture_output=True, text=True, check=False
    )
    fails = without.returncode != 0 and "weft.cost" in without.stderr
    return Part(
        claims=(
            at_most("twice as fast a machine: off half the prices [share]", off, 1e-6),
            exactly("without the cost model there are no prices", float(fails), 1),
        ),
    )


# Lists of prices.


def _listed(rivals: str) -> Part:
    """Ratios of list prices, as facts: by what others ask, and not whether we agree."""
    books: list[tuple[str, PriceBook, list[tuple[str, str]]]] = [
        ("genai-prices", GenaiBook(), _genai_models())
    ]
    place = _map_of(rivals)
    if place is not None:
        books.append(("litellm", LitellmBook(place), _litellm_models(place)))
    rows: list[Row] = []
    facts: dict[str, object] = {}
    for name, book, models in books:
        found: dict[str, list[float]] = {"output": [], "cached": []}
        for provider, model in models:
            rates = book.rate(provider, model, AT)
            usd = rates.steps[0].usd if rates.is_known else {}
            base = float(usd.get(TokenClass.FRESH, 0))
            for key, leaf in (("output", TokenClass.TEXT), ("cached", TokenClass.CACHE_READ)):
                if base and usd.get(leaf):
                    found[key].append(float(usd[leaf]) / base)
        told = {
            key: (len(own), *(round(float(q), 3) for q in np.quantile(own, [0.25, 0.5, 0.75])))
            for key, own in found.items()
        }
        facts[f"list_ratios_{name}"] = told
        words = [
            f"{key} {own[2]} of fresh input ({own[1]} to {own[3]}, {own[0]} models)"
            for key, own in told.items()
        ]
        rows.append(("V11", "list prices, medians and quartiles", name, "; ".join(words)))
    if place is None:
        rows.append(("V11", "list prices", "litellm", "not installed"))
    return Part(claims=(), rows=tuple(rows), facts=facts)


def _map_of(rivals: str) -> Path | None:
    """LiteLLM's map among a Python's packages."""
    find = f"import importlib.metadata as m; print(m.distribution('litellm').locate_file({MAP!r}))"
    done = subprocess.run([rivals, "-c", find], capture_output=True, text=True, check=False)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def _genai_models() -> list[tuple[str, str]]:
    from genai_prices.data_snapshot import get_snapshot

    return [(own.id, model.id) for own in get_snapshot().providers for model in own.models]


def _litellm_models(place: Path) -> list[tuple[str, str]]:
    plain: dict[str, Any] = json.loads(place.read_text())
    return [
        ("", name)
        for name, own in plain.items()
        if own.get("mode") == "chat" and own.get("output_cost_per_token")
    ]


if __name__ == "__main__":
    part = principles("--quick" in sys.argv)
    print_report(
        BenchReport(
            bench="tokens-principles",
            claims=part.claims,
            table=Table(columns=COLUMNS, rows=part.rows),
            facts=part.facts,
        )
    )
