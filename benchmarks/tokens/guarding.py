"""Guards: false alarms at most as often as stated, and how soon each sees what it is there for.

Streams are those of the Azure LLM inference trace 2023 (conversations), whole and dealt out to ten
keys, each learnt from one part and watched on another; and drawn ones that are hard on purpose.
Without the trace only drawn ones are measured, and the facts say so.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.tokens.guard_bills import (
    NOISE,
    first_call,
    first_z,
    passages,
    planted,
    real_encoding,
    split_tokens,
    trained,
)
from benchmarks.tokens.guard_delays import (
    FACTORS,
    FOILS,
    attacked,
    breaker_delay,
    cap_trips,
    learn,
    run_foil,
)
from benchmarks.tokens.guard_losses import limits_part, verification_part
from benchmarks.tokens.guard_sessions import RULES, circling, honest, rounds_until
from benchmarks.tokens.guard_streams import (
    DRAWN,
    Stream,
    cuts,
    learnt,
    read_stream,
    spends,
    thinned,
    trips,
)
from benchmarks.tokens.part import COLUMNS, Part, Row
from benchmarks.tokens.places import data_file
from weft.report.bench import BenchReport, Claim, at_least, at_most, exactly, print_report
from weft.report.table import Table
from weft.tokens.guards import Again, Breaker, learn_again, learn_baseline
from weft.tokens.guards.odds import Floats

__all__ = ["guarding"]

TRACE = "azure_llm_2023_conv.csv"
LEVEL = 0.05
"""Of false alarms: high, so that too many of them would show in runs as few as these."""
KEYS = 10


def guarding(quick: bool, rivals: str = "") -> Part:
    """What guards see, when, and how often for nothing."""
    path = data_file(TRACE)
    parts = [
        *([] if path is None else _on_trace(path, quick)),
        _on_drawn(quick),
        _cycles(quick),
        _bills(quick, rivals),
        limits_part(quick),
        verification_part(quick),
    ]
    source = "the trace is not there: drawn streams alone" if path is None else path.name
    return Part(
        claims=tuple(claim for own in parts for claim in own.claims),
        rows=tuple(("guarding", *row[1:]) for own in parts for row in own.rows),
        facts={
            "guard_streams": source,
            **{name: value for own in parts for name, value in own.facts.items()},
        },
    )


def _on_trace(path: Path, quick: bool) -> list[Part]:
    rng = np.random.default_rng(2023)
    trace = read_stream(path)
    whole = list(cuts(trace))
    dealt = _dealt(trace, 1 if quick else 5, rng)
    counted = read_stream(path, tokens=True)
    groups = {
        "the whole trace": [*whole, *cuts(counted)],
        "one key of ten": [*dealt, *_dealt(counted, 1 if quick else 5, rng)],
    }
    claims: list[Claim] = []
    rows: list[Row] = []
    for name, pairs in groups.items():
        false = [_trips(past, watched) for past, watched in pairs]
        share = float(np.mean(false))
        claims.append(at_most(f"false alarms, {name}, level {LEVEL} [share]", share, LEVEL))
        told = f"{share:.3f} of {len(false)} trip"
        rows.append(("", f"held-out parts, {name}, money and tokens", "weft", told))
    first = len(counted) // 10
    hasty = "trips" if _trips(counted[:first], counted[first:]) else "does not trip"
    rows.append(("", "tokens, learnt from the first tenth, which is calm", "weft", hasty))
    few = dealt[: 40 if quick else 80]
    delays = [_delays("one key of ten", few, trace), _delays("the whole trace", whole, trace)]
    return [Part(claims=tuple(claims), rows=tuple(rows)), *delays, _progress(trace, quick)]


def _dealt(trace: Stream, times: int, rng: np.random.Generator) -> list[tuple[Stream, Stream]]:
    """What is learnt from and watched, of each of some keys."""
    streams = [own for _ in range(times) for own in thinned(trace, KEYS, rng)]
    return [pair for stream in streams for pair in cuts(stream)]


def _trips(past: Stream, watched: Stream) -> bool:
    base = learn(past, LEVEL)
    assert base is not None, "a tenth of the trace is enough to learn from"
    breaker = Breaker(base)
    for own in spends(watched):
        breaker.observe(own)
    return breaker.verdict().tripped


def _delays(name: str, pairs: Sequence[tuple[Stream, Stream]], trace: Stream) -> Part:
    """Spent before a trip, in calls of mean cost."""
    mean = float(trace.usd.mean())
    starts = [len(watched) // 2 for _, watched in pairs]
    rows: list[Row] = []
    curve: dict[str, float | None] = {}
    claims: list[Claim] = []
    bases = [learn(past, LEVEL) for past, _ in pairs]
    for factor in FACTORS:
        own = np.array(
            [
                breaker_delay(base, watched, start, attacked(watched, start, factor)) / mean
                for base, (_, watched), start in zip(bases, pairs, starts, strict=True)
                if base is not None
            ]
        )
        rows.append(("", f"{factor}x, {name}", "weft", _told(own)))
        curve[f"{factor}x"] = (
            round(float(np.median(own)), 1) if np.isfinite(np.median(own)) else None
        )
        for foil in FOILS:
            for allowed, how in ((LEVEL, "tuned on what is watched"), (None, "on the past")):
                found = run_foil(foil, pairs, starts, factor, allowed=allowed)
                told = f"{_told(found.delays / mean)}, false {found.false:.3f}"
                who = f"{foil}, {how}, {found.window_s:g} s"
                rows.append(("", f"{factor}x, {name}", who, told))
    for factor, limit in ((3, 1000.0), (10, 60.0), (100, 40.0)):
        said = f"{factor}x, {name}: median spent before it trips [calls of mean cost]"
        spent = curve[f"{factor}x"]
        claims.append(at_most(said, np.inf if spent is None else spent, limit))
    facts = {f"guard_delays_{name.replace(' ', '_')}": curve}
    return Part(claims=tuple(claims), rows=tuple(rows), facts=facts)


def _told(delays: Floats) -> str:
    seen = float(np.isfinite(delays).mean())
    many = float(np.quantile(delays, 0.9, method="higher"))
    return f"{np.median(delays):.0f} calls' worth (9 of 10: {many:.0f}), {seen:.0%} seen"


def _progress(trace: Stream, quick: bool) -> Part:
    """Ten times as fast, with ten times the progress, and with what there was before."""
    rng = np.random.default_rng(7)
    half = len(trace) // 2
    tripped: dict[str, list[float]] = {"with progress": [], "without": []}
    mean = float(trace.usd.mean())
    capped: list[bool] = []
    for _ in range(5 if quick else 40):
        made = (rng.random(len(trace)) < trace.usd / mean / 20.0).astype(np.float64)
        base = learn_baseline(spends(trace[:half], made[:half]), level=LEVEL)
        start = half + int(rng.integers(500, 4000))
        later = trace[start : start + 4000]
        attack = Stream(trace.at[start] + (later.at - trace.at[start]) / 10.0, later.usd)
        capped.append(cap_trips(trace[:half], attack, 10.0))
        for name in tripped:
            gain = made[start : start + 4000] * (1.0 if name == "with progress" else 0.0)
            breaker = Breaker(base)
            for own in spends(trace[half:start], made[half:start]):
                breaker.observe(own)
            before = breaker.verdict().usd
            told = breaker.verdict()
            for own in spends(attack, gain):
                told = breaker.observe(own)
                if told.tripped:
                    break
            tripped[name].append((told.usd - before) / mean if told.tripped else np.inf)
    false = float(np.isfinite(tripped["with progress"]).mean())
    seen = np.array(tripped["without"])
    claims = (
        at_most("10x that buys as much progress trips [share]", false, LEVEL),
        at_least("10x that buys none trips [share]", float(np.isfinite(seen).mean()), 1.0),
    )
    told = f"{np.mean(capped):.3f} trip"
    rows: list[Row] = [
        ("", "10x, as much progress for a dollar", "weft", f"{false:.3f} trip"),
        ("", "10x, no progress (one in 20 calls before)", "weft", _told(seen)),
        ("", "10x, as much progress for a dollar", "fixed cap, on the past, 10 s", told),
    ]
    return Part(claims=claims, rows=tuple(rows))


def _on_drawn(quick: bool) -> Part:
    rng = np.random.default_rng(11)
    runs, past, calls = (100, 2000, 4000) if quick else (400, 2000, 20_000)
    rows: list[Row] = []
    worst, agree = 0.0, 0
    for name, draw in DRAWN.items():
        gaps, usd = draw(rng, (runs, past + calls))
        found = learnt(gaps[:, :past], usd[:, :past], LEVEL)
        kept = [n for n, own in enumerate(found) if own is not None and len(own.scales) == 2]
        bases = [own for own in found if own is not None and len(own.scales) == 2]
        at, paid = np.cumsum(gaps[kept, past:], axis=1), usd[kept, past:]
        tripped = trips(bases, at, paid)
        share = float(np.isfinite(tripped).mean())
        worst = max(worst, share)
        for row in range(3):
            breaker, place = Breaker(bases[row]), np.inf
            for number, own in enumerate(spends(Stream(at[row], paid[row]))):
                if breaker.observe(own).tripped:
                    place = float(number)
                    break
            agree += int(place == tripped[row])
        speed = trips(bases, np.cumsum(gaps[kept, past : past + 4000] / 10.0, axis=1), paid)
        rows.append(
            (
                "",
                f"{name}, {calls} calls",
                "weft",
                f"{share:.3f} of {len(bases)} trip; 10x seen after {np.median(speed):.0f} calls",
            )
        )
        cap = _cap_false(gaps[kept], usd[kept], past)
        rows.append(("", f"{name}, {calls} calls", "fixed cap, on the past", f"{cap:.3f} trip"))
    claims = (
        at_most(f"false alarms on drawn streams, worst kind, level {LEVEL} [share]", worst, LEVEL),
        exactly("streams on which a breaker written anew trips at the same call", agree, 12),
    )
    return Part(claims=claims, rows=tuple(rows), facts={"guard_drawn_runs": runs})


def _cap_false(gaps: Floats, usd: Floats, past: int) -> float:
    """Streams on which 1.5 times what ten calls in a row cost a second at most is exceeded."""
    kernel = 10
    at = np.cumsum(gaps, axis=1)
    total = np.cumsum(usd, axis=1)
    speed = (total[:, kernel:] - total[:, :-kernel]) / (at[:, kernel:] - at[:, :-kernel])
    before = speed[:, : past - kernel].max(axis=1)
    return float((speed[:, past - kernel :].max(axis=1) > 1.5 * before).mean())


def _cycles(quick: bool) -> Part:
    rng = np.random.default_rng(3)
    sessions = 200 if quick else 2000
    known = learn_again([honest(rng) for _ in range(sessions)], level=LEVEL)
    good = [honest(rng) for _ in range(sessions)]
    lag = {period: _until(rng, period, known, 10 if quick else 50) for period in (1, 2, 3, 6, 12)}
    false = float(np.mean([rounds_until(own, known, LEVEL) is not None for own in good]))
    rows: list[Row] = [
        ("", "honest sessions with a cycle found", "weft", f"{false:.3f} of {sessions}"),
        *(
            ("", f"cycle of {period} calls", "weft", f"seen in round {rounds:.0f} of {tries}")
            for period, (rounds, _, tries) in lag.items()
        ),
    ]
    for name, rule in RULES.items():
        share = float(np.mean([rule(own) is not None for own in good[:200]]))
        blind = [p for p in lag if rule(circling(rng, p)) is None]
        told = f"{share:.3f} of 200; blind to periods {', '.join(map(str, blind)) or 'none'}"
        rows.append(("", "honest sessions with a cycle found", name, told))
    seen = min(share for _, share, _ in lag.values())
    worst = max(rounds for rounds, _, _ in lag.values())
    claims = (
        at_most(f"cycles found in honest sessions, level {LEVEL} [share]", false, LEVEL),
        at_least("cycles of 1 to 12 calls that are seen [share]", seen, 1.0),
        at_most("rounds until a cycle is seen, median, worst period", worst, 10.0),
    )
    facts = {"guard_again": {name: round(own, 3) for name, own in sorted(known.tools.items())}}
    return Part(claims=claims, rows=tuple(rows), facts=facts)


def _until(
    rng: np.random.Generator, period: int, known: Again, tries: int
) -> tuple[float, float, int]:
    """Median of rounds until a cycle is seen, share of cycles seen, and how many there were."""
    found: list[float] = []
    for _ in range(tries):
        before = honest(rng, 3)
        place = rounds_until([*before, *circling(rng, period)], known, LEVEL)
        found.append(np.inf if place is None else (place - len(before) + 1) / period)
    own = np.array(found)
    return float(np.median(own)), float(np.isfinite(own).mean()), tries


def _bills(quick: bool, rivals: str) -> Part:
    encoding = trained()
    if encoding is None:
        row: Row = ("", "tokens billed", "weft", "tokenizers is not installed")
        return Part(claims=(), rows=(row,))
    rng = np.random.default_rng(5)
    texts = passages()
    ids = [encoding.encode(text).ids for text in texts]
    lost = 0
    for text, own in list(zip(texts, ids, strict=True))[: 20 if quick else 200]:
        more = split_tokens(encoding, own, 0.1, rng)
        again = encoding.decode(more)
        lost += int(again != text or encoding.encode(again).ids != own)
    real = real_encoding(rivals)
    lost += 0 if real is None else real[0]
    sizes = np.array([float(len(own)) for own in ids])
    runs, calls = (300, 300) if quick else (2000, 1000)
    counts = rng.choice(sizes, (runs, calls))
    told = "is not there" if real is None else f"{real[1] - 1:.1%} more, {real[0]} texts lost"
    rows: list[Row] = [("", "one token in ten cut in two", "tiktoken, cl100k_base", told)]
    false: dict[str, float] = {}
    for name, noise in NOISE.items():
        ratios = 1.0 + noise(rng, counts) / counts
        false[name] = float(np.isfinite(first_call(ratios, LEVEL)).mean())
        z = float(np.isfinite(first_z(ratios, LEVEL)).mean())
        rule = float((ratios > 1.0).any(axis=1).mean())
        told = f"honest bills, noise {name}, {calls} calls"
        rows += [
            ("", told, "weft", f"{false[name]:.3f} trip"),
            ("", told, "z-test after each call", f"{z:.3f} trip"),
            ("", told, "canonical-count rule", f"{rule:.3f} trip"),
        ]
    power: dict[str, dict[str, float]] = {}
    noisy = NOISE["in one call of twenty"]
    for share in (0.015, 0.02, 0.05, 0.1, 0.2):
        extra = 0.5 * noisy(rng, counts) + planted(rng, counts, share)
        place = first_call(1.0 + extra / counts, LEVEL)
        power[f"{share:g}"] = {
            str(n): round(float((place <= n).mean()), 3) for n in (10, 30, 100, 300, 1000)
        }
        told = ", ".join(f"{n}: {own:.2f}" for n, own in power[f"{share:g}"].items())
        rows.append(("", f"{share:.1%} planted, seen within calls", "weft", told))
    claims = (
        exactly("texts that change when their tokens are cut, or are not recovered", lost, 0),
        at_most(f"false alarms on honest bills, level {LEVEL} [share]", max(false.values()), LEVEL),
        at_least("5 % planted: seen within 100 calls [share]", power["0.05"]["100"], 0.95),
        at_least("20 % planted: seen within 30 calls [share]", power["0.2"]["30"], 0.95),
    )
    return Part(claims=claims, rows=tuple(rows), facts={"guard_power": power})


if __name__ == "__main__":
    part = guarding("--quick" in sys.argv)
    print_report(
        BenchReport(
            bench="tokens-guarding",
            claims=part.claims,
            table=Table(columns=COLUMNS, rows=part.rows),
            facts=part.facts,
        )
    )
