"""Whether budgets are split as well as can be, and whether the shadow price is one.

Splits against the closed form of power curves and finite differences of the value; menus against
exhaustive search and, where that is too long, dynamic programming; pacing against the best in
hindsight.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks.tokens.part import COLUMNS, Part, Row
from weft.report.bench import BenchReport, Claim, at_least, at_most, print_report
from weft.report.table import Table
from weft.tokens import Money, usd
from weft.tokens.allocate import (
    Choice,
    Curve,
    OddsCurve,
    Option,
    PowerCurve,
    SaturatingCurve,
    Step,
    dynamic_choice,
    exact_choice,
    hull_choice,
    pace_start,
    pace_update,
    split_budget,
    which_option,
)

__all__ = ["allocating"]

CENT = usd("0.01")
SOLVERS: dict[str, Callable[[list[Step], Money], Choice]] = {
    "hull": hull_choice,
    "integer programme": exact_choice,
    "dynamic": lambda steps, budget: dynamic_choice(steps, budget, CENT),
}


def allocating(quick: bool = False, rivals: str = sys.executable) -> Part:
    """Measure; `quick` takes fewer cases. Rivals are the closed form and exhaustive search."""
    some = 30 if quick else 300
    parts = (_splits(some), _menus(some), _large(3 if quick else 20), _paced(3 if quick else 20))
    return Part(
        claims=tuple(claim for part in parts for claim in part.claims),
        rows=tuple(row for part in parts for row in part.rows),
        facts={name: value for part in parts for name, value in part.facts.items()},
    )


def _splits(cases: int) -> Part:
    rng = np.random.default_rng(0)
    differences, gaps, closed = [0.0], [0.0], [0.0]
    for _ in range(cases):
        worth = rng.uniform(0.5, 3.0, 20)
        curves: dict[str, Curve] = {}
        for place, w in enumerate(map(float, worth)):
            if place % 3 == 0:
                curves[str(place)] = PowerCurve(worth=w, exponent=float(rng.uniform(0.2, 0.8)))
            elif place % 3 == 1:
                curves[str(place)] = SaturatingCurve(worth=w, scale_usd=float(rng.uniform(0.5, 3)))
            else:
                elasticity = float(rng.uniform(0.3, 1.0))
                curves[str(place)] = OddsCurve(worth=w, even_usd=1.0, elasticity=elasticity)
        found, step = split_budget(curves, 15.0), 1e-4
        slope = split_budget(curves, 15.0 + step).value - split_budget(curves, 15.0 - step).value
        differences.append(abs(slope / (2.0 * step) / found.shadow_price - 1.0))
        gaps.append(found.bound / found.value - 1.0)
        same = {str(n): PowerCurve(worth=float(w), exponent=0.5) for n, w in enumerate(worth)}
        # v = w sqrt(x): x proportional to w^2, and lambda = sqrt(sum w^2 / B) / 2.
        exact = float(np.sqrt((worth**2).sum() / 15.0) / 2.0)
        closed.append(abs(split_budget(same, 15.0).shadow_price / exact - 1.0))
    result = f"price {max(differences):.1e} off finite differences, {max(closed):.1e} off the "
    result += f"closed form, gap {max(gaps):.1e}"
    return Part(
        claims=(
            at_most("shadow price against d(value)/dB [share]", max(differences), 1e-6),
            at_most("shadow price against its closed form [share]", max(closed), 1e-9),
            at_most("gap between a split and its dual bound [share]", max(gaps), 1e-9),
        ),
        rows=(("allocating", f"{cases} splits over 20 curves", "weft", result),),
    )


def _menu(rng: np.random.Generator, steps: int, options: int, cents: int) -> list[Step]:
    return [
        Step(
            name=str(n),
            options=tuple(
                Option(name=str(m), cost=CENT * int(rng.integers(0, cents)), value=rng.random())
                for m in range(options)
            ),
        )
        for n in range(steps)
    ]


def _menus(cases: int) -> Part:
    rng = np.random.default_rng(1)
    off = breach = 0.0
    tried = greedy = 0
    while tried < cases:
        steps, budget = _menu(rng, 5, 4, 20), CENT * int(rng.integers(20, 60))
        values = [
            sum(own.value for own in picks)
            for picks in itertools.product(*(step.options for step in steps))
            if sum(own.cost.nano for own in picks) <= budget.nano
        ]
        if not values:
            continue
        tried += 1
        best, hull = max(values), hull_choice(steps, budget)
        found = (exact_choice(steps, budget), dynamic_choice(steps, budget, CENT))
        off = max(off, *(abs(own.value - best) for own in found))
        breach = max(breach, best - hull.bound, *(best - own.bound for own in found))
        greedy += hull.value < best - 1e-12
    return Part(
        claims=(
            at_most("menus: off exhaustive search [value]", off, 1e-9),
            at_most("menus: best value beyond a bound [value]", breach, 1e-9),
        ),
        rows=(
            (
                "allocating",
                f"{cases} menus of 4^5 choices",
                "weft",
                f"exact in all; upgrades along the hull alone miss the best in {greedy}",
            ),
        ),
    )


def _large(cases: int) -> Part:
    rng = np.random.default_rng(2)
    spent = dict.fromkeys(SOLVERS, 0.0)
    off, gap = 0.0, 0.0
    for _ in range(cases):
        steps, budget = _menu(rng, 100, 6, 200), usd("33.37")
        values: dict[str, float] = {}
        for name, solve in SOLVERS.items():
            began = time.perf_counter()
            found = solve(steps, budget)
            spent[name] += time.perf_counter() - began
            values[name] = found.value
            gap = max(gap, found.bound / found.value - 1.0) if name == "hull" else gap
        off = max(off, abs(values["dynamic"] - values["integer programme"]))
    rows: tuple[Row, ...] = tuple(
        ("allocating", "a menu of 6^100 choices", name, f"{1e3 * own / cases:.2f} ms")
        for name, own in spent.items()
    )
    return Part(
        claims=(
            at_most("menus of 6^100: programme and dynamic differ by [value]", off, 1e-6),
            at_most("menus of 6^100: largest gap of the hull [share]", gap, 0.01),
        ),
        rows=rows,
    )


def _paced(cases: int) -> Part:
    shares: list[float] = []
    for seed in range(cases):
        rng = np.random.default_rng(seed)
        tasks = [
            (
                Option(name="skip", cost=usd(0), value=0.0),
                Option(name="small", cost=CENT * 2, value=0.5 * hard),
                Option(name="large", cost=CENT * 10, value=hard),
            )
            for hard in map(float, rng.random(2000))
        ]
        budget = usd(60)
        steps = [Step(name=str(n), options=own) for n, own in enumerate(tasks)]
        shares.append(_followed(tasks, budget) / hull_choice(steps, budget).bound)
    least = min(shares)
    claim: Claim = at_least("pacing 2,000 tasks: least share of the best in hindsight", least, 0.95)
    result = f"{np.mean(shares):.4f} of the best in hindsight, at least {least:.4f}"
    return Part(claims=(claim,), rows=(("allocating", "pacing 2,000 tasks", "weft", result),))


def _followed(tasks: list[tuple[Option, ...]], budget: Money) -> float:
    pace, value = pace_start(budget, len(tasks), 1.0), 0.0
    for options in tasks:
        pick = which_option(pace, options)
        value += 0.0 if pick is None else options[pick].value
        pace = pace_update(pace, usd(0) if pick is None else options[pick].cost)
    return value


if __name__ == "__main__":
    part = allocating("--quick" in sys.argv)
    print_report(
        BenchReport(
            bench="tokens-allocating",
            claims=part.claims,
            table=Table(columns=COLUMNS, rows=part.rows),
            facts=part.facts,
        )
    )
