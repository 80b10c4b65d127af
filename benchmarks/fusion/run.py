"""How fast fused graphs run on CPUs: `weft bench fusion`; on GPUs with `--device cuda`.

Sixteen graphs that move memory, each in three sizes, are computed by torch as it is, by Inductor,
by weft's back end of torch.compile, and by a probe that only reads the inputs and writes the
outputs. All of them take turns in one process with two threads, in another order each round, and
so does a second copy of Inductor: the ratio of the two is what chance alone makes. Where JAX is
installed, XLA takes part as well.

The probe stores as compiled code does by default, through the caches, which first fetch what is
overwritten; a kernel that stores past them may take less time than it.

Ratios are those of the least times over all rounds, since what else a host does only ever makes a
call longer; medians stand beside them. Every graph has a process of its own, in which memory is
pooled (`benchmarks.fusion.case` says why); the facts hold a few graphs under glibc's default.
Every result is compared with torch's in double precision.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from benchmarks.fusion import xla
from benchmarks.fusion.case import CONTROL_RANGE, THREADS, measure
from benchmarks.fusion.cases import GRAPHS, SIZES
from benchmarks.fusion.contestants import EAGER, INDUCTOR, PROBE, WEFT, XLA
from benchmarks.fusion.gpu import Cuda, run_on
from benchmarks.fusion.point import Point, geometric_mean, worst
from weft.core.errors import InputError
from weft.report.bench import BenchReport, Claim, at_least, at_most, print_report
from weft.report.table import Table

__all__ = ["claims_of", "run", "table_of"]

ALL_SPEEDUP, STITCHABLE_SPEEDUP, LEAST_SPEEDUP = 1.6, 2.0, 0.97
OVER_PROBE = 1.5
LARGE = "L"
UNPOOLED = ("res_ln_gelu_drop", "softmax_mask", "adam")
TIMEOUT_S = 1800.0


def run(quick: bool = False, device: str = "cpu") -> BenchReport:
    """Measure every graph; `quick` takes every second one in its smallest size.

    Args:
        quick: less of everything.
        device: "cpu" or "cuda"; `benchmarks.fusion.gpu` says what is measured there.

    Raises:
        InputError: there is no such device.
    """
    if device == "cuda":
        return run_on(Cuda(), quick=quick)
    if device != "cpu":
        raise InputError(need="cpu or cuda", got=repr(device), hint="leave out --device for cpu")
    load = os.getloadavg()[0]
    names, sizes = (tuple(GRAPHS)[::2], SIZES[:1]) if quick else (tuple(GRAPHS), SIZES)
    points = [point for name in names for point in _measured(name, sizes, quick=quick)]
    unpooled = [
        point
        for name in (UNPOOLED[:1] if quick else UNPOOLED)
        for point in _measured(name, sizes[-1:], quick=True, pooled=False)
    ]
    return BenchReport(
        bench="fusion",
        claims=claims_of(points),
        table=table_of(points),
        facts={
            "threads": THREADS,
            "ratios": "of the least times over interleaved rounds",
            "allocator": "glibc's, with a heap that does not shrink and no mappings",
            "XLA": "as in the points" if xla.is_there else "left out: JAX is not installed",
            "speedup": _speedups(points),
            "failed": [f"{p.graph} {p.size}" for p in points if p.failure],
            "disturbed": [f"{p.graph} {p.size}" for p in points if p.disturbed],
            "points": [point.fact() for point in points],
            "default_allocator": [point.fact() for point in unpooled],
            # Processes that others ran: figures from a busy host say little.
            "load_average": [load, os.getloadavg()[0]],
        },
    )


def _measured(
    graph: str, sizes: Sequence[str], *, quick: bool, pooled: bool = True
) -> Iterable[Point]:
    """The same as `measure`, told to people who wait."""
    for point in measure(graph, sizes, quick=quick, pooled=pooled, timeout_s=TIMEOUT_S):
        print(point.line() + " (default allocator)" * (not pooled), file=sys.stderr, flush=True)
        yield point


def claims_of(points: Sequence[Point]) -> tuple[Claim, ...]:
    """What has to hold. A point where weft failed has a speed-up of 0."""
    stitchable = [p for p in points if GRAPHS[p.graph].stitchable]
    reduced = [p for p in points if GRAPHS[p.graph].reduces and p.size == LARGE]
    controls = [abs(p.control - 1) for p in points if p.times.rounds]
    errors = [p.error_share for p in points if not p.failure]
    claims = [
        at_least(
            f"Inductor over weft, {len(points)} points [geometric mean]",
            geometric_mean(p.speedup for p in points),
            ALL_SPEEDUP,
        ),
        at_least(
            f"Inductor over weft, {len(stitchable)} stitchable points [geometric mean]",
            geometric_mean(p.speedup for p in stitchable),
            STITCHABLE_SPEEDUP,
        ),
        at_least("Inductor over weft, smallest", min(p.speedup for p in points), LEAST_SPEEDUP),
    ]
    if reduced:
        claims.append(
            at_most(
                f"weft over the probe, {len(reduced)} large norms and reductions [geometric mean]",
                geometric_mean(p.over_probe for p in reduced),
                OVER_PROBE,
            )
        )
    return (
        *claims,
        at_most("Inductor against itself, farthest from 1", worst(controls), CONTROL_RANGE),
        at_most("weft's error over what Inductor's allows, largest", worst(errors), 1.0),
    )


def _speedups(points: Sequence[Point]) -> dict[str, float]:
    """Other views of the speed-up, as geometric means."""
    done = [p for p in points if not p.failure]
    views = {
        "medians": [p.median_speedup for p in points],
        "without_failed": [p.speedup for p in done],
        **{f"size_{size}": [p.speedup for p in points if p.size == size] for size in SIZES},
        "eager_over_weft": [p.times.ratio(EAGER, WEFT) for p in done],
        "eager_over_Inductor": [p.times.ratio(EAGER, INDUCTOR) for p in done],
        "XLA_over_weft": [p.times.ratio(XLA, WEFT) for p in done if XLA in p.times.least_us],
    }
    return {name: geometric_mean(values) for name, values in views.items() if values}


def table_of(points: Sequence[Point]) -> Table:
    """One row for each graph and size."""
    columns = (
        *("graph", "size", "MB", f"{EAGER} [us]", f"{INDUCTOR} [us]", f"{WEFT} [us]"),
        *(f"{PROBE} [us]", "Inductor / weft", "weft / probe", "control"),
    )
    return Table(columns=columns, rows=tuple(_row(point) for point in points))


def _row(point: Point) -> tuple[str, ...]:
    us = [point.times.least_us.get(name) for name in (EAGER, INDUCTOR, WEFT, PROBE)]
    ratios = (point.speedup, point.over_probe)
    return (
        point.graph,
        point.size,
        f"{point.num_bytes / 1e6:.1f}" if point.num_bytes else "",
        *("" if taken is None else f"{taken:,.0f}" for taken in us),
        *(("failed", "") if point.failure else (f"{ratio:.2f}" for ratio in ratios)),
        f"{point.control:.3f}" if point.times.rounds else "",
    )


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
