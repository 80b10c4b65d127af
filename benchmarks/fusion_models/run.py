"""How fast whole models run on CPUs under weft's back end: `weft bench fusion-models`.

A training step (forward, backward, AdamW) and an inference of six models are computed by torch
as it is, by Inductor, by weft's back end, and by a second copy of Inductor, which take turns in
another order each round, with two threads. Most of the time of these models goes into matrix
products and convolutions, which weft leaves alone; what is claimed is that it never does harm.

Beside each model stand the share of Inductor's time that is outside of such operators, and how
many kernels there are and what they move, before and after (`benchmarks.fusion_models.traffic`
says what counts). Loss, gradients and outputs are compared with torch's in double precision, in
which dropout is left out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from benchmarks.fusion.case import CONTROL_RANGE, THREADS
from benchmarks.fusion.contestants import CONTROL, EAGER, INDUCTOR, WEFT
from benchmarks.fusion.point import geometric_mean, worst
from benchmarks.fusion_models.case import Measured, measure
from benchmarks.fusion_models.networks import NETWORKS
from weft.report.bench import BenchReport, Claim, at_least, at_most, print_report
from weft.report.table import Table

__all__ = ["claims_of", "run", "table_of"]

LEAST_SPEEDUP = 0.97
TIMEOUT_S = 1800.0


def run(quick: bool = False) -> BenchReport:
    """Measure every model; `quick` takes small ones."""
    load = os.getloadavg()[0]
    found = [one for name in NETWORKS for one in _measured(name, quick=quick)]
    points = [one.point for one in found]
    return BenchReport(
        bench="fusion-models",
        claims=claims_of(found),
        table=table_of(found),
        facts={
            "threads": THREADS,
            "models": {name: network.cut for name, network in NETWORKS.items()},
            "small": quick,
            "speedup": geometric_mean(p.speedup for p in points),
            "median_speedup": geometric_mean(p.median_speedup for p in points),
            "failed": [f"{p.graph} {p.size}" for p in points if p.failure],
            "disturbed": [f"{p.graph} {p.size}" for p in points if p.disturbed],
            "points": [one.fact() for one in found],
            "load_average": [load, os.getloadavg()[0]],
        },
    )


def _measured(name: str, *, quick: bool) -> Iterable[Measured]:
    """The same as `measure`, told to people who wait."""
    for found in measure(name, quick=quick, timeout_s=TIMEOUT_S):
        print(found.point.line(), file=sys.stderr, flush=True)
        yield found


def claims_of(found: Sequence[Measured]) -> tuple[Claim, ...]:
    """What has to hold. Where weft failed, it has a speed-up of 0."""
    points = [one.point for one in found]
    controls = [abs(p.control - 1) for p in points if p.times.rounds]
    errors = [p.error_share for p in points if not p.failure]
    return (
        at_least(
            f"Inductor over weft, smallest of {len(points)}",
            min(p.speedup for p in points),
            LEAST_SPEEDUP,
        ),
        at_most("Inductor against itself, farthest from 1", worst(controls), CONTROL_RANGE),
        at_most("weft's error over what Inductor's allows, largest", worst(errors), 1.0),
    )


def table_of(found: Sequence[Measured]) -> Table:
    """One row for each model in training and in inference."""
    columns = (
        *("model", "mode", f"{EAGER} [ms]", f"{INDUCTOR} [ms]", f"{WEFT} [ms]", "Inductor / weft"),
        *("of medians", "control", "memory-bound", "kernels", "moved [MB]"),
    )
    return Table(columns=columns, rows=tuple(map(_row, found)))


def _row(one: Measured) -> tuple[str, ...]:
    point = one.point
    ms = [point.times.least_us.get(name) for name in (EAGER, INDUCTOR, WEFT)]
    before, after = one.traffic.get(INDUCTOR), one.traffic.get(WEFT)
    moved = ("", "")
    if before and after:
        megabytes = [f"{own.num_bytes / 1e6:,.1f}" for own in (before, after)]
        moved = (
            f"{before.kernels} -> {after.kernels} ({after.regions} weft's)",
            " -> ".join(megabytes),
        )
    return (
        point.graph,
        point.size,
        *("" if taken is None else f"{taken / 1e3:,.2f}" for taken in ms),
        *(
            ("failed", "")
            if point.failure
            else (f"{point.speedup:.3f}", f"{point.median_speedup:.3f}")
        ),
        f"{point.control:.3f}" if CONTROL in point.times.least_us else "",
        f"{one.share:.0%}" if one.traffic else "",
        *moved,
    )


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
