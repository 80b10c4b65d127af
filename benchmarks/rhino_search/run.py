"""How the search grows with operators and devices: `weft bench rhino-search`.

Llamas from eight layers to 405 B parameters are planned on 8 to 16,384 devices, pipelines
included, each in a process of its own. Then a programme's curve over prices of memory is made
once, and budgets are looked up in it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict

from benchmarks.job import program_of
from benchmarks.rhino_search.case import Case, Outcome, measure
from weft.core.units import format_bytes, format_seconds
from weft.machine.presets import preset
from weft.parallel.estimate import slowest_device
from weft.parallel.exact.curve import memory_curve
from weft.parallel.exact.flow import FlowModel
from weft.parallel.exact.unfolded import unfolded
from weft.parallel.placement import Mesh
from weft.parallel.problem import build_problem
from weft.parallel.reshard import Resharding
from weft.parallel.skeleton import build_skeleton
from weft.parallel.strategies import StrategyTable
from weft.program.fold import fold
from weft.report.bench import BenchReport, Claim, at_most, print_report
from weft.report.table import Table

__all__ = ["run"]

LARGEST = {
    level: Case(recipe="llama3_405b", machine="dgx-h100x2048", batch=2048, level=level)
    for level in ("best", "fast")
}
GROWTH = {
    "8 layers on 8": Case(recipe="llama3_8layers", machine="dgx-h100x1", batch=64, level="fast"),
    "8 layers on 64": Case(recipe="llama3_8layers", machine="dgx-h100x8", batch=64, level="fast"),
    "8 B on 64": Case(recipe="llama3_8b", machine="dgx-h100x8", batch=128, level="fast"),
    "8 B on 512": Case(recipe="llama3_8b", machine="dgx-h100x64", batch=512, level="fast"),
    "70 B on 512": Case(recipe="llama3_70b", machine="dgx-h100x64", batch=512, level="fast"),
    "70 B on 4,096": Case(recipe="llama3_70b", machine="dgx-h100x512", batch=2048, level="fast"),
}
DEPTH = {
    (memory, layers): Case(
        recipe="llama3_8layers",
        layers=layers,
        machine="dgx-h100x8",
        batch=64,
        level="fast",
        pipelines_only=True,
        memory_bytes=memory,
    )
    for memory in (1e13, 0.0)
    for layers in (12, 120)
}
"""With room for all, and within the 80 GB of a device: there 12 layers fit as they are, while for
120 the search looks at recomputation and at prices of memory as well."""
BUDGETS = 16
BEST_S, FAST_S, PEAK_BYTES, DEPTH_RATIO, BUDGET_GAP = 60.0, 10.0, 4e9, 1.2, 0.05


def run(quick: bool = False) -> BenchReport:
    """Plan everything; `quick` plans the small ones."""
    load = os.getloadavg()[0]
    names = [name for name in GROWTH if not quick or "layers" in name]
    found = {name: _told(name, measure(GROWTH[name])) for name in names}
    largest: dict[str, Outcome] = {}
    if not quick:
        for level, case in LARGEST.items():
            name = f"405 B on 16,384, {level}"
            largest[level] = found[name] = _told(name, measure(case))
    depth = {
        key: _told(f"{key[1]} layers{', no limit' * bool(key[0])}", measure(case))
        for key, case in DEPTH.items()
    }
    gap, points = _budget_gap()
    return BenchReport(
        bench="rhino-search",
        claims=(*_largest_claims(largest), *_other_claims(depth, gap, points)),
        table=_table(found | {_depth_name(*key): o for key, o in depth.items()}),
        facts={
            "load_average": [load, os.getloadavg()[0]],
            **{name: asdict(outcome) for name, outcome in found.items()},
            **{_depth_name(*key): asdict(outcome) for key, outcome in depth.items()},
        },
    )


def _told(name: str, outcome: Outcome) -> Outcome:
    print(f"{name}: {outcome}", file=sys.stderr, flush=True)
    return outcome


def _largest_claims(largest: Mapping[str, Outcome]) -> list[Claim]:
    claims: list[Claim] = []
    for level, limit in (("best", BEST_S), ("fast", FAST_S)):
        if level in largest:
            outcome = largest[level]
            seconds = outcome.capture_s + outcome.search_s
            text = f"405 B on 16,384 at {level}, capture included [s]"
            claims.append(at_most(text, seconds, limit))
    if largest:
        peak = max(outcome.rss_bytes for outcome in largest.values())
        claims.append(at_most("peak memory of a process [bytes]", peak, PEAK_BYTES))
    return claims


def _depth_name(limit: float, layers: int) -> str:
    return f"pipelines alone, {layers} layers, {'no limit' if limit else '80 GB'}"


def _other_claims(
    depth: Mapping[tuple[float, int], Outcome], gap: float, points: int
) -> list[Claim]:
    (few, many), (light, heavy) = (
        (depth[limit, 12].search_cpu_s, depth[limit, 120].search_cpu_s) for limit in (1e13, 0.0)
    )
    text = f"8 B: {BUDGETS} budgets looked up in one curve of {points} prices, largest gap [share]"
    return [
        at_most(
            "search over pipelines, 120 layers over 12, all fits [ratio]", many / few, DEPTH_RATIO
        ),
        at_most(
            "search over pipelines, 120 layers over 12, 80 GB [ratio]", heavy / light, DEPTH_RATIO
        ),
        at_most(text, gap, BUDGET_GAP),
    ]


def _budget_gap() -> tuple[float, int]:
    """Of memory budgets, the largest distance of what the curve answers from its bound."""
    program, machine, mesh = (
        program_of("llama3.py:llama3_8b"),
        preset("dgx-h100x8"),
        Mesh((64,)),
    )
    table = StrategyTable(program, mesh, slowest_device(machine))
    skeleton = build_skeleton(program, fold(program))
    resharding = Resharding(machine, mesh)
    problem = build_problem(skeleton, mesh, table, resharding)
    model, layers = FlowModel(problem), unfolded(problem, table, resharding)
    free = model.solve(0.0)
    curve = memory_curve(model.solve, 100 * free.objective_s / free.num_bytes)
    large, small = curve.points[0].solution.num_bytes, curve.points[-1].solution.num_bytes
    worst = 0.0
    for number in range(BUDGETS):
        limit = small + (number + 0.5) / BUDGETS * (large - small)
        answer = curve.answer(limit, layers)
        assert answer is not None
        worst = max(worst, answer.objective_s / curve.bound_s(limit) - 1)
    return worst, len(curve.points)


def _table(found: Mapping[str, Outcome]) -> Table:
    columns = ("case", "nodes", "capture", "search", "plan", "step", "gap", "peak memory")
    rows = [
        (
            name,
            f"{o.nodes:,}",
            f"{o.capture_s:.1f} s ({o.capture_cpu_s:.1f} of the processor)",
            f"{o.search_s:.1f} s ({o.search_cpu_s:.1f})",
            o.found,
            format_seconds(o.step_s) if o.step_s else "",
            f"{100 * o.gap:.0f} %" if o.step_s else "",
            format_bytes(o.rss_bytes),
        )
        for name, o in found.items()
    ]
    return Table(columns=columns, rows=tuple(rows))


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
