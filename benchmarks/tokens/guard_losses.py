"""What stolen keys cost with limits and without, and what checking costs against a simulation."""

from __future__ import annotations

import numpy as np

from benchmarks.tokens.part import Part, Row
from weft.report.bench import at_most, exactly
from weft.tokens import Money, usd
from weft.tokens.budgets import Cap
from weft.tokens.guards import (
    Limits,
    best_interval,
    derive_limits,
    inspection_usd,
    settle,
    take,
)

__all__ = ["limits_part", "verification_part"]

DEAR, CHEAP = usd("0.50"), usd("0.01")
"""A call at its worst, and on average. Chosen: 50,000 tokens at ten dollars a million; 1,000."""
PER_MINUTE = 60
"""Calls a minute, of the foil: a limit that is common on keys."""


def limits_part(quick: bool) -> Part:
    """Stolen keys that spend as fast as they can, in as dear calls as they can."""
    rng = np.random.default_rng(1)
    limits = derive_limits(
        Cap.of(usd(1000), "daily"),
        keys=100,
        stolen=3,
        share=0.1,
        react_s=3600.0,
        excess=usd("0.10"),
        in_flight=4,
    )
    worst, beyond = Money(0), 0
    for _ in range(20 if quick else 300):
        spent = sum((_stolen(limits, rng) for _ in range(limits.stolen)), Money(0))
        worst = max(worst, spent)
        beyond += int(spent > limits.lost)
    foil = limits.stolen * PER_MINUTE * 60 * DEAR.nano
    rows: list[Row] = [
        ("", "3 stolen keys, an hour, 1000 usd daily", "weft", f"{worst}, at most {limits.lost}"),
        ("", "3 stolen keys, an hour", "60 calls a minute", f"{Money(foil)}"),
        ("", "3 stolen keys, an hour", "60 calls a minute, honest ones", f"{CHEAP * 3 * 3600}"),
    ]
    claims = (
        exactly("attacks that spend more than the limits promise", beyond, 0),
        at_most("most spent by 3 stolen keys, of the budget [share]", worst.nano / 1e12, 0.1),
    )
    return Part(claims=claims, rows=tuple(rows))


def _stolen(limits: Limits, rng: np.random.Generator) -> Money:
    """Spent in an hour: always as many calls in flight as there may be, dearer than expected."""
    bucket, spent = limits.bucket(0.0), Money(0)
    flying: list[tuple[float, Money, Money]] = []
    now = 0.0
    while now < 3600.0:
        expected = usd(round(float(rng.uniform(0.01, 0.4)), 9))
        if len(flying) < 4:
            bucket, refused = take(bucket, expected, at=now)
            if refused is None:
                excess = usd("0.10") if rng.random() < 0.7 else Money(0)
                flying.append((now + float(rng.uniform(0.1, 30.0)), expected, expected + excess))
                continue
            now += max(min(refused.wait_s, 60.0), 0.01)
        else:
            now = max(now, min(own[0] for own in flying))
        for own in [own for own in flying if own[0] <= now]:
            flying.remove(own)
            bucket = settle(bucket, own[1], own[2], at=now)
            spent += own[2]
    return sum((own[2] for own in flying), spent)


def verification_part(quick: bool) -> Part:
    """Formula of inspection against a simulation, and its best interval against all."""
    rng = np.random.default_rng(2)
    off, missed = 0.0, 0
    for rate, damage, look, caught in ((1e-3, 0.2, 0.5, 1.0), (1e-3, 0.2, 0.5, 0.6)):
        every = 50
        told = inspection_usd(
            every, rate=rate, damage_usd=damage, inspect_usd=look, caught=caught, repair_usd=3.0
        )
        cycles = 20_000 if quick else 400_000
        fails = rng.exponential(1.0 / rate, cycles)
        looks = np.ceil(fails / every) + rng.geometric(caught, cycles) - 1.0
        usd_total = looks * look + damage * (looks * every - fails) + 3.0
        drawn = float(usd_total.sum() / (looks * every).sum())
        off = max(off, abs(told / drawn - 1.0))
        best = best_interval(rate=rate, damage_usd=damage, inspect_usd=look, caught=caught)
        all_ = [
            inspection_usd(n, rate=rate, damage_usd=damage, inspect_usd=look, caught=caught)
            for n in range(1, 3000)
        ]
        missed += int(best.every != int(np.argmin(all_)) + 1)
    claims = (
        at_most("cost of inspection, off a simulation [share]", off, 0.02),
        exactly("best intervals that are not those of all intervals", missed, 0),
    )
    row: Row = ("", "cost of inspection", "weft", f"off {off:.4f} of a simulation")
    return Part(claims=claims, rows=(row,))
