"""How much faster two ranks are than one: `weft bench scaling`.

The demo's model trains on the same global batch in turn on one rank with one thread, on two
ranks with one thread each, and in plain torch with one thread. Every turn is a set of fresh
processes, and turns follow one another in rounds, so that whatever else the host does hits
all of them. One rank runs twice a round: the ratio of the two is what chance alone makes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.job import Job, program_of, python_path, run_jobs
from weft.parallel.experts import expert_plan
from weft.parallel.plan import Level
from weft.parallel.planning import plan
from weft.report.bench import BenchReport, at_least, at_most, print_report
from weft.report.table import Table
from weft.runtime import launch, probe

__all__ = ["run"]

RECIPE = "gpt.py:gpt_demo"
TARGET = 1.6
CHANCE = 0.05
TIMEOUT_S = 900.0
TURNS = ("one rank", "two ranks", "one rank again", "plain torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much to measure: rounds, and steps of each turn before and after the clock starts."""

    rounds: int
    warm_up: int
    steps: int
    probe_s: float


def run(quick: bool = False) -> BenchReport:
    """Measure in rounds; `quick` does one short round."""
    size = (
        Size(rounds=1, warm_up=1, steps=2, probe_s=6.0)
        if quick
        else Size(rounds=5, warm_up=2, steps=8, probe_s=20.0)
    )
    load = os.getloadavg()[0]
    turns = _turns(size)
    seconds: dict[str, list[float]] = {name: [] for name in TURNS}
    for _ in range(size.rounds):
        for name in TURNS:
            seconds[name].append(median(turns[name]()[size.warm_up :]))
    speedup = _ratio(seconds, "one rank", "two ranks")
    control = _ratio(seconds, "one rank", "one rank again")
    return BenchReport(
        bench="scaling",
        claims=(
            at_least("one rank's step over two ranks', median of rounds", speedup, TARGET),
            at_most("one rank against itself, distance from 1", abs(control - 1), CHANCE),
        ),
        table=_table(seconds),
        facts={
            "recipe": RECIPE,
            "control": control,
            "over_plain_torch": _ratio(seconds, "plain torch", "two ranks"),
            "step_s": seconds,
            "rounds": size.rounds,
            # Processes that others ran: figures from a busy host say little.
            "load_before": load,
        },
    )


def _turns(size: Size) -> Mapping[str, Callable[[], tuple[float, ...]]]:
    """What each turn runs; it returns the seconds of each step."""
    machine, program = probe(2, seconds=size.probe_s), program_of(RECIPE)
    steps = size.warm_up + size.steps
    one = Job(recipe=RECIPE, plan=expert_plan(program, machine, dp=1), steps=steps)
    split = plan(program, machine, level=Level.BEST, mesh=(2,))
    two = Job(recipe=RECIPE, plan=split, steps=steps)

    def on_ranks(job: Job, num_ranks: int) -> tuple[float, ...]:
        return run_jobs((job,), num_ranks, timeout_s=TIMEOUT_S)[0].seconds

    return {
        "one rank": lambda: on_ranks(one, 1),
        "two ranks": lambda: on_ranks(two, 2),
        "one rank again": lambda: on_ranks(one, 1),
        "plain torch": lambda: _plain(steps),
    }


def _plain(steps: int) -> tuple[float, ...]:
    with tempfile.TemporaryDirectory(prefix="weft-bench-") as folder:
        file = Path(folder) / "seconds.json"
        command = ["-m", "benchmarks.scaling.plain", RECIPE, str(steps), str(file)]
        launch(command, 1, timeout_s=TIMEOUT_S, env=python_path())
        return tuple(json.loads(file.read_text()))


def _ratio(seconds: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """Median over rounds of the ratio within a round."""
    return median(s / f for s, f in zip(seconds[slow], seconds[fast], strict=True))


def _table(seconds: Mapping[str, list[float]]) -> Table:
    return Table(
        columns=("turn", "step [ms]", "fastest", "slowest", "one rank over it"),
        rows=tuple(
            (
                name,
                f"{median(found) * 1e3:.0f}",
                f"{min(found) * 1e3:.0f}",
                f"{max(found) * 1e3:.0f}",
                f"{_ratio(seconds, 'one rank', name):.2f}",
            )
            for name, found in seconds.items()
        ),
    )


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
