"""How good the fusion planner is, and how fast: `weft bench fusion-planner`.

Random small regions are planned by the search, by its greedy ablation and by trying every plan;
regret is how much longer a plan takes than the best, by the latency-evaluator. A region of 400
operators is planned against the clock. Then this host is calibrated, kernels of two threads are
planned with that, and predictions are compared with what the kernels take.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.fusion_planner.exhaustive import best_of_all
from benchmarks.fusion_planner.regions import random_region
from weft.fusion.calibrate import measure_host
from weft.fusion.cost import Host
from weft.fusion.explore import Scores, greedily
from weft.fusion.kernel import compile_region
from weft.fusion.lower import lower
from weft.fusion.plan import FusionPlan
from weft.fusion.region import Region
from weft.fusion.stitch import Stitcher, planned
from weft.fusion.tasks import tasks_of
from weft.report.bench import BenchReport, at_least, at_most, print_report
from weft.report.table import Table

__all__ = ["run"]

SMALL, OPERATORS, MOST_TASKS = 200, 9, 7
LARGE, PLANNING_S = 400, 1.0
THREADS = 2
NO_REGRET, MEDIAN_ERROR = 0.95, 0.25
SAME = 1e-9
MEASURED = ((512, 768, 9), (4096, 1024, 9), (256, 512, 14), (16_384, 1024, 6))
"""Rows, columns and operators of the regions whose kernels are timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret:
    """Times of one region's plans over that of the best of all, less one."""

    beam: float
    greedy: float
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A kernel: what it was predicted to take and took [s]."""

    name: str
    predicted_s: float
    measured_s: float

    @property
    def error(self) -> float:
        """Relative difference of the prediction."""
        return abs(self.predicted_s / self.measured_s - 1)


def run(quick: bool = False) -> BenchReport:
    """Plan, compare, time; `quick` takes fewer regions."""
    host = Host(threads=THREADS)
    regrets = _regrets(20 if quick else SMALL, host)
    seconds = min(_planning_seconds(seed, host) for seed in range(3))
    timed = _timed(1 if quick else 5)
    free = sum(r.beam <= SAME for r in regrets) / len(regrets)
    greedy_free = sum(r.greedy <= SAME for r in regrets) / len(regrets)
    gain = [(1 + r.greedy) / (1 + r.beam) for r in regrets]
    return BenchReport(
        bench="fusion-planner",
        claims=(
            at_least("small regions without regret [share]", free, NO_REGRET),
            at_most(f"planning of {LARGE} operators [s]", seconds, PLANNING_S),
            at_most(
                "predicted against measured kernels, median error [share]",
                statistics.median(t.error for t in timed),
                MEDIAN_ERROR,
            ),
        ),
        table=Table(
            columns=("kernel", "predicted", "measured", "error"),
            rows=tuple(
                (
                    t.name,
                    f"{1e6 * t.predicted_s:.0f} us",
                    f"{1e6 * t.measured_s:.0f} us",
                    f"{t.error:.0%}",
                )
                for t in timed
            ),
        ),
        facts={
            "regions": len(regrets),
            "most_tasks": max(r.tasks for r in regrets),
            "greedy_without_regret": greedy_free,
            "worst_regret": {
                "beam": max(r.beam for r in regrets),
                "greedy": max(r.greedy for r in regrets),
            },
            "greedy_over_beam": {"mean": statistics.mean(gain), "most": max(gain)},
            "error_of_kernels": {t.name: t.error for t in timed},
        },
    )


def _regrets(wanted: int, host: Host) -> list[Regret]:
    found: list[Regret] = []
    seed = 0
    while len(found) < wanted:
        seed += 1
        points = lower(random_region(seed, OPERATORS))
        tasks = tasks_of(points)
        if not 3 <= len(tasks.tasks) <= MOST_TASKS:
            continue
        stitcher = Stitcher(tasks, host)
        best, scores = best_of_all(stitcher), Scores(tasks, host)
        beam = stitcher.seconds(stitcher.best("beam")[0])
        greedy = stitcher.seconds(greedily(scores))
        found.append(Regret(beam=beam / best - 1, greedy=greedy / best - 1, tasks=len(tasks.tasks)))
    return found


def _planning_seconds(seed: int, host: Host) -> float:
    region = random_region(1000 + seed, LARGE)
    start = time.perf_counter()
    points = lower(region)
    planned(region, points, host)
    return time.perf_counter() - start


def _timed(seeds: int) -> list[Timed]:
    found: list[Timed] = []
    with tempfile.TemporaryDirectory() as folder:
        host = measure_host(THREADS, Path(folder))
        for rows, columns, operators in MEASURED:
            for seed in range(seeds):
                region = random_region(2000 + seed, operators, rows, columns)
                name = f"{rows} x {columns}, seed {seed}"
                found.append(_time_kernel(name, region, host, Path(folder)))
                print(found[-1], file=sys.stderr, flush=True)
    return found


def _time_kernel(name: str, region: Region, host: Host, folder: Path) -> Timed:
    kernel = compile_region(region, host, folder)
    program = region.program
    inputs = [torch.randn(program.nodes[i.node].outputs[0].shape) for i in program.inputs]
    plan = FusionPlan.from_json(kernel.description.plan)
    made, best = kernel(inputs), float("inf")
    run = kernel.prepared(made, inputs)
    start = time.perf_counter()
    while time.perf_counter() - start < 0.5:
        begun = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begun)
    return Timed(name=name, predicted_s=plan.seconds, measured_s=best)


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
