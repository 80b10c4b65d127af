"""Reinforcement learning from old samples: `weft bench gac`.

Small transformers learn digit tasks from rewards, from samples of a policy that is `lag` updates
old. Every method gets its learning rate from the same rates, on seeds that are not reported; seeds
differ in base policies and in samples. The reference is training on samples of no age.

Finished runs are kept in `.gac/` beside the benchmark's folder, so that a benchmark that was broken
off goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.gac.methods import CORRECTIONS, METHODS, RECIPE
from benchmarks.gac.trial import Outcome, Setting
from benchmarks.gac.tuned import Cell, Plan, Tuned, interval, measure
from weft.report.bench import BenchReport, Claim, at_least, at_most, print_report
from weft.report.table import Table

__all__ = ["run"]

SYNC, ALWAYS = "none", "GAC"
LAGS = (4, 8, 16, 32, 64)
NEAR = 16
REACH, HARMLESS = 0.02, 0.01
RATES = (5e-4, 1e-3, 1.5e-3, 2e-3, 3e-3)
FEWER_RATES = (5e-4, 1e-3, 2e-3)
TUNING, SEEDS = (11, 12), tuple(range(21, 28))
FEWER_SEEDS = SEEDS[:5]
KEPT = Path(__file__).parents[1] / ".gac" / "trials.jsonl"

_REVERSE = Setting(name="reverse", task="reverse 3", width=32, layers=1)
_SORT = Setting(name="sort", task="sort 4", width=32, layers=2, updates=180)
SETTINGS = {
    "reverse": _REVERSE,
    "sort": _SORT,
    "random lag": replace(_REVERSE, name="random lag", random_lag=True),
    "noise": replace(_REVERSE, name="noise", prompts=16, updates=300),
}
"""The first is that of a published study's kind: samples enough for a clear gradient. The second is
harder. The third has lags that vary, the fourth a quarter of the samples."""

SOME = ("none", "GAC", "PPO clip", "TIS", "TIS + GAC", "TIS(1) + KL", RECIPE)


def _cells(setting: str, methods: Sequence[str], lags: Sequence[int]) -> list[Cell]:
    return [
        *(Cell(setting=setting, method=m, lag=0) for m in (SYNC, ALWAYS)),
        *(Cell(setting=setting, method=m, lag=lag) for m in methods for lag in lags),
    ]


def _plans(quick: bool) -> list[Plan]:
    if quick:
        short = {"reverse": replace(_REVERSE, updates=60)}
        cells = _cells("reverse", ("none", "shrink", "GAC", "TIS", RECIPE), (8,))
        return [Plan(settings=short, cells=cells, rates=(1e-3,), tuning=(11,), seeds=(0, 1))]
    every = tuple(METHODS)
    return [
        Plan(
            settings=SETTINGS,
            cells=_cells("reverse", every, LAGS),
            rates=RATES,
            tuning=TUNING,
            seeds=SEEDS,
        ),
        Plan(
            settings=SETTINGS,
            cells=_cells("sort", every, LAGS),
            rates=FEWER_RATES,
            tuning=TUNING[:1],
            seeds=FEWER_SEEDS,
        ),
        Plan(
            settings=SETTINGS,
            cells=[*_cells("random lag", SOME, (8, 32)), *_cells("noise", SOME, (8, 32))],
            rates=FEWER_RATES,
            tuning=TUNING[:1],
            seeds=FEWER_SEEDS,
        ),
    ]


def run(quick: bool = False) -> BenchReport:
    """Tune and compare; `quick` takes a short task, one lag, one rate and two seeds."""
    KEPT.parent.mkdir(exist_ok=True)
    found: dict[Cell, Tuned] = {}
    for plan in _plans(quick):
        found |= measure(plan, kept=KEPT, workers=os.cpu_count() or 1)
    settings = list(dict.fromkeys(cell.setting for cell in found))
    return BenchReport(
        bench="gac",
        claims=tuple(claim for name in settings for claim in _claims(name, found)),
        table=_table(found),
        facts={
            "recipe": RECIPE,
            "rates": RATES,
            "cells": [
                [
                    *(cell.setting, cell.method, cell.lag, tuned.rate),
                    [round(own.final, 4) for own in tuned.outcomes],
                    [round(own.mean, 4) for own in tuned.outcomes],
                    round(tuned.mean(lambda own: own.cosine), 3),
                    round(tuned.mean(lambda own: own.kl), 4),
                    tuned.collapses,
                ]
                for cell, tuned in found.items()
            ],
        },
    )


def _claims(setting: str, found: Mapping[Cell, Tuned]) -> list[Claim]:
    def at(method: str, lag: int) -> Tuned:
        return found[Cell(setting=setting, method=method, lag=lag)]

    lags = sorted({cell.lag for cell in found if cell.setting == setting and cell.lag > 0})
    methods = {cell.method for cell in found if cell.setting == setting}
    near = [lag for lag in lags if lag <= NEAR]
    sync = at(SYNC, 0).final
    best = max(
        (m for m in CORRECTIONS if m in methods),
        key=lambda m: sum(at(m, lag).final for lag in lags),
    )
    gains = _gains(at, RECIPE, best, lags, lambda own: own.final)
    claims = [
        at_most(
            f"{setting}: final reward of {RECIPE} below synchronous, lags to {NEAR}, most",
            max(sync - at(RECIPE, lag).final for lag in near),
            REACH,
        ),
        at_most(
            f"{setting}: share of runs of {RECIPE} that collapse, lags to {max(lags)}",
            sum(at(RECIPE, lag).collapses for lag in lags) / len(lags),
            0.0,
        ),
        at_least(
            f"{setting}: final reward of {RECIPE} over the best correction without GAC ({best}),"
            f" mean over lags (+- {interval(gains):.4f})",
            sum(gains) / len(gains),
            0.0,
        ),
    ]
    if "shrink" in methods:
        direction = _gains(at, "GAC", "shrink", lags, lambda own: own.mean)
        claims.append(
            at_least(
                f"{setting}: mean reward of GAC over its shrink control, lower end of the interval"
                f" (mean {sum(direction) / len(direction):.4f})",
                sum(direction) / len(direction) - interval(direction),
                0.0,
            )
        )
    if ALWAYS in methods and Cell(setting=setting, method=ALWAYS, lag=0) in found:
        claims.append(
            at_most(
                f"{setting}: final reward of synchronous training without and with GAC, apart",
                abs(sync - at(ALWAYS, 0).final),
                HARMLESS,
            )
        )
    return claims


def _gains(
    at: Callable[[str, int], Tuned],
    ours: str,
    theirs: str,
    lags: Sequence[int],
    of: Callable[[Outcome], float],
) -> list[float]:
    """What one method has over another, mean over lags, of each seed."""
    by_lag = [
        [of(a) - of(b) for a, b in zip(at(ours, n).outcomes, at(theirs, n).outcomes, strict=True)]
        for n in lags
    ]
    return [sum(own) / len(own) for own in zip(*by_lag, strict=True)]


def _table(found: Mapping[Cell, Tuned]) -> Table:
    def shown(values: Sequence[float]) -> str:
        return f"{sum(values) / len(values):.3f} +- {interval(values):.3f}"

    return Table(
        caption="each method at its own learning rate; means over seeds with 95 % intervals",
        columns=("setting", "lag", "method", "rate", "final", "mean", "cosine", "collapses"),
        rows=tuple(
            (
                cell.setting,
                str(cell.lag),
                cell.method,
                f"{tuned.rate:g}",
                shown([own.final for own in tuned.outcomes]),
                shown([own.mean for own in tuned.outcomes]),
                f"{tuned.mean(lambda own: own.cosine):.2f}",
                f"{tuned.collapses:.0%}",
            )
            for cell, tuned in sorted(
                found.items(), key=lambda item: (item[0].setting, item[0].lag, -item[1].final)
            )
        ),
    )


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
