"""How long planning takes: `weft bench plan`.

A Llama of eight layers is planned on 64 devices, without and with a memory limit that binds;
one of the same widths and eighty layers shows what depth costs; 70 B parameters on 512
devices and 405 B on 4,096 show size, with all mesh shapes tried. Every case has a process of
its own.

Claims count time on the wall. The table has the processor's as well, and the facts say how busy
the machine was: one thread does the work, so on a quiet machine the two agree.
A search is the whole call of `weft.plan`: the flow programme, the experts' plans, the
simulation of all of them, the whole program's plan. The flow programme alone is what must
not grow with depth.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

from benchmarks.plan.case import Case, Elapsed, Outcome, measure
from weft.core.units import format_bytes
from weft.report.bench import BenchReport, Claim, at_most, print_report
from weft.report.table import Table

__all__ = ["run"]

EIGHT = Case(recipe="llama3_8layers", machine="dgx-h100x8", mesh=(8, 8), budgets=True, programmes=3)
EIGHTY = Case(recipe="llama3_8layers", layers=80, machine="dgx-h100x8", mesh=(8, 8), programmes=3)
LARGE = {
    "70 B on 512": Case(recipe="llama3_70b", machine="dgx-h100x64"),
    "405 B on 4,096": Case(recipe="llama3_405b", machine="dgx-h100x512"),
}
REPEATS = 3

SEARCH_S = 2.0
TIGHT_SEARCH_S = 5.0
CAPTURE_AND_SEARCH_S = 8.0
DEPTH_RATIO = 1.2
LARGE_S = 60.0
PEAK_BYTES = 4e9


def run(quick: bool = False) -> BenchReport:
    """Plan everything; `quick` plans the eight layers once."""
    load = os.getloadavg()[0]
    eight = [measure(EIGHT) for _ in range(1 if quick else REPEATS)]
    others = {} if quick else {"80 layers on 64": measure(EIGHTY)}
    others |= {} if quick else {name: measure(case) for name, case in LARGE.items()}
    return BenchReport(
        bench="plan",
        claims=(*_small_claims(eight), *_large_claims(eight, others)),
        table=_table({"8 layers on 64": eight[-1], **others}),
        facts={
            "load_average": [load, os.getloadavg()[0]],
            "eight": [asdict(outcome) for outcome in eight],
            **{name: asdict(outcome) for name, outcome in others.items()},
        },
    )


def _small_claims(eight: Sequence[Outcome]) -> tuple[Claim, ...]:
    whole = [o.capture.wall_s + o.search.wall_s for o in eight]
    return (
        at_most("search, 8 layers on 64 [s]", median(o.search.wall_s for o in eight), SEARCH_S),
        at_most(
            "search under a limit that binds [s]",
            median(o.tight_search.wall_s for o in eight),
            TIGHT_SEARCH_S,
        ),
        at_most("capture and search, 8 layers on 64 [s]", median(whole), CAPTURE_AND_SEARCH_S),
    )


def _large_claims(eight: Sequence[Outcome], others: dict[str, Outcome]) -> tuple[Claim, ...]:
    claims: list[Claim] = []
    for name, outcome in others.items():
        if name in LARGE:
            whole = outcome.capture.wall_s + outcome.search.wall_s
            text = f"capture and search, {name}, {outcome.meshes} mesh shapes [s]"
            claims.append(at_most(text, whole, LARGE_S))
        else:
            flow = median(o.programme.cpu_s for o in eight)
            ratio = outcome.programme.cpu_s / flow
            claims.append(at_most("flow programme, 80 layers over 8 [ratio]", ratio, DEPTH_RATIO))
    peak = max(o.peak_rss_bytes for o in (*eight, *others.values()))
    return (*claims, at_most("peak memory of a process [bytes]", peak, PEAK_BYTES))


def _table(outcomes: dict[str, Outcome]) -> Table:
    return Table(
        columns=(
            "case",
            "nodes",
            "capture",
            "search",
            "search, less memory",
            "flow programme",
            "columns",
            "plan",
            "peak memory",
        ),
        rows=tuple(
            (
                name,
                f"{o.num_nodes:,}",
                _seconds(o.capture),
                _seconds(o.search),
                _seconds(o.tight_search),
                _seconds(o.programme),
                f"{o.columns:,}" if o.columns else "",
                f"{o.free['mesh']}, {float(str(o.free['step_s'])):.3f} s a step",
                format_bytes(o.peak_rss_bytes),
            )
            for name, o in outcomes.items()
        ),
    )


def _seconds(elapsed: Elapsed) -> str:
    """Time on the wall and, in brackets, the processor's."""
    return f"{elapsed.wall_s:.2f} s ({elapsed.cpu_s:.2f})" if elapsed.wall_s else ""


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
