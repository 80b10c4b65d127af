"""How well a step's time is predicted: `weft bench predict`.

This host is probed as a machine of two ranks. Several models run under hand-written and
searched plans, all in the same processes, forwards and then backwards in order, and the
median step of each is compared with what the simulator says about the plan.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.job import Job, TimedStep, program_of, run_jobs
from weft.machine import Machine
from weft.parallel.experts import expert_plan
from weft.parallel.plan import Level, ParallelPlan
from weft.parallel.planning import plan
from weft.parallel.serialize import plan_digest
from weft.report.bench import BenchReport, at_least, at_most, print_report
from weft.report.table import Table
from weft.runtime import probe

__all__ = ["run"]

RECIPES = ("gpt.py:gpt_demo", "hf_llama.py:hf_llama_small", "moe.py:moe_small")
DEGREES = {
    "data": {"dp": 2},
    "ZeRO-3": {"dp": 2, "fsdp": True},
    "tensor": {"tp": 2},
    "tensor, sequence": {"tp": 2, "sp": True},
}
MESH = (2,)
NUM_PLANS = 8
MEDIAN_ERROR = 0.2
RANK_CORRELATION = 0.9
TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(TimedStep):
    """A plan with the time of its step."""

    plan_name: str


def run(quick: bool = False) -> BenchReport:
    """Predict, measure, compare; `quick` does two models with three steps a plan."""
    load = os.getloadavg()[0]
    machine = probe(2, seconds=6.0 if quick else 20.0)
    rows = measure(machine, RECIPES[:2] if quick else RECIPES, steps=3 if quick else 7)
    predicted, measured = [r.predicted_s for r in rows], [r.measured_s for r in rows]
    return BenchReport(
        bench="predict",
        claims=(
            at_least("different plans", len(rows), NUM_PLANS),
            at_most("median error of the step [share]", _median_error(rows), MEDIAN_ERROR),
            at_least(
                "rank correlation of predicted and measured",
                rank_correlation(predicted, measured),
                RANK_CORRELATION,
            ),
        ),
        table=_table(rows),
        facts={
            "plans": [_fact(row) for row in rows],
            "within_models": _within(rows),
            # Processes that others ran: figures from a busy host say little.
            "load_before": load,
        },
    )


def measure(machine: Machine, recipes: Sequence[str], *, steps: int) -> list[Row]:
    """Predicted and measured time of every plan of every recipe."""
    plans = {
        (recipe, name): decided
        for recipe in recipes
        for name, decided in different_plans(recipe, machine).items()
    }
    jobs = [Job(recipe=r, plan=decided, steps=steps + 2) for (r, _), decided in plans.items()]
    # There and back again: what drifts slowly hits first and last alike.
    outcomes = run_jobs([*jobs, *reversed(jobs)], 2, timeout_s=TIMEOUT_S)
    there, back = outcomes[: len(jobs)], reversed(outcomes[len(jobs) :])
    return [
        Row(
            recipe=recipe,
            plan_name=name,
            predicted_s=decided.prediction.step_s,
            measured_s=median((*first.seconds[2:], *second.seconds[2:])),
        )
        for ((recipe, name), decided), first, second in zip(plans.items(), there, back, strict=True)
    ]


def different_plans(recipe: str, machine: Machine) -> dict[str, ParallelPlan]:
    """Hand-written and searched plans, each decision once."""
    program = program_of(recipe)
    found = {name: expert_plan(program, machine, **d) for name, d in DEGREES.items()}
    found["searched"] = plan(program, machine, level=Level.BEST, mesh=MESH)
    leanest = min(decided.prediction.peak_bytes for decided in found.values())
    found["searched, less memory"] = plan(
        program, machine, level=Level.BEST, mesh=MESH, memory_limit_bytes=1.02 * leanest
    )
    once = {plan_digest(decided): name for name, decided in reversed(found.items())}
    return {name: found[name] for name in found if name in once.values()}


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's: the correlation of the places in order; 1 for the same order.

    Example:
        >>> rank_correlation([1.0, 2.0, 9.0], [10.0, 30.0, 31.0])
        1.0
    """
    places = [np.argsort(np.argsort(values)) for values in (first, second)]
    return round(float(np.corrcoef(places[0], places[1])[0, 1]), 12)


def _median_error(rows: Sequence[Row]) -> float:
    return median(abs(row.error) for row in rows)


def _within(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Error and order among the plans of each model, which is what a planner relies on."""
    found: dict[str, dict[str, float]] = {}
    for recipe in dict.fromkeys(row.recipe for row in rows):
        own = [row for row in rows if row.recipe == recipe]
        order = rank_correlation([r.predicted_s for r in own], [r.measured_s for r in own])
        found[recipe] = {"median_error": _median_error(own), "rank_correlation": order}
    return found


def _fact(row: Row) -> dict[str, object]:
    return {
        "recipe": row.recipe,
        "plan": row.plan_name,
        "predicted_s": row.predicted_s,
        "measured_s": row.measured_s,
    }


def _table(rows: Sequence[Row]) -> Table:
    return Table(
        columns=("model", "plan", "predicted [ms]", "measured [ms]", "error"),
        rows=tuple(
            (
                row.recipe.partition(":")[2],
                row.plan_name,
                f"{row.predicted_s * 1e3:.1f}",
                f"{row.measured_s * 1e3:.1f}",
                f"{row.error:+.0%}",
            )
            for row in rows
        ),
    )


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
