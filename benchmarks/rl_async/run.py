"""Does it pay to train on samples that are a few steps old?

Three ways to train the same policy on the same two cores, for the same number of samples:

    asynchronous   a trainer and a process that makes samples, side by side; 8 steps old at most
    taking turns   the same two processes, synchronous: one works while the other waits
    one process    synchronous, with both cores for each operation

Asynchronous training is compared with the faster of the other two. At best it takes the longer of
making samples and learning from them, instead of their sum: twice as fast where they take alike.
The recipe was chosen for that (each is told): learning takes 1.4 times as long as making samples,
on one core each, and processes have to move about 150 kB of weights and 64 answers a step. At
larger sizes people bring the two together by giving each as many processors as it needs.
"""

from __future__ import annotations

import os
import statistics
from typing import Any

from benchmarks.own_process import run_alone
from weft.report.bench import BenchReport, at_least, at_most
from weft.report.table import Table

__all__ = ["run"]

RECIPE = "rl_reverse.py:rl_reverse_six"
STALENESS = 8
STEPS = 1000
SEEDS = (0, 1)
SPEED = 1.5
"""Chosen: three quarters of the best that two processes can do."""
REWARD = 0.02
"""Chosen: differences of seeds are half as large, and learning more than ten times."""
TIMEOUT_S = 300.0

WAYS = {
    "asynchronous": {"engine": "ray", "staleness": STALENESS, "threads": 1},
    "taking turns": {"engine": "ray", "staleness": 0, "threads": 1},
    "one process": {"engine": "local", "staleness": 0, "threads": 2},
}


def run(quick: bool = False) -> BenchReport:
    """Train in all three ways; `quick` takes a third of the steps, and says nothing of rewards."""
    load = os.getloadavg()[0]
    steps = STEPS // 3 if quick else STEPS
    seeds = SEEDS[:1] if quick else SEEDS
    # Ways take turns, so that what else the machine does falls on all of them.
    found = {(seed, way): _ran(way, steps, seed) for seed in seeds for way in WAYS}
    speed = {
        way: statistics.median(found[seed, way]["samples_per_s"] for seed in seeds) for way in WAYS
    }
    reward = {way: statistics.mean(found[seed, way]["reward"] for seed in seeds) for way in WAYS}
    best = max(("taking turns", "one process"), key=lambda way: speed[way])
    claims = [
        at_least(
            "samples per second at a staleness of 8, over the faster synchronous way [ratio]",
            speed["asynchronous"] / speed[best],
            SPEED,
        ),
        at_least(
            "samples per second, over the same two processes taking turns [ratio]",
            speed["asynchronous"] / speed["taking turns"],
            SPEED,
        ),
    ]
    if not quick:
        lost = max(reward[way] for way in ("taking turns", "one process")) - reward["asynchronous"]
        claims.append(at_most("final reward lost to synchronous training", lost, REWARD))
    return BenchReport(
        bench="rl-async",
        claims=tuple(claims),
        table=_table(found, speed, reward),
        facts={
            "recipe": RECIPE,
            "steps": steps,
            "seeds": list(seeds),
            "runs": [{"way": way, "seed": seed, **got} for (seed, way), got in found.items()],
            "faster_synchronous": best,
            # Processes that others ran: figures from a busy host say little.
            "load_before": load,
        },
    )


def _ran(way: str, steps: int, seed: int) -> dict[str, Any]:
    case = {"recipe": RECIPE, "steps": steps, "seed": seed, "correction": "ppo", **WAYS[way]}
    return run_alone("benchmarks.rl_async.contestant", case, way, TIMEOUT_S)


def _table(
    found: dict[tuple[int, str], dict[str, Any]], speed: dict[str, float], reward: dict[str, float]
) -> Table:
    def mean(way: str, name: str) -> float:
        return statistics.mean(got[name] for (_, one), got in found.items() if one == way)

    return Table(
        columns=("way", "samples/s", "waited a step", "learnt", "staleness", "final reward"),
        rows=tuple(
            (
                way,
                f"{speed[way]:.0f}",
                f"{mean(way, 'waited_s') * 1e3:.0f} ms",
                f"{mean(way, 'learnt_s') * 1e3:.0f} ms",
                f"{mean(way, 'staleness'):.1f}",
                f"{reward[way]:.3f}",
            )
            for way in WAYS
        ),
    )
